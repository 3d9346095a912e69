package agent

import (
	"context"
	"errors"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// PendingCommand is a command that waits for a person at the desktop.
type PendingCommand struct {
	ID       string    `json:"id"` // the mailbox's
	Pairing  string    `json:"pairing"`
	Kind     string    `json:"kind"`
	Surface  string    `json:"surface"`
	Label    string    `json:"label"`
	Session  string    `json:"session,omitempty"`
	Decision string    `json:"decision,omitempty"`
	Request  string    `json:"request,omitempty"` // what is decided, as the surface was shown it
	Answers  []string  `json:"answers,omitempty"` // question.reply: what would be answered
	Received time.Time `json:"received"`
	Expires  time.Time `json:"expires"`
}

// await makes a command wait for a person: the policy became stricter after it was received.
func (p *pairingRun) await(ctx context.Context, row journal.Row, s journal.Surface) error {
	line := p.bySurface(audit.CommandWaiting, audit.Success, pairing.ReasonConfirm, s, row)
	err := p.record([]journal.Line{line}, journal.Await(row.ID))
	if errors.Is(err, journal.ErrState) {
		return nil // it was stopped
	}
	if err != nil {
		return err
	}
	p.tellWaiting(ctx, row.Command)
	return nil
}

// tellWaiting tells the broker that a command waits for a person. It is a courtesy: the next report says it as well.
func (p *pairingRun) tellWaiting(ctx context.Context, command string) {
	p.tell(ctx, wire.FrameWaiting, command)
}

func (p *pairingRun) tell(ctx context.Context, frame, command string) {
	l := p.live()
	if l == nil {
		return
	}
	err := l.Call(ctx, tunnel.Control, frame, wire.CommandRef{Command: command, Token: l.token(command)}, nil)
	if err != nil && ctx.Err() == nil {
		p.log.Info("telling the broker", "frame", frame, "command", command, "error", err)
	}
}

// pendingCommands lists what waits for a person, oldest first.
func (p *pairingRun) pendingCommands(ctx context.Context) ([]PendingCommand, error) {
	rows, err := p.journal.RowsIn(ctx, p.id, journal.WaitingLocal)
	if err != nil {
		return nil, err
	}
	list := make([]PendingCommand, 0, len(rows))
	for _, row := range rows {
		c := PendingCommand{
			ID: row.Command, Pairing: p.id.String(), Kind: row.Kind, Surface: row.Surface.String(), Session: row.Exec.SessionID,
			Received: row.Received, Expires: row.Expires,
		}
		if s, err := p.journal.Surface(ctx, p.id, row.Surface); err == nil {
			c.Label = s.Label
		}
		if !row.Digest.IsZero() {
			c.Decision = decisionOf(row.Exec)
			if q, err := p.journal.Request(ctx, p.id, row.Exec.RequestID); err == nil {
				c.Request = string(q.Bytes)
			}
		}
		for _, answer := range row.Exec.Answers {
			c.Answers = append(c.Answers, answer...)
		}
		list = append(list, c)
	}
	return list, nil
}

// allow lets a waiting command run.
func (p *pairingRun) allow(ctx context.Context, command string) error {
	row, s, err := p.waiting(ctx, command)
	if err != nil {
		return err
	}
	if end, why := p.recheck(row, s); why == recheckEnd {
		if err := p.finish(row, journal.WaitingLocal, end, audit.CommandEnded); err != nil {
			return err
		}
		return &ControlError{Code: wire.CodeConflict, Message: end.body.Message}
	}
	line := p.byDesktopAbout(audit.CommandAllowed, audit.Success, "allow", s, row)
	if err := p.record([]journal.Line{line}, journal.Confirm(row.ID)); err != nil {
		return notWaiting(err)
	}
	p.sched.once(func(ctx context.Context) { p.tell(ctx, wire.FrameAccepted, command) })
	row.State, row.Confirmed = journal.Received, true
	p.schedule(row)
	return nil
}

// deny ends a waiting command.
func (p *pairingRun) deny(ctx context.Context, command string) error {
	row, _, err := p.waiting(ctx, command)
	if err != nil {
		return err
	}
	end := ended(wire.StateFailed, reasonDenied, "A person at the desktop said no.")
	return notWaiting(p.finish(row, journal.WaitingLocal, end, audit.CommandAllowed))
}

// waiting is a command that waits for a person, with its surface.
func (p *pairingRun) waiting(ctx context.Context, command string) (row journal.Row, s journal.Surface, err error) {
	row, err = p.journal.Command(ctx, p.id, command)
	if err == nil && row.State != journal.WaitingLocal {
		err = journal.ErrState
	}
	if err != nil {
		return row, s, notWaiting(err)
	}
	s, err = p.journal.Surface(ctx, p.id, row.Surface)
	return row, s, err
}

// notWaiting is ErrState as the owner is told it.
func notWaiting(err error) error {
	if errors.Is(err, journal.ErrState) {
		return &ControlError{Code: wire.CodeNotFound, Message: "no command of that id waits for you"}
	}
	return err
}

// byDesktopAbout is a line of what the owner decided about a surface's command.
func (p *pairingRun) byDesktopAbout(t audit.Type, outcome audit.Outcome, reason string, s journal.Surface, row journal.Row) journal.Line {
	line := p.bySurface(t, outcome, reason, s, row)
	line.Actor = p.byDesktop(t, outcome, reason).Actor
	return line
}

// sweep ends what has waited past its expiry, or whose surface has been revoked.
func (p *pairingRun) sweep(ctx context.Context) {
	for _, state := range []string{journal.WaitingLocal, journal.Received} {
		rows, err := p.journal.RowsIn(ctx, p.id, state)
		if err != nil {
			if ctx.Err() == nil {
				p.log.Error("looking for expired commands", "error", err)
			}
			return
		}
		for _, row := range rows {
			p.sweepRow(ctx, row)
		}
	}
}

func (p *pairingRun) sweepRow(ctx context.Context, row journal.Row) {
	s, err := p.journal.Surface(ctx, p.id, row.Surface)
	if err != nil {
		return
	}
	var end ending
	switch {
	case p.hasEnded() || !s.Revoked.IsZero():
		end = ended(wire.StateFailed, reasonRevoked, "The surface was revoked.")
	case p.now().After(row.Expires):
		end = ended(wire.StateExpired, proof.Expired.String(), "It waited too long.")
	default:
		return
	}
	if err := p.finish(row, row.State, end, audit.CommandEnded); err != nil && !errors.Is(err, journal.ErrState) {
		p.log.Error("ending a command", "command", row.Command, "error", err)
	}
}
