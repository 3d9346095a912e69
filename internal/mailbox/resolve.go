package mailbox

import (
	"context"
	"time"
)

// A person's decisions about outcome_unknown.
const (
	ItRan     = "it_ran"
	SendAgain = "send_again"
)

// ItRan settles an outcome_unknown as completed, because a person says so. Conflict: it is not outcome_unknown, or
// was decided already.
func (s *Service) ItRan(ctx context.Context, p PairingID, id CommandID, by By, now time.Time) (c Command, err error) {
	err = s.update(ctx, p, func(tx Tx) error {
		if c, err = undecided(tx, p, id); err != nil {
			return err
		}
		c.Resolved = ItRan
		_, err = apply(tx, &c, happening{trigger: OnItRan, reason: ItRan, by: by, now: now})
		return err
	})
	return c, err
}

// SendAgain puts a new command in the place of an outcome_unknown and returns it. Conflict: see ItRan, and also when
// the desktop has not yet said that it knows nothing of the old one, for that one could still run. Repeating the same
// draft returns the same command.
func (s *Service) SendAgain(ctx context.Context, id CommandID, d Draft, by By, now time.Time) (c Command, err error) {
	if err := d.check(); err != nil {
		return Command{}, err
	}
	err = s.update(ctx, d.Pairing, func(tx Tx) error {
		if c, err = tx.ByDigest(d.Pairing, d.Digest); CodeOf(err) != NotFound {
			return err
		}
		old, err := undecided(tx, d.Pairing, id)
		if err != nil {
			return err
		}
		if !old.Reported {
			return fail(Conflict, "the desktop has not yet said whether it knows this command")
		}
		if c, _, err = enqueue(tx, d, by, now); err != nil {
			return err
		}
		old.Resolved = SendAgain
		_, err = apply(tx, &old, happening{trigger: OnSendAgain, reason: string(c.ID), by: by, now: now})
		return err
	})
	return c, err
}

func undecided(tx Tx, p PairingID, id CommandID) (Command, error) {
	c, err := tx.Command(p, id)
	switch {
	case err != nil:
		return c, err
	case c.Resolved != "":
		return c, fail(Conflict, "a person has decided already: %s", c.Resolved)
	case c.State != OutcomeUnknown:
		return c, fail(Conflict, "the command is %s", c.State)
	}
	return c, nil
}
