package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// openRequest is what the publisher remembers of a request that waits.
type openRequest struct {
	row   journal.Request
	event wire.Event // without data
}

// openRequest publishes an approval or a question that was just asked: the exact bytes to those who decide, a summary
// to the others. What was published before a restart is published again as it was.
func (p *publisher) openRequest(ctx context.Context, e wire.ExecEvent) {
	if e.Request == nil {
		return
	}
	row, err := p.keepRequest(ctx, e)
	if err != nil {
		p.log.Error("keeping a request; it is not shown to surfaces", "request", e.Request.ID, "error", err)
		return
	}
	if !row.Closed.IsZero() {
		return
	}
	p.remember(row, p.commandOf(ctx, e.CommandRef))
	p.publishRequest(ctx, row.ID)
}

func (p *publisher) remember(row journal.Request, command string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[row.ID] = openRequest{row: row, event: wire.Event{
		Type: wire.EventRequestOpen, SessionID: row.Session, MessageID: row.Exec.MessageID, Command: command,
		Time: row.Opened.UnixMilli(),
	}}
}

// keepRequest journals a request with the bytes that its digest covers, once.
func (p *publisher) keepRequest(ctx context.Context, e wire.ExecEvent) (journal.Request, error) {
	known, err := p.journal.Request(ctx, p.pairing.ID, e.Request.ID)
	if err == nil || !errors.Is(err, journal.ErrState) {
		return known, err
	}
	now := p.now()
	exact, err := json.Marshal(requestOf(*e.Request, eventTime(e, now).UnixMilli()))
	if err != nil {
		return known, err
	}
	var ref proof.Reference
	rand.Read(ref[:]) // never fails
	row := journal.Request{
		Pairing: p.pairing.ID, ID: e.Request.ID, Session: e.Request.RootID, Kind: e.Request.Kind, Bytes: exact, Exec: *e.Request,
		Digest: proof.RequestDigest(p.pairing.ID, exact), Ref: ref[:], Opened: now,
	}
	line := p.line(audit.RequestOpened, wire.AuditTarget{Kind: audit.Request, ID: row.ID})
	line.Session, line.RequestSHA256 = row.Session, row.Digest.String()
	return row, p.journal.Record(ctx, now, []journal.Line{line}, journal.OpenRequest(row))
}

// requestOf is a request as those who decide see it: nothing redacted, since it is what they answer for.
func requestOf(r wire.ExecRequest, asked int64) wire.Request {
	out := wire.Request{
		ID: r.ID, Kind: r.Kind, SessionID: r.RootID, Project: r.Project, Action: r.Permission, Asked: asked,
	}
	var exact struct {
		Patterns []string `json:"patterns"`
		Metadata struct {
			Command  string `json:"command"`
			FilePath string `json:"filepath"`
			Diff     string `json:"diff"`
			URL      string `json:"url"`
		} `json:"metadata"`
		Questions []wire.Question `json:"questions"`
	}
	if json.Unmarshal(r.Exact, &exact) != nil {
		out.Extra = r.Exact
		return out
	}
	out.Patterns, out.Questions = exact.Patterns, exact.Questions
	out.Command, out.Path, out.Diff, out.URL = exact.Metadata.Command, exact.Metadata.FilePath, exact.Metadata.Diff, exact.Metadata.URL
	if out.Command == "" && out.Path == "" && out.URL == "" && len(out.Questions) == 0 {
		out.Extra = r.Exact // a kind that this agent does not know is shown as it is
	}
	return out
}

// publishRequest seals an open request: full under the decide key, a summary under the view key.
func (p *publisher) publishRequest(ctx context.Context, id string) {
	p.mu.Lock()
	o, ok := p.open[id]
	p.mu.Unlock()
	if !ok {
		return
	}
	summary, err := json.Marshal(wire.RequestSummary{ID: id, Kind: o.row.Kind, Action: o.row.Exec.Permission, Asked: o.row.Opened.UnixMilli()})
	if err != nil {
		p.log.Error("a request has no summary", "error", err)
		return
	}
	ref := proof.Reference(o.row.Ref)
	if p.policy().ShowRequests == pairing.ShowDecide {
		full := o.event
		full.Data = o.row.Bytes
		p.add(ctx, item{event: full, class: proof.ClassRequestOpen, key: proof.KeyDecide, ref: ref})
	}
	o.event.Data = summary
	p.add(ctx, item{event: o.event, class: proof.ClassRequestOpen, key: proof.KeyView, ref: ref})
}

// loadRequests reads what was open when the agent stopped.
func (p *publisher) loadRequests(ctx context.Context) error {
	rows, err := p.journal.OpenRequests(ctx, p.pairing.ID)
	if err != nil {
		return err
	}
	for _, row := range rows {
		p.mu.Lock()
		_, known := p.open[row.ID]
		p.mu.Unlock()
		if !known {
			p.remember(row, "")
		}
	}
	return nil
}

// closedBefore is how long before the end of the last run a request may have been closed without a batch that says so.
const closedBefore = time.Minute

// resume begins the first epoch of this run. An end that the last run kept and perhaps did not publish any more is
// published again: without it the broker would show the request as open.
func (p *publisher) resume(ctx context.Context) error {
	since := p.journal.LastTime().Add(-closedBefore) // of the last run: nothing was written yet in this one
	closed, err := p.journal.ClosedRequests(ctx, p.pairing.ID, since)
	if err != nil {
		return err
	}
	if err := p.begin(ctx); err != nil {
		return err
	}
	for _, row := range closed {
		p.remember(row, "")
		p.closeRequest(ctx, row.ID, row.Outcome, row.DecidedBy)
	}
	return nil
}

// republish publishes every open request under the new epoch, oldest first.
func (p *publisher) republish(ctx context.Context) error {
	rows, err := p.journal.OpenRequests(ctx, p.pairing.ID)
	for _, row := range rows {
		p.publishRequest(ctx, row.ID)
	}
	return err
}

func (p *publisher) RequestBytes(id string) ([]byte, proof.Digest, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.open[id]
	return o.row.Bytes, o.row.Digest, ok
}

// digests are those of the open requests, for a beat.
func (p *publisher) digests() []proof.Digest {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]proof.Digest, 0, len(p.open))
	for _, o := range p.open {
		all = append(all, o.row.Digest)
	}
	return all
}

// requestClosed keeps how the runtime says a request ended, unless a decision has been kept already.
func (p *publisher) requestClosed(ctx context.Context, e wire.ExecEvent) {
	if e.Request == nil {
		return
	}
	line := p.line(audit.RequestClosed, wire.AuditTarget{Kind: audit.Request, ID: e.Request.ID})
	line.Session, line.Decision = e.SessionID, e.Outcome
	err := p.journal.Record(ctx, p.now(), []journal.Line{line},
		journal.CloseRequest(p.pairing.ID, e.Request.ID, e.Outcome, journal.Desk, p.now()))
	if err != nil && !errors.Is(err, journal.ErrState) {
		p.log.Error("keeping a closed request", "request", e.Request.ID, "error", err)
	}
	row, err := p.journal.Request(ctx, p.pairing.ID, e.Request.ID)
	if err != nil {
		return // never published
	}
	p.closeRequest(ctx, row.ID, row.Outcome, row.DecidedBy)
}

func (p *publisher) CloseRequest(id, outcome, by string) {
	p.do(func(ctx context.Context) { p.closeRequest(ctx, id, outcome, by) })
}

// closeRequest publishes the end of a request once.
func (p *publisher) closeRequest(ctx context.Context, id, outcome, by string) {
	p.mu.Lock()
	o, ok := p.open[id]
	delete(p.open, id)
	p.mu.Unlock()
	if !ok {
		return
	}
	data, err := json.Marshal(wire.RequestClosed{ID: id, Outcome: outcome, By: by})
	if err != nil {
		p.log.Error("a closed request has no JSON", "error", err)
		return
	}
	ev := o.event
	ev.Type, ev.Time, ev.Data = wire.EventRequestClosed, p.now().UnixMilli(), data
	p.add(ctx, item{event: ev, class: proof.ClassRequestClosed, key: proof.KeyView, ref: proof.Reference(o.row.Ref)})
}
