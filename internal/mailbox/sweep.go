package mailbox

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
)

// sweepChunk is how many rows one transaction of a sweep changes, so that it never holds the writer for long.
const sweepChunk = 200

// Expire ends what is over at now: queued commands expire, of those that the desktop holds a stop is asked, and what
// has been over for ForgetAfter without a word becomes outcome_unknown. Call it every second or so.
func (s *Service) Expire(ctx context.Context, now time.Time) error {
	over := Filter{States: openStates, ExpiresBefore: now, StopNone: true, Limit: sweepChunk}
	if err := s.sweep(ctx, over, happening{trigger: OnExpire, stop: StopExpire, by: broker(), now: now}); err != nil {
		return err
	}
	forgotten := Filter{States: heldStates, ExpiresBefore: now.Add(-ForgetAfter), Limit: sweepChunk}
	return s.sweep(ctx, forgotten, happening{trigger: OnForget, reason: "no_word", by: broker(), now: now})
}

// Forget gives up every command of a pairing that is deleted: what is queued is cancelled, of the rest nothing can be
// known any more.
func (s *Service) Forget(ctx context.Context, p PairingID, by By, now time.Time) error {
	queued := Filter{Pairing: p, States: []State{Queued}, Limit: sweepChunk}
	if err := s.sweep(ctx, queued, happening{trigger: OnCancel, reason: "pairing_deleted", by: by, now: now}); err != nil {
		return err
	}
	held := Filter{Pairing: p, States: heldStates, Limit: sweepChunk}
	return s.sweep(ctx, held, happening{trigger: OnForget, reason: "pairing_deleted", by: by, now: now})
}

// sweep applies h to every command of the filter, a chunk at a time. Each must thereby leave the filter.
func (s *Service) sweep(ctx context.Context, f Filter, h happening) error {
	for {
		var touched []Command
		err := s.store.View(ctx, func(r Reader) (err error) { // most sweeps find nothing and need no transaction
			touched, err = r.Commands(f)
			return err
		})
		if err != nil || len(touched) == 0 {
			return err
		}
		err = s.store.Update(ctx, func(tx Tx) error {
			touched, err = tx.Commands(f)
			for i := 0; i < len(touched) && err == nil; i++ {
				_, err = apply(tx, &touched[i], h)
			}
			return err
		})
		if err != nil {
			return err
		}
		woken := map[PairingID]bool{}
		for _, c := range touched {
			if !woken[c.Pairing] {
				woken[c.Pairing] = true
				s.waker.Wake(c.Pairing)
			}
		}
	}
}

// Prune deletes what is not kept any longer: event batches beyond RetainEvents or RetainBatches, and ended commands
// beyond RetainEnded or MaxKept. Call it every minute or so.
func (s *Service) Prune(ctx context.Context, now time.Time) error {
	err := s.eachPairing(ctx, func(id PairingID) error {
		return s.prune(ctx, func(tx Tx) (int, error) {
			p, err := tx.Pairing(id)
			if err != nil {
				return 0, err
			}
			return tx.PruneBatches(id, now.Add(-RetainEvents), above(p.Cursor, RetainBatches), sweepChunk)
		})
	})
	if err != nil {
		return err
	}
	return s.prune(ctx, func(tx Tx) (int, error) {
		return tx.PruneEnded(now.Add(-RetainEnded), MaxKept, sweepChunk)
	})
}

func (s *Service) prune(ctx context.Context, fn func(Tx) (int, error)) error {
	for n := sweepChunk; n >= sweepChunk; {
		err := s.store.Update(ctx, func(tx Tx) (err error) {
			n, err = fn(tx)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// above is the highest cursor that is not among the newest keep.
func above(cursor uint64, keep uint64) uint64 {
	if cursor <= keep {
		return 0
	}
	return cursor - keep
}

// Note writes a line that describes no change of the mailbox's.
func (s *Service) Note(ctx context.Context, line audit.Entry) error {
	return s.store.Update(ctx, func(tx Tx) error { return tx.Note(line) })
}
