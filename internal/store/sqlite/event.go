package sqlite

import (
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
)

const batchQuery = "SELECT event_epochs.epoch, seq, class, request, time, bytes, cursor" +
	" FROM event_batches JOIN event_epochs ON event_epochs.n = event_batches.epoch "

func scanBatch(r row) (mailbox.Batch, error) {
	var b mailbox.Batch
	var request []byte
	err := r.Scan(fixed(b.Epoch[:]), &b.Seq, &b.Class, &request, moment{&b.Time}, &b.Bytes, &b.Cursor)
	b.Request = string(request)
	return b, found(err)
}

// Batches implements mailbox.EventReader.
func (r reader) Batches(p mailbox.PairingID, after uint64, limit int) ([]mailbox.Batch, error) {
	return list(r.q, scanBatch, batchQuery+"WHERE event_batches.pairing = ? AND cursor > ? ORDER BY cursor LIMIT ?", p[:], after, limit)
}

// BatchBySeq implements mailbox.EventReader.
func (r reader) BatchBySeq(p mailbox.PairingID, id mailbox.EventEpochID, seq uint64) (mailbox.Batch, error) {
	return scanBatch(r.q.QueryRow(batchQuery+"WHERE event_batches.epoch = (SELECT n FROM event_epochs WHERE pairing = ? AND epoch = ?) AND seq = ?",
		p[:], id[:], seq))
}

// OpenRequests implements mailbox.EventReader.
func (r reader) OpenRequests(p mailbox.PairingID) ([]mailbox.Batch, error) {
	return list(r.q, scanBatch, batchQuery+"WHERE event_batches.pairing = ? AND open = 1 ORDER BY cursor LIMIT ?", p[:], mailbox.MaxOpenRequests)
}

// NewestEpoch implements mailbox.EventReader.
func (r reader) NewestEpoch(p mailbox.PairingID) (id mailbox.EventEpochID, seq uint64, err error) {
	err = r.q.QueryRow("SELECT epoch, highest FROM event_epochs WHERE pairing = ? ORDER BY n DESC LIMIT 1", p[:]).Scan(fixed(id[:]), &seq)
	if absent(err) {
		err = nil
	}
	return id, seq, err
}

// HighestSeq implements mailbox.EventReader.
func (r reader) HighestSeq(p mailbox.PairingID, id mailbox.EventEpochID) (seq uint64, known bool, err error) {
	err = r.q.QueryRow("SELECT highest FROM event_epochs WHERE pairing = ? AND epoch = ?", p[:], id[:]).Scan(&seq)
	if absent(err) {
		return 0, false, nil
	}
	return seq, err == nil, err
}

// Box implements mailbox.EventReader.
func (r reader) Box(p mailbox.PairingID, id mailbox.EventEpochID, s mailbox.SurfaceID) (box []byte, err error) {
	err = r.q.QueryRow("SELECT box FROM event_boxes WHERE epoch = (SELECT n FROM event_epochs WHERE pairing = ? AND epoch = ?) AND surface = ?",
		p[:], id[:], s[:]).Scan(&box)
	return box, found(err)
}

// BeginEpoch implements mailbox.EventWriter.
func (t *tx) BeginEpoch(p mailbox.PairingID, id mailbox.EventEpochID, boxes map[mailbox.SurfaceID][]byte, line audit.Entry) error {
	return t.change(line, func() error {
		var n int64
		err := t.w.QueryRow("INSERT INTO event_epochs (n, pairing, epoch, highest)"+
			" VALUES ((SELECT coalesce(max(n), 0) + 1 FROM event_epochs), ?, ?, 0) RETURNING n", p[:], id[:]).Scan(&n)
		if err != nil {
			return err
		}
		for s, box := range boxes {
			if _, err := t.w.Exec("INSERT INTO event_boxes (epoch, surface, box) VALUES (?, ?, ?)", n, s[:], box); err != nil {
				return err
			}
		}
		return nil
	})
}

// AppendBatch implements mailbox.EventWriter.
func (t *tx) AppendBatch(p mailbox.PairingID, b mailbox.Batch, now time.Time, line *audit.Entry) (uint64, error) {
	var epoch int64
	err := t.w.QueryRow("UPDATE event_epochs SET highest = ? WHERE pairing = ? AND epoch = ? RETURNING n", b.Seq, p[:], b.Epoch[:]).Scan(&epoch)
	if err != nil {
		return 0, found(err)
	}
	var cursor uint64
	err = t.w.QueryRow("UPDATE mailboxes SET cursor = cursor + 1 WHERE pairing = ? RETURNING cursor", p[:]).Scan(&cursor)
	if err != nil {
		return 0, found(err)
	}
	open := b.Class == mailbox.ClassRequestOpen
	if err := t.closeRequests(p, b, epoch, open); err != nil {
		return 0, err
	}
	_, err = t.w.Exec("INSERT INTO event_batches (pairing, cursor, epoch, seq, class, request, time, stored, open, bytes)"+
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		p[:], cursor, epoch, b.Seq, b.Class, []byte(b.Request), ms(b.Time), ms(now), open, b.Bytes)
	if err != nil || line == nil {
		return cursor, err
	}
	return cursor, t.Note(*line)
}

// closeRequests takes requests out of the open ones: the one that b names, and the oldest when there is no room. A
// request is opened twice in an epoch, once for each of its keys: an opening replaces those of other epochs.
func (t *tx) closeRequests(p mailbox.PairingID, b mailbox.Batch, epoch int64, open bool) error {
	if b.Request == "" {
		return nil
	}
	_, err := t.w.Exec("UPDATE event_batches SET open = 0 WHERE pairing = ? AND open = 1 AND request = ? AND (NOT ? OR epoch <> ?)",
		p[:], []byte(b.Request), open, epoch)
	if err != nil || !open {
		return err
	}
	_, err = t.w.Exec("UPDATE event_batches SET open = 0 WHERE n IN (SELECT n FROM event_batches"+
		" WHERE pairing = ? AND open = 1 ORDER BY cursor DESC LIMIT -1 OFFSET ?)", p[:], mailbox.MaxOpenRequests-1)
	return err
}

// PruneBatches implements mailbox.EventWriter.
func (t *tx) PruneBatches(p mailbox.PairingID, before time.Time, upTo uint64, limit int) (int, error) {
	// Batches were stored in the order of their cursors: everything below the first young one is old.
	var old uint64
	err := t.w.QueryRow("SELECT coalesce((SELECT cursor - 1 FROM event_batches WHERE pairing = ?1 AND stored >= ?2 ORDER BY cursor LIMIT 1),"+
		" (SELECT cursor FROM mailboxes WHERE pairing = ?1), 0)", p[:], ms(before)).Scan(&old)
	if err != nil {
		return 0, err
	}
	scan := func(r row) (cursor uint64, err error) { return cursor, r.Scan(&cursor) }
	gone, err := list(t.w, scan, "DELETE FROM event_batches WHERE n IN (SELECT n FROM event_batches"+
		" WHERE pairing = ? AND open = 0 AND cursor <= ? ORDER BY cursor LIMIT ?) RETURNING cursor", p[:], max(old, upTo), limit)
	if err != nil || len(gone) == 0 {
		return 0, err
	}
	var highest uint64
	for _, c := range gone {
		highest = max(highest, c)
	}
	if _, err := t.w.Exec("UPDATE mailboxes SET floor = max(floor, ?) WHERE pairing = ?", highest, p[:]); err != nil {
		return 0, err
	}
	_, err = t.w.Exec("DELETE FROM event_epochs WHERE pairing = ?1 AND n < (SELECT max(n) FROM event_epochs WHERE pairing = ?1)"+
		" AND NOT EXISTS (SELECT 1 FROM event_batches WHERE event_batches.epoch = event_epochs.n)", p[:])
	return len(gone), err
}
