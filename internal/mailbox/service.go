package mailbox

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/pkg/wire"
)

// Service applies the rules to the rows.
type Service struct {
	store Store
	waker Waker
}

// New returns a Service over a store and the waker that belongs to it.
func New(store Store, waker Waker) *Service { return &Service{store, waker} }

// By is who does something, for the audit line.
type By struct {
	Actor  audit.Actor
	Source audit.Source
}

// desktop is the actor of everything that arrives through a tunnel.
func desktop(p PairingID) By {
	return By{Actor: audit.Actor{Kind: audit.Desktop, ID: p.String()}}
}

// broker is the actor of what happens by itself: time passing, a restore.
func broker() By { return By{Actor: audit.Actor{Kind: audit.Broker}} }

// update runs fn and, once its changes are on the disk, wakes the pairing.
func (s *Service) update(ctx context.Context, p PairingID, fn func(Tx) error) error {
	if err := s.store.Update(ctx, fn); err != nil {
		return err
	}
	s.waker.Wake(p)
	return nil
}

// Get returns a command without its envelope, or NotFound.
func (s *Service) Get(ctx context.Context, p PairingID, id CommandID) (c Command, err error) {
	err = s.store.View(ctx, func(r Reader) (err error) {
		c, err = r.Command(p, id)
		return err
	})
	return c, err
}

// Wait returns the command as soon as it has ended, and as it is when at most `most` (never more than MaxWait) has
// passed or ctx ends; being slow is not an error.
func (s *Service) Wait(ctx context.Context, p PairingID, id CommandID, most time.Duration) (Command, error) {
	ctx, cancel := context.WithTimeout(ctx, min(most, MaxWait))
	defer cancel()
	hints, end := s.waker.Subscribe(p)
	defer end()
	for {
		c, err := s.Get(context.WithoutCancel(ctx), p, id)
		if err != nil || c.State.Terminal() || ctx.Err() != nil {
			return c, err
		}
		select {
		case <-hints:
		case <-ctx.Done():
		}
	}
}

// Chain returns where a surface's envelopes stand: the last seq taken and its digest, zero when there is none.
func (s *Service) Chain(ctx context.Context, p PairingID, surface SurfaceID) (c Chain, err error) {
	err = s.store.View(ctx, func(r Reader) (err error) {
		c, err = r.Chain(p, surface)
		return err
	})
	return c, err
}

// Presence says whether the desktop is connected, since when or when it was last seen, and what waits for it.
func (s *Service) Presence(ctx context.Context, p PairingID) (Presence, error) {
	var row Pairing
	err := s.store.View(ctx, func(r Reader) (err error) {
		row, err = r.Pairing(p)
		return err
	})
	return Presence{Online: row.Connected, Since: row.Since, Open: row.Open, Cursor: row.Cursor}, err
}

// Subscribe returns hints that something about the pairing has changed; see Waker.
func (s *Service) Subscribe(p PairingID) (hints <-chan struct{}, cancel func()) {
	return s.waker.Subscribe(p)
}

// AuditCommand names a command in an audit line by what its header shows.
func (c Command) AuditCommand() *wire.AuditCommand {
	return &wire.AuditCommand{
		ID: string(c.ID), Kind: c.Kind.String(), EnvelopeSHA256: c.Digest.String(), Commit: c.Commit.String(), Seq: c.Seq,
	}
}
