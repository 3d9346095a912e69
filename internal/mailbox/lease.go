package mailbox

import (
	"bytes"
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
)

func queuedLine(c Command, by By, now time.Time) audit.Entry {
	return lineOf(c, audit.CommandQueued, audit.Success, happening{by: by, now: now})
}

// holder returns the pairing's row when epoch is its newest link and, with reported, has reported; else Fenced.
func holder(tx CommandReader, id PairingID, epoch Epoch, reported bool) (Pairing, error) {
	p, err := tx.Pairing(id)
	switch {
	case err != nil:
		return p, err
	case p.Closed:
		return p, fail(Closed, "the pairing was revoked")
	case epoch == 0 || p.Epoch != epoch:
		return p, fail(Fenced, "a newer link of this desktop exists")
	case reported && p.Reported != epoch:
		return p, fail(Fenced, "this link has not reported yet")
	}
	return p, nil
}

// Claim hands the next command to the pairing's newest link. The command has its Envelope and a new Token; or Skip is
// set, and the desktop must only be told of it by Header, Digest, BodyHash and Signature (then call Skipped). ok is
// false when nothing waits. Fenced: the link is not the newest, or has not reported.
func (s *Service) Claim(ctx context.Context, p PairingID, epoch Epoch, now time.Time) (c Command, ok bool, err error) {
	err = s.store.Update(ctx, func(tx Tx) error {
		c, ok, err = claim(tx, p, epoch, now)
		return err
	})
	return c, ok && err == nil, err
}

func claim(tx Tx, p PairingID, epoch Epoch, now time.Time) (Command, bool, error) {
	if _, err := holder(tx, p, epoch, true); err != nil {
		return Command{}, false, err
	}
	c, err := tx.Next(p)
	if CodeOf(err) == NotFound {
		return Command{}, false, nil
	}
	if err != nil || c.Skip {
		return c, err == nil, err
	}
	h := happening{trigger: OnClaim, epoch: epoch, by: desktop(p), now: now}
	if !c.Expires.After(now) {
		h = happening{trigger: OnExpire, stop: StopExpire, by: broker(), now: now}
	}
	_, err = apply(tx, &c, h)
	if c.Skip {
		c.Envelope = nil
	}
	return c, err == nil, err
}

// Skipped records that the desktop was told of a command that ended at the broker.
func (s *Service) Skipped(ctx context.Context, p PairingID, epoch Epoch, id CommandID, now time.Time) error {
	return s.store.Update(ctx, func(tx Tx) error {
		if _, err := holder(tx, p, epoch, true); err != nil {
			return err
		}
		c, err := tx.Command(p, id)
		if err != nil || !c.Skip {
			return err
		}
		c.Skip = false
		return tx.Save(c, lineOf(c, audit.CommandSkipped, audit.Success, happening{by: desktop(p), now: now}))
	})
}

// Accepted records that the command is in the desktop's journal, or was confirmed by a person there. For a command
// that has ended it does nothing. Stale: another lease has begun; the agent must report again.
func (s *Service) Accepted(ctx context.Context, p PairingID, id CommandID, t Token, now time.Time) error {
	return s.journalled(ctx, p, id, t, happening{trigger: OnAccept, by: desktop(p), now: now})
}

// Waiting records that the command waits for a person at the desktop; see Accepted.
func (s *Service) Waiting(ctx context.Context, p PairingID, id CommandID, t Token, now time.Time) error {
	return s.journalled(ctx, p, id, t, happening{trigger: OnWait, by: desktop(p), now: now})
}

func (s *Service) journalled(ctx context.Context, p PairingID, id CommandID, t Token, h happening) error {
	return s.update(ctx, p, func(tx Tx) error {
		c, err := tx.Command(p, id)
		if err != nil {
			return err
		}
		if c.State.Terminal() {
			return nil
		}
		if !c.Token.Equal(t) {
			return fail(Stale, "another lease of this command has begun")
		}
		st, err := apply(tx, &c, h)
		if err != nil || st.Verdict == Ignore {
			return err
		}
		return tx.RaiseHighWater(p, c.Sequence)
	})
}

// Outcome is how a command ended, by the desktop's word.
type Outcome struct {
	Command CommandID
	Token   Token
	State   State  // terminal
	Reason  string // a stable code: a-z, 0-9, dot and underscore; may be empty
	Sealed  []byte // opaque
}

// Result ends a command. The result that stands already is taken again without effect. Stale: the token is neither
// the current one nor the last holder's, the agent must report again. Conflict: another result stands, or a person
// has decided; the agent must give its own up.
func (s *Service) Result(ctx context.Context, p PairingID, o Outcome, now time.Time) error {
	if err := o.check(); err != nil {
		return err
	}
	var answer error // a refusal leaves a line, so that the transaction must not fail with it
	err := s.update(ctx, p, func(tx Tx) error {
		c, err := tx.Command(p, o.Command)
		if err != nil {
			return err
		}
		answer, err = result(tx, &c, o, now)
		return err
	})
	if err != nil {
		return err
	}
	return answer
}

func (o Outcome) check() error {
	switch {
	case !o.State.Terminal():
		return fail(Conflict, "not a terminal state")
	case len(o.Sealed) > MaxResult:
		return fail(TooLarge, "the result has %d bytes, at most %d", len(o.Sealed), MaxResult)
	case len(o.Reason) > MaxReason:
		return fail(TooLarge, "the reason has %d bytes, at most %d", len(o.Reason), MaxReason)
	}
	for _, r := range o.Reason {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '.' {
			return fail(Conflict, "the reason is not a code")
		}
	}
	return nil
}

func result(tx Tx, c *Command, o Outcome, now time.Time) (answer, err error) {
	h := happening{trigger: OnResult, state: o.State, reason: o.Reason, result: o.Sealed, by: desktop(c.Pairing), now: now}
	switch {
	case !c.Token.Equal(o.Token):
		h.trigger, h.reason = OnResultStale, "stale_token"
		answer = fail(Stale, "another lease of this command has begun")
	case c.State == o.State && bytes.Equal(c.Result, o.Sealed):
		h.trigger = OnResultSame
	case c.State.column() == colTerminal:
		h.reason = "another_result"
		answer = fail(Conflict, "the command has ended with another result")
	}
	if o.State == OutcomeUnknown {
		c.Reported = true // the journal itself does not know, so a later report could say no more
	}
	before := c.State
	st, err := apply(tx, c, h)
	if err != nil || st.Verdict == Refuse {
		return answer, err
	}
	if before == Accepted || before == WaitingLocal { // it was raised then
		return nil, nil
	}
	return nil, tx.RaiseHighWater(c.Pairing, c.Sequence)
}
