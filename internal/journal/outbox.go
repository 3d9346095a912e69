package journal

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/proof"
)

// MaxOutbox is how many batches of one pairing wait for the broker; the oldest make room for new ones, as the
// broker's own retention would (pairing-protocol.md section 5). Surfaces see the gap.
const MaxOutbox = 5000

// Batch is one sealed, signed event batch. Its bytes are sent again as they are, never sealed again.
type Batch struct {
	Epoch proof.EpochID
	Seq   uint64
	Class string
	Bytes []byte
}

// AppendBatch keeps a sealed batch until the broker has confirmed it.
func (j *Journal) AppendBatch(ctx context.Context, pairing proof.PairingID, b Batch, at time.Time) error {
	return j.db.Write(ctx, func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`INSERT INTO outbox (pairing, epoch, seq, class, batch, at) VALUES (?, ?, ?, ?, ?, ?)`,
			pairing.String(), b.Epoch[:], b.Seq, b.Class, bytesOf(b.Bytes), millis(at))
		if err != nil {
			return err
		}
		_, err = tx.Exec(`DELETE FROM outbox WHERE pairing = ?1 AND id <= coalesce((SELECT id FROM outbox WHERE pairing = ?1
			ORDER BY id DESC LIMIT 1 OFFSET ?2), 0)`, pairing.String(), MaxOutbox)
		return err
	})
}

// Batches returns up to limit batches that are not confirmed, in the order they were sealed.
func (j *Journal) Batches(ctx context.Context, pairing proof.PairingID, limit int) ([]Batch, error) {
	return list(ctx, j, scanBatch, `SELECT epoch, seq, class, batch FROM outbox WHERE pairing = ? ORDER BY id LIMIT ?`,
		pairing.String(), limit)
}

// BatchesAfter returns up to limit batches that were sealed after the given one; all from the oldest on when the
// given one is not in the outbox.
func (j *Journal) BatchesAfter(ctx context.Context, pairing proof.PairingID, epoch proof.EpochID, seq uint64, limit int) ([]Batch, error) {
	return list(ctx, j, scanBatch, `SELECT epoch, seq, class, batch FROM outbox WHERE pairing = ?1 AND id >
		coalesce((SELECT id FROM outbox WHERE pairing = ?1 AND epoch = ?2 AND seq = ?3), 0) ORDER BY id LIMIT ?4`,
		pairing.String(), epoch[:], seq, limit)
}

// ConfirmBatches drops the given batch and all sealed before it. One that is not there drops nothing.
func (j *Journal) ConfirmBatches(ctx context.Context, pairing proof.PairingID, epoch proof.EpochID, seq uint64) error {
	return j.db.Write(ctx, func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`DELETE FROM outbox WHERE pairing = ?1 AND id <=
			(SELECT id FROM outbox WHERE pairing = ?1 AND epoch = ?2 AND seq = ?3)`, pairing.String(), epoch[:], seq)
		return err
	})
}

// OutboxSize counts the batches that are not confirmed.
func (j *Journal) OutboxSize(ctx context.Context, pairing proof.PairingID) (int, error) {
	return one(ctx, j, scanValue[int], `SELECT count(*) FROM outbox WHERE pairing = ?`, pairing.String())
}

func scanBatch(row scanner) (b Batch, err error) {
	var epoch []byte
	err = row.Scan(&epoch, &b.Seq, &b.Class, &b.Bytes)
	copy(b.Epoch[:], epoch)
	return b, err
}

// Announcement is an epoch's announcement frame as the broker gets it: JSON of wire.Epoch.
type Announcement struct {
	Epoch proof.EpochID
	Frame []byte
}

// BeginEpoch keeps an announcement until the broker has it, and its id as the pairing's last. The keys inside are sealed.
func BeginEpoch(pairing proof.PairingID, a Announcement) Change {
	return func(tx *sqlitedb.Tx) error {
		if err := must(tx.Exec(`UPDATE pairing SET last_epoch = ? WHERE pairing = ?`, a.Epoch[:], pairing.String())); err != nil {
			return err
		}
		return duplicate(tx.Exec(`INSERT INTO epoch (pairing, epoch, frame) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
			pairing.String(), a.Epoch[:], a.Frame))
	}
}

// LastEpoch is the id of the epoch that was begun last, by whichever run of the agent; zero when none was.
func (j *Journal) LastEpoch(ctx context.Context, pairing proof.PairingID) (id proof.EpochID, err error) {
	raw, err := one(ctx, j, scanValue[[]byte], `SELECT last_epoch FROM pairing WHERE pairing = ?`, pairing.String())
	copy(id[:], raw)
	return id, err
}

// Epochs returns the announcements that the broker has not confirmed, oldest first.
func (j *Journal) Epochs(ctx context.Context, pairing proof.PairingID) ([]Announcement, error) {
	scan := func(row scanner) (a Announcement, err error) {
		var epoch []byte
		err = row.Scan(&epoch, &a.Frame)
		copy(a.Epoch[:], epoch)
		return a, err
	}
	return list(ctx, j, scan, `SELECT epoch, frame FROM epoch WHERE pairing = ? ORDER BY id`, pairing.String())
}

// ConfirmEpoch drops an announcement that the broker has.
func (j *Journal) ConfirmEpoch(ctx context.Context, pairing proof.PairingID, epoch proof.EpochID) error {
	return j.db.Write(ctx, func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`DELETE FROM epoch WHERE pairing = ? AND epoch = ?`, pairing.String(), epoch[:])
		return err
	})
}
