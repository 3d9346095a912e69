package agent

import (
	"context"
	"errors"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// byDesktop is an audit line of something that the desktop's owner, or the agent by itself, did.
func (p *pairingRun) byDesktop(t audit.Type, outcome audit.Outcome, reason string) journal.Line {
	return journal.Line{
		Type: t, Outcome: outcome, Reason: reason, Pairing: p.id.String(),
		Actor:  audit.Actor{Kind: audit.Desktop, ID: p.id.String(), Label: p.row.Host},
		Target: wire.AuditTarget{Kind: audit.Pairing, ID: p.id.String()},
	}
}

// byBroker is an audit line of something that the broker said.
func (p *pairingRun) byBroker(t audit.Type, outcome audit.Outcome, reason string) journal.Line {
	l := p.byDesktop(t, outcome, reason)
	l.Actor = audit.Actor{Kind: audit.Broker, Key: p.row.BrokerKey.String()}
	return l
}

// bySurface is an audit line about a command of a surface.
func (p *pairingRun) bySurface(t audit.Type, outcome audit.Outcome, reason string, s journal.Surface, r journal.Row) journal.Line {
	l := journal.Line{
		Type: t, Outcome: outcome, Reason: reason, Pairing: p.id.String(),
		Actor:   audit.Actor{Kind: audit.Surface, ID: s.ID.String(), Label: s.Label, Key: s.Ssig.String()},
		Target:  wire.AuditTarget{Kind: audit.Command, ID: r.Command},
		Session: r.Exec.SessionID,
		Command: &wire.AuditCommand{ID: r.Command, Kind: r.Kind, EnvelopeSHA256: r.Envelope.String(), Commit: r.Commit.String(), Seq: r.Seq},
	}
	if !r.Digest.IsZero() {
		l.RequestSHA256, l.Decision = r.Digest.String(), decisionOf(r.Exec)
	}
	return l
}

// decisionOf names what a decision says, for an audit line.
func decisionOf(cmd wire.ExecCommand) string {
	switch cmd.Kind {
	case proof.QuestionReply.String():
		return decideAnswer
	case proof.QuestionReject.String():
		return decideReject
	}
	if cmd.Allow {
		return decideAllow
	}
	return decideDeny
}

// noteTurn keeps that a turn runs and how it ended, for what an executor must catch up with after a start.
func (a *Agent) noteTurn(e wire.ExecEvent) error {
	ctx, cancel := context.WithTimeout(context.Background(), journalTimeout)
	defer cancel()
	ref := e.CommandRef
	if ref == "" {
		ref = e.MessageID
	}
	switch {
	case ref == "":
		return nil
	case e.Type == wire.ExecTurnStarted:
		return a.journal.NoteTurn(ctx, journal.Turn{Ref: ref, Session: e.SessionID, Started: a.cfg.Now()})
	case e.Type != wire.ExecTurnEnded:
		return nil
	}
	turn, err := a.journal.Turn(ctx, ref)
	if errors.Is(err, journal.ErrState) {
		return nil // began and ended while no agent looked
	}
	if err != nil {
		return err
	}
	line := journal.Line{Type: audit.TurnEnded, Reason: e.Outcome, Session: e.SessionID, Actor: audit.Actor{Kind: audit.Desktop}}
	if !turn.Pairing.IsZero() {
		line.Pairing, line.Actor.ID = turn.Pairing.String(), turn.Pairing.String()
	}
	err = a.journal.Record(ctx, a.cfg.Now(), []journal.Line{line}, journal.EndTurn(ref, e.Outcome, a.cfg.Now()))
	if errors.Is(err, journal.ErrState) {
		return nil
	}
	return err
}
