package agent

import (
	"context"
	"errors"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// findRetry is the wait before the executor is asked again when it could not answer at all.
	findRetry = 2 * time.Second
	// findFor is how long a started command is asked about before a person must decide.
	findFor = 48 * time.Hour
)

// resolve finds out what became of a command that a crash left started: by asking, not by guessing (mailbox.md, "At
// the desktop").
func (p *pairingRun) resolve(ctx context.Context, _ int64, command string) error {
	row, err := p.journal.Command(ctx, p.id, command)
	if err != nil || row.State != journal.Started {
		return err
	}
	s, err := p.journal.Surface(ctx, p.id, row.Surface)
	if err != nil {
		return err
	}
	p.fillRequest(ctx, &row)
	return p.resolveRow(ctx, row, s)
}

// resolveRow asks the executor until it knows, or says that asking will never help.
func (p *pairingRun) resolveRow(ctx context.Context, row journal.Row, s journal.Surface) error {
	if isOwn(row.Kind) { // idempotent and durable in the journal itself
		return p.perform(ctx, row, s)
	}
	for {
		found, err := p.agent.exec.Find(ctx, row.Exec)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.log.Warn("asking what became of a command", "command", row.Command, "error", err)
			found = wire.ExecFound{State: wire.FoundUnknown, RetryAfter: findRetry}
		}
		switch {
		case found.State == wire.FoundRan && found.Err != nil:
			return p.finish(row, journal.Started, p.failedEnding(ctx, row, found.Err), audit.CommandEnded)
		case found.State == wire.FoundRan:
			return p.finish(row, journal.Started, p.doneEnding(ctx, row, s, found.Result), audit.CommandEnded)
		case found.State == wire.FoundAbsent:
			return p.runAgain(ctx, row, s)
		case found.RetryAfter <= 0, p.now().Sub(row.Started) > findFor:
			return p.park(row)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(found.RetryAfter):
		}
	}
}

// runAgain executes a command that provably never ran, under its old ref, if it still may.
func (p *pairingRun) runAgain(ctx context.Context, row journal.Row, s journal.Surface) error {
	end, why := p.recheck(row, s)
	if why == recheckWait { // it was allowed when it started
		why = recheckGo
	}
	if why == recheckEnd {
		return p.finish(row, journal.Started, end, audit.CommandEnded)
	}
	at := p.now().Truncate(time.Millisecond)
	if !at.After(row.Started) { // the next one who looks must see that this one did
		at = row.Started.Add(time.Millisecond)
	}
	line := p.bySurface(audit.CommandStarted, audit.Success, "again", s, row)
	run := p.journal.Meta().Counter
	changes := []journal.Change{journal.StartAgain(row.ID, row.Started, run, at)}
	if row.Run < run {
		changes = append(changes, journal.CountRecovered())
	}
	if err := p.record([]journal.Line{line}, changes...); err != nil {
		if errors.Is(err, journal.ErrState) {
			return nil
		}
		return err
	}
	row.Started, row.Exec.StartedAt, row.Run = at, at, run
	return p.perform(ctx, row, s)
}

// park ends a command whose outcome cannot be known: a person decides.
func (p *pairingRun) park(row journal.Row) error {
	end := ended(wire.StateOutcomeUnknown, reasonUnknown, "It cannot be known whether this ran. Look at the session before you send it again.")
	return p.finish(row, journal.Started, end, audit.CommandUnknown)
}
