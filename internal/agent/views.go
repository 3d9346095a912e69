package agent

import (
	"context"
	"encoding/json"
	"errors"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/internal/redact"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// sessionWaiting is the state of a session that waits for an answer: the runtime calls it busy.
const sessionWaiting = "waiting"

// maxResultBody is how large a page of history may become; older messages of the page are left for the next one.
const maxResultBody = proof.MaxResult - maxResultOverhead

// doneEnding is what a surface gets for a command that was carried out. Nothing local is in it but what the policy
// exposes.
func (p *pairingRun) doneEnding(ctx context.Context, row journal.Row, s journal.Surface, result wire.ExecResult) ending {
	r := p.redactor()
	e := ended(wire.StateCompleted, "", r.Text(result.Message))
	e.body.TurnID = result.MessageID
	if result.Session != nil {
		session := sessionOf(r, *result.Session)
		e.body.Session = &session
	}
	if !row.Digest.IsZero() {
		e.outcome = result.Decision
		if e.outcome == "" {
			e.outcome = decidedAs(row.Exec)
		}
	}
	switch row.Kind {
	case proof.Status.String():
		p.fillStatus(ctx, &e.body, r, s, result)
	case proof.History.String():
		fillHistory(&e.body, r, result.History)
	}
	return e
}

// decidedAs is the outcome of a decision that the executor only confirmed.
func decidedAs(cmd wire.ExecCommand) string {
	switch {
	case cmd.Kind == proof.QuestionReply.String():
		return wire.DecisionAnswered
	case cmd.Kind == proof.QuestionReject.String():
		return wire.DecisionRejected
	case cmd.Allow:
		return wire.DecisionAllowed
	}
	return wire.DecisionDenied
}

// fillStatus adds sessions, and for a surface with decide the open requests byte for byte as they were published.
func (p *pairingRun) fillStatus(ctx context.Context, body *wire.ResultBody, r *redact.Redactor, s journal.Surface, result wire.ExecResult) {
	policy := p.policy()
	open, err := p.journal.OpenRequests(ctx, p.id)
	if err != nil {
		p.log.Error("reading open requests", "error", err)
	}
	waits := map[string]bool{}
	for _, q := range open {
		waits[q.Session] = true
		if s.Scopes.Has(proof.ScopeDecide) && policy.ShowRequests == pairing.ShowDecide {
			body.Requests = append(body.Requests, wire.Exact(q.Bytes))
		}
	}
	for _, session := range result.Sessions {
		view := sessionOf(r, session)
		if waits[view.ID] {
			view.State = sessionWaiting
		}
		body.Sessions = append(body.Sessions, view)
	}
	if body.Policy, err = json.Marshal(policy); err != nil {
		p.log.Error("encoding the policy", "error", err)
	}
}

// fillHistory adds a page of a transcript, newest last. What does not fit is left for the next page.
func fillHistory(body *wire.ResultBody, r *redact.Redactor, page *wire.ExecPage) {
	if page == nil {
		return
	}
	body.More = page.Next != ""
	room := maxResultBody - maxResultOverhead
	for i := len(page.Messages) - 1; i >= 0; i-- {
		m := messageOf(r, page.Messages[i])
		raw, err := json.Marshal(m)
		if err == nil && len(raw) >= room && len(body.Messages) == 0 { // alone too large for any page: named, not shown
			m.Parts, m.Error = []wire.Part{}, "too long to show here"
			raw, err = json.Marshal(m)
		}
		if room -= len(raw) + 1; err != nil || room < 0 {
			body.More = true
			break
		}
		body.Messages = append([]wire.Message{m}, body.Messages...)
	}
}

// messageOf is a message as surfaces see it.
func messageOf(r *redact.Redactor, m wire.ExecMessage) wire.Message {
	view := wire.Message{ID: m.ID, Role: m.Role, Created: millis(m.CreatedAt), Error: failureText(r, m.Error), Parts: []wire.Part{}}
	for _, raw := range m.Parts {
		if part := partOf(r, raw); part != nil {
			view.Parts = append(view.Parts, *part)
		}
	}
	return view
}

// isGone reports whether an error says that there is no such row.
func isGone(err error) bool { return errors.Is(err, journal.ErrState) }
