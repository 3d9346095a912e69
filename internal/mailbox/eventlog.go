package mailbox

import (
	"bytes"
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/pkg/wire"
)

// BeginEpoch stores a new event epoch with one box per surface, by the pairing's newest link. Repeating it with the
// same boxes does nothing; with others it is a Conflict.
func (s *Service) BeginEpoch(ctx context.Context, p PairingID, link Epoch, id EventEpochID, boxes map[SurfaceID][]byte, now time.Time) error {
	if len(boxes) > MaxBoxes {
		return fail(TooLarge, "the epoch has %d boxes, at most %d", len(boxes), MaxBoxes)
	}
	for _, b := range boxes {
		if len(b) == 0 || len(b) > MaxBox {
			return fail(TooLarge, "a box has %d bytes, at most %d", len(b), MaxBox)
		}
	}
	return s.update(ctx, p, func(tx Tx) error {
		if _, err := holder(tx, p, link, false); err != nil {
			return err
		}
		if _, known, err := tx.HighestSeq(p, id); err != nil || known {
			return sameBoxes(tx, p, id, boxes, err)
		}
		return tx.BeginEpoch(p, id, boxes, pairingLine(audit.EpochBegun, p, audit.Success, id.String(), desktop(p), now))
	})
}

func sameBoxes(tx Tx, p PairingID, id EventEpochID, boxes map[SurfaceID][]byte, err error) error {
	for surface, box := range boxes {
		if err != nil {
			break
		}
		var known []byte
		if known, err = tx.Box(p, id, surface); err == nil && !bytes.Equal(known, box) || CodeOf(err) == NotFound {
			err = fail(Conflict, "this epoch was announced with another box")
		}
	}
	return err
}

// Append stores event batches of the pairing's newest link, in their order, and returns the newest cursor. A batch
// that is stored already is passed over; Conflict: it was stored with other bytes, or its epoch was never begun.
func (s *Service) Append(ctx context.Context, p PairingID, link Epoch, batches []Batch, now time.Time) (cursor uint64, err error) {
	if err := checkBatches(batches); err != nil {
		return 0, err
	}
	err = s.update(ctx, p, func(tx Tx) error {
		row, err := holder(tx, p, link, false)
		if err != nil {
			return err
		}
		cursor = row.Cursor
		for _, b := range batches {
			if err := appendOne(tx, p, b, now, &cursor); err != nil {
				return err
			}
		}
		if cursor-row.Floor < RetainBatches+maxPruneOverhang {
			return nil
		}
		_, err = tx.PruneBatches(p, now.Add(-RetainEvents), above(cursor, RetainBatches), 2*maxPruneOverhang)
		return err
	})
	return cursor, err
}

func checkBatches(batches []Batch) error {
	if len(batches) > MaxAppend {
		return fail(TooLarge, "%d batches at once, at most %d", len(batches), MaxAppend)
	}
	for _, b := range batches {
		isRequest := b.Class == ClassRequestOpen || b.Class == ClassRequestClosed
		switch {
		case len(b.Bytes) == 0 || len(b.Bytes) > MaxBatch:
			return fail(TooLarge, "a batch has %d bytes, at most %d", len(b.Bytes), MaxBatch)
		case len(b.Request) > MaxRequestRef:
			return fail(TooLarge, "a request's reference has %d bytes, at most %d", len(b.Request), MaxRequestRef)
		case isRequest != (b.Request != ""):
			return fail(Conflict, "a request's batch names its request, and no other does")
		}
	}
	return nil
}

func appendOne(tx Tx, p PairingID, b Batch, now time.Time, cursor *uint64) error {
	highest, known, err := tx.HighestSeq(p, b.Epoch)
	switch {
	case err != nil:
		return err
	case !known:
		return fail(Conflict, "this event epoch was never begun")
	case b.Seq <= highest:
		return sameBatch(tx, p, b)
	}
	*cursor, err = tx.AppendBatch(p, b, now, batchLine(p, b, now))
	return err
}

// sameBatch accepts a repeated batch. One that was pruned since cannot be compared; it was acknowledged.
func sameBatch(tx Tx, p PairingID, b Batch) error {
	known, err := tx.BatchBySeq(p, b.Epoch, b.Seq)
	switch {
	case CodeOf(err) == NotFound:
		return nil
	case err == nil && !bytes.Equal(known.Bytes, b.Bytes):
		return fail(Conflict, "batch %d was stored with other bytes", b.Seq)
	}
	return err
}

var batchLines = map[Class]audit.Type{
	ClassRequestOpen: audit.RequestOpened, ClassRequestClosed: audit.RequestClosed, ClassTurnEnded: audit.TurnEnded,
}

// batchLine is the line of a batch that people act upon; streamed text has none.
func batchLine(p PairingID, b Batch, now time.Time) *audit.Entry {
	t, ok := batchLines[b.Class]
	if !ok {
		return nil
	}
	e := audit.Build(audit.Record{
		Type: t, Time: now, Pairing: p.String(), Actor: desktop(p).Actor,
		Target: wire.AuditTarget{Kind: audit.Request, ID: wire.Bytes(b.Request).String()},
	})
	return &e
}

// Page is a run of the event log.
type Page struct {
	Batches []Batch // in the order of their cursors
	Cursor  uint64  // newest of all
	Gap     bool    // after is not retained any more, or is from another life of the broker: a snapshot is required
}

// Since returns the batches above after, at most min(limit, MaxPage). With Gap set they begin at the oldest that is
// retained without a hole.
func (s *Service) Since(ctx context.Context, p PairingID, after uint64, limit int) (page Page, err error) {
	err = s.store.View(ctx, func(r Reader) error {
		row, err := r.Pairing(p)
		if err != nil {
			return err
		}
		page = Page{Cursor: row.Cursor, Gap: after < row.Floor || after > row.Cursor}
		if page.Gap {
			after = row.Floor
		}
		page.Batches, err = r.Batches(p, after, min(limit, MaxPage))
		return err
	})
	return page, err
}

// OpenRequests returns the newest batch of each request that waits for an answer, and the cursor from which a stream
// goes on after it.
func (s *Service) OpenRequests(ctx context.Context, p PairingID) (open []Batch, cursor uint64, err error) {
	err = s.store.View(ctx, func(r Reader) error {
		row, err := r.Pairing(p)
		if err != nil {
			return err
		}
		cursor = row.Cursor
		open, err = r.OpenRequests(p)
		return err
	})
	return open, cursor, err
}

// Box returns an event epoch's box for a surface, or NotFound: the epoch began before the surface was linked, or all
// its events are gone.
func (s *Service) Box(ctx context.Context, p PairingID, id EventEpochID, surface SurfaceID) (box []byte, err error) {
	err = s.store.View(ctx, func(r Reader) (err error) {
		box, err = r.Box(p, id, surface)
		return err
	})
	return box, err
}

// NewestEpoch returns the event epoch begun last and the highest batch seq stored of it, so that an agent knows where
// its outbox goes on; zero when there is none.
func (s *Service) NewestEpoch(ctx context.Context, p PairingID) (id EventEpochID, seq uint64, err error) {
	err = s.store.View(ctx, func(r Reader) (err error) {
		id, seq, err = r.NewestEpoch(p)
		return err
	})
	return id, seq, err
}
