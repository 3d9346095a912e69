package mailbox

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
)

// Connect begins a new epoch for a pairing whose desktop has connected. It is on the disk before it is returned, so
// that no epoch is given out twice, and everything of an older one is fenced out from here on. Closed: revoked.
func (s *Service) Connect(ctx context.Context, id PairingID, source audit.Source, now time.Time) (epoch Epoch, err error) {
	by := desktop(id)
	by.Source = source
	err = s.update(ctx, id, func(tx Tx) error {
		p, err := tx.Pairing(id)
		if err != nil {
			return err
		}
		if p.Closed {
			return fail(Closed, "the pairing was revoked")
		}
		p.Epoch++
		p.Connected, p.Since = true, now
		epoch = p.Epoch
		return tx.SavePairing(p, pairingLine(audit.TunnelConnected, id, audit.Success, "", by, now))
	})
	return epoch, err
}

// Disconnect records that a link has ended. Of any link but the newest it records nothing.
func (s *Service) Disconnect(ctx context.Context, id PairingID, epoch Epoch, reason string, now time.Time) error {
	return s.update(ctx, id, func(tx Tx) error {
		p, err := tx.Pairing(id)
		if err != nil || p.Epoch != epoch || !p.Connected {
			return err
		}
		return disconnect(tx, p, reason, now)
	})
}

func disconnect(tx Tx, p Pairing, reason string, now time.Time) error {
	p.Connected, p.Since = false, now
	return tx.SavePairing(p, pairingLine(audit.TunnelDisconnected, p.ID, audit.Success, reason, desktop(p.ID), now))
}

// Recover is called once when the broker starts: whoever was connected is not any more.
func (s *Service) Recover(ctx context.Context, now time.Time) error {
	return s.eachPairing(ctx, func(id PairingID) error {
		return s.update(ctx, id, func(tx Tx) error {
			p, err := tx.Pairing(id)
			if err != nil || !p.Connected {
				return err
			}
			return disconnect(tx, p, "broker_restarted", now)
		})
	})
}

// RestoredFromBackup is called once after the broker's store was put back from a backup, before any link: every open
// command counts as held by someone unknown until the desktop's next report, and no command is taken before it.
func (s *Service) RestoredFromBackup(ctx context.Context, now time.Time) error {
	return s.eachPairing(ctx, func(id PairingID) error {
		return s.update(ctx, id, func(tx Tx) error { return restore(tx, id, now) })
	})
}

func restore(tx Tx, id PairingID, now time.Time) error {
	p, err := tx.Pairing(id)
	if err != nil {
		return err
	}
	open, err := tx.Commands(Filter{Pairing: id, States: openStates, Limit: MaxOpen})
	if err != nil {
		return err
	}
	for _, c := range open {
		if _, err := apply(tx, &c, happening{trigger: OnRestore, reason: "restored", by: broker(), now: now}); err != nil {
			return err
		}
	}
	p.Restored, p.Connected = true, false
	return tx.SavePairing(p, pairingLine(audit.BrokerRestored, id, audit.Success, "", broker(), now))
}

// pageOfPairings is how many ids eachPairing reads at once.
const pageOfPairings = 500

// eachPairing calls fn, outside a transaction, for every pairing that has a row.
func (s *Service) eachPairing(ctx context.Context, fn func(PairingID) error) error {
	var after PairingID
	for {
		var ids []PairingID
		err := s.store.View(ctx, func(r Reader) (err error) {
			ids, err = r.Pairings(after, pageOfPairings)
			return err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if err := fn(id); err != nil {
				return err
			}
			after = id
		}
	}
}
