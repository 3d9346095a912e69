package agent

import (
	"context"
	"errors"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// report is the journal's state for the broker (mailbox.md, Links): every command that is not settled.
func (p *pairingRun) report(ctx context.Context) (wire.Report, error) {
	rows, err := p.journal.Rows(ctx, p.id)
	if err != nil {
		return wire.Report{}, err
	}
	row, err := p.journal.Pairing(ctx, p.id)
	if err != nil {
		return wire.Report{}, err
	}
	m := p.journal.Meta()
	r := wire.Report{JournalID: m.ID[:], Counter: m.Counter, HighWater: row.HighWater, Open: []wire.ReportRow{}}
	room := maxReportResults
	for _, row := range rows[:min(len(rows), maxReportRows)] {
		r.Open = append(r.Open, reportRow(row, &room))
	}
	return r, nil
}

// reportRow is one row of a report. A result for which there is no room is told as started: it has started, and the
// result follows in a frame of its own.
func reportRow(row journal.Row, room *int) wire.ReportRow {
	if row.State != journal.Done {
		return wire.ReportRow{Command: row.Command, State: row.State}
	}
	if *room -= len(row.Result); *room < 0 {
		return wire.ReportRow{Command: row.Command, State: journal.Started}
	}
	result := resultOf(row, nil)
	return wire.ReportRow{Command: row.Command, State: journal.Done, Result: &result}
}

func resultOf(row journal.Row, token wire.Bytes) wire.Result {
	return wire.Result{Command: row.Command, Token: token, State: row.Verdict, Reason: row.Reason, Sealed: row.Result}
}

// applyReport takes the broker's answer: fresh tokens, results that it has, and stops to answer.
func (l *link) applyReport(ctx context.Context, r wire.ReportReply) error {
	for _, row := range r.Rows {
		l.setToken(row.Command, row.Token)
	}
	if err := l.run.settle(ctx, r.Known); err != nil {
		return err
	}
	for _, s := range r.Stops {
		if _, err := l.run.stopCommand(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// settle takes what has ended at the broker: it must not run any more, and its result is not wanted.
func (p *pairingRun) settle(ctx context.Context, known []string) error {
	for _, command := range known {
		row, err := p.journal.Command(ctx, p.id, command)
		if isGone(err) {
			continue
		}
		if err != nil {
			return err
		}
		if row.State != journal.Received && row.State != journal.WaitingLocal {
			continue
		}
		end := ended(wire.StateCancelled, "ended_at_broker", "It ended at the broker before it ran.")
		if err := p.finish(row, row.State, end, audit.CommandEnded); err != nil && !errors.Is(err, journal.ErrState) {
			return err
		}
	}
	return p.journal.Settled(ctx, p.id, known...)
}

// resultRetry is the wait after a broker could not take a result for a reason that passes.
const resultRetry = 2 * time.Second

// sendResults sends what is done to the broker, over and over, until it says that it is durable there.
func (p *pairingRun) sendResults(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.results:
		case <-again:
		}
		again = nil
		l := p.live()
		if l == nil {
			continue // the next link wakes us
		}
		if err := p.sendDone(ctx, l); err != nil && ctx.Err() == nil {
			p.log.Info("results wait", "error", err)
			again = time.After(resultRetry)
		}
	}
}

// sendDone sends each result that this link still takes; an error ends the round.
func (p *pairingRun) sendDone(ctx context.Context, l *link) error {
	rows, err := p.journal.RowsIn(ctx, p.id, journal.Done)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if l.isBarred(row.Command) {
			continue
		}
		if err := p.sendResult(ctx, l, row, true); err != nil {
			return err
		}
	}
	return nil
}

// sendResult sends one result. A stale token is answered with a report, which brings a fresh one.
func (p *pairingRun) sendResult(ctx context.Context, l *link, row journal.Row, first bool) error {
	err := l.Call(ctx, tunnel.Control, wire.FrameResult, resultOf(row, l.token(row.Command)), nil)
	if err == nil {
		l.forget(row.Command)
		return p.journal.Settled(ctx, p.id, row.Command)
	}
	refused, ok := errors.AsType[*tunnel.CallError](err)
	switch {
	case !ok:
		return err
	case refused.Code == wire.CodeStaleToken && first:
		if err := l.reportAgain(ctx); err != nil {
			return err
		}
		return p.sendResult(ctx, l, row, false)
	case passes(refused.Code):
		return err
	case refused.Code == wire.CodeConflict: // the broker has another end and keeps it
		p.log.Warn("the broker keeps another result", "command", row.Command)
		l.forget(row.Command)
		return p.journal.Settled(ctx, p.id, row.Command)
	}
	p.log.Warn("the broker does not take a result; it is offered again on the next link", "command", row.Command, "code", refused.Code)
	l.bar(row.Command)
	return nil
}

// passes reports whether the broker may take tomorrow what it refuses today.
func passes(code string) bool {
	switch code {
	case wire.CodeFull, wire.CodeLimited, wire.CodeInternal, tunnel.CodeDeadline:
		return true
	}
	return false
}

// reportAgain reports within a link, for fresh tokens.
func (l *link) reportAgain(ctx context.Context) error {
	report, err := l.run.report(ctx)
	if err != nil {
		return err
	}
	var reply wire.ReportReply
	if err := l.Call(ctx, tunnel.Control, wire.FrameReport, report, &reply); err != nil {
		return err
	}
	return l.applyReport(ctx, reply)
}

func (l *link) bar(command string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.barred[command] = true
}

func (l *link) isBarred(command string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.barred[command]
}
