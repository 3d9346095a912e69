package mailbox

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
)

// Cancel is the sender's wish that its command shall not run. A queued one ends at once; of one that the desktop
// holds it is asked (Stops). One that has ended is returned as it is. NotFound: not this surface's command.
func (s *Service) Cancel(ctx context.Context, p PairingID, surface SurfaceID, id CommandID, by By, now time.Time) (c Command, err error) {
	err = s.update(ctx, p, func(tx Tx) error {
		if c, err = tx.Command(p, id); err != nil {
			return err
		}
		if c.Surface != surface {
			return fail(NotFound, "no such command")
		}
		_, err = apply(tx, &c, cancelled(by, now))
		return err
	})
	return c, err
}

func cancelled(by By, now time.Time) happening {
	return happening{trigger: OnCancel, stop: StopCancel, by: by, now: now}
}

// CloseSurface is what a surface's revocation does to the mailbox: its commands are cancelled, and none is taken any
// more. It is a function over a transaction, so that a store can revoke, cancel and write line as one change.
func CloseSurface(tx Tx, p PairingID, surface SurfaceID, line audit.Entry, by By, now time.Time) error {
	if err := cancelAll(tx, Filter{Pairing: p, Surface: surface, States: openStates, Limit: MaxOpen}, by, now); err != nil {
		return err
	}
	return tx.CloseChain(p, surface, line)
}

// ClosePairing does the same for a whole pairing; its links are fenced out.
func ClosePairing(tx Tx, id PairingID, line audit.Entry, by By, now time.Time) error {
	if err := cancelAll(tx, Filter{Pairing: id, States: openStates, Limit: MaxOpen}, by, now); err != nil {
		return err
	}
	p, err := tx.Pairing(id)
	if err != nil {
		return err
	}
	p.Closed = true
	return tx.SavePairing(p, line)
}

func cancelAll(tx Tx, f Filter, by By, now time.Time) error {
	open, err := tx.Commands(f)
	if err != nil {
		return err
	}
	for _, c := range open {
		if _, err := apply(tx, &c, cancelled(by, now)); err != nil {
			return err
		}
	}
	return nil
}

// Stops lists the commands whose stop the link has to ask for: Command.ID, and Command.Stop says why. Fenced: not the
// newest link, or it has not reported. Each is to be asked once on each link; what was answered is not listed again.
func (s *Service) Stops(ctx context.Context, p PairingID, epoch Epoch) (stops []Command, err error) {
	err = s.store.View(ctx, func(r Reader) error {
		if _, err := holder(r, p, epoch, true); err != nil {
			return err
		}
		stops, err = r.Commands(Filter{Pairing: p, StopAsked: true, Limit: MaxOpen})
		return err
	})
	return stops, err
}

// Stopped records the desktop's answer to a stop: started, or a tombstone was written and it will never run. For a
// command that has ended meanwhile it does nothing. Conflict: no stop was asked.
func (s *Service) Stopped(ctx context.Context, p PairingID, epoch Epoch, id CommandID, started bool, now time.Time) error {
	return s.update(ctx, p, func(tx Tx) error {
		if _, err := holder(tx, p, epoch, true); err != nil {
			return err
		}
		c, err := tx.Command(p, id)
		if err != nil || c.State.Terminal() {
			return err
		}
		if !c.Stop.Asked() {
			return fail(Conflict, "no stop was asked")
		}
		h := happening{trigger: OnTombstone, state: c.Stop.outcome(), reason: "stopped", by: desktop(p), now: now}
		if started {
			h = happening{trigger: OnStarted, stop: StopAnswered, reason: "started", by: desktop(p), now: now}
		}
		_, err = apply(tx, &c, h)
		return err
	})
}
