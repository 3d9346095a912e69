package agent

import (
	"context"
	"errors"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// requestFits holds a decision against the request that it names: it must be open, be what was published byte for byte,
// and not be decided by someone else. Commands that decide nothing fit.
func (p *pairingRun) requestFits(ctx context.Context, row journal.Row) (ending, bool) {
	if row.Digest.IsZero() {
		return ending{}, true
	}
	q, err := p.journal.Request(ctx, p.id, row.Exec.RequestID)
	if err != nil {
		if !errors.Is(err, journal.ErrState) {
			p.log.Error("looking up a request", "error", err)
		}
		return requestGone(), false
	}
	switch {
	case !q.Digest.Equal(row.Digest), q.Session != row.Exec.SessionID, q.Kind != kindOfRequest(row.Kind):
		return ended(wire.StateFailed, reasonRequestChanged, "This is not the request that the desktop asks."), false
	case q.Closed.IsZero() && !q.Claimed:
		return ending{}, true
	case q.DecidedBy != "" && decided(q.Outcome):
		return alreadyDecided(q.DecidedBy), false
	}
	return requestGone(), false
}

// decided reports whether an outcome is somebody's decision; empty while one is being carried out.
func decided(outcome string) bool { return outcome != wire.DecisionLost && outcome != "expired" }

func requestGone() ending {
	return ended(wire.StateFailed, reasonRequestGone, "The desktop no longer asks this.")
}

func alreadyDecided(by string) ending {
	e := ended(wire.StateFailed, reasonDecided, "Already decided by "+by+".")
	e.body.DecidedBy = by
	return e
}

// kindOfRequest is the kind of request that a kind of decision answers.
func kindOfRequest(kind string) string {
	if kind == proof.PermissionRespond.String() {
		return wire.RequestPermission
	}
	return wire.RequestQuestion
}

// fillRequest gives the executor the request that a decision is about, as it was first seen.
func (p *pairingRun) fillRequest(ctx context.Context, row *journal.Row) {
	if row.Digest.IsZero() {
		return
	}
	q, err := p.journal.Request(ctx, p.id, row.Exec.RequestID)
	if err != nil {
		p.log.Error("looking up a request", "error", err)
		return
	}
	row.Exec.Request = &q.Exec
}

// failedEnding is what a surface is told of a definite failure. The executor's text is redacted like everything that
// leaves the desktop.
func (p *pairingRun) failedEnding(ctx context.Context, row journal.Row, e *wire.ExecError) ending {
	if row.Digest.IsZero() {
		return ended(wire.StateFailed, e.Code, p.redactor().Text(e.Message))
	}
	switch e.Code {
	case wire.ExecDecided:
		by := journal.Desk
		if q, err := p.journal.Request(ctx, p.id, row.Exec.RequestID); err == nil && !q.Closed.IsZero() && q.DecidedBy != "" {
			by = q.DecidedBy
		}
		return alreadyDecided(by)
	case wire.ExecNotPending:
		return requestGone()
	}
	return ended(wire.StateFailed, e.Code, p.redactor().Text(e.Message))
}
