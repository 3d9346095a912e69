package sqlite

import (
	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
)

// Pairing implements mailbox.CommandReader.
func (r reader) Pairing(id mailbox.PairingID) (mailbox.Pairing, error) {
	p := mailbox.Pairing{ID: id}
	err := r.q.QueryRow("SELECT epoch, reported, journal, high_water, sequence, open, open_bytes, closed, restored, connected,"+
		" since, cursor, floor FROM mailboxes WHERE pairing = ?", id[:]).
		Scan(&p.Epoch, &p.Reported, &p.JournalID, &p.HighWater, &p.Sequence, &p.Open, &p.OpenBytes, &p.Closed, &p.Restored,
			&p.Connected, moment{&p.Since}, &p.Cursor, &p.Floor)
	if absent(err) {
		return mailbox.Pairing{ID: id}, nil
	}
	return p, err
}

// Chain implements mailbox.CommandReader.
func (r reader) Chain(p mailbox.PairingID, s mailbox.SurfaceID) (mailbox.Chain, error) {
	var c mailbox.Chain
	err := r.q.QueryRow("SELECT seq, last, open, closed FROM chains WHERE pairing = ? AND surface = ?", p[:], s[:]).
		Scan(&c.Seq, fixed(c.Last[:]), &c.Open, &c.Closed)
	if absent(err) {
		return mailbox.Chain{}, nil
	}
	return c, err
}

// Pairings implements mailbox.CommandReader.
func (r reader) Pairings(after mailbox.PairingID, limit int) ([]mailbox.PairingID, error) {
	scan := func(r row) (id mailbox.PairingID, err error) { return id, r.Scan(fixed(id[:])) }
	return list(r.q, scan, "SELECT pairing FROM mailboxes WHERE pairing > ? ORDER BY pairing LIMIT ?", after[:], limit)
}

// SavePairing implements mailbox.CommandWriter.
func (t *tx) SavePairing(p mailbox.Pairing, line audit.Entry) error {
	return t.change(line, func() error {
		_, err := t.w.Exec("INSERT INTO mailboxes (pairing, epoch, reported, journal, high_water, sequence, closed, restored, connected, since)"+
			" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET epoch = excluded.epoch, reported = excluded.reported,"+
			" journal = excluded.journal, high_water = excluded.high_water, sequence = excluded.sequence, closed = excluded.closed,"+
			" restored = excluded.restored, connected = excluded.connected, since = excluded.since",
			p.ID[:], p.Epoch, p.Reported, blob(p.JournalID), p.HighWater, p.Sequence, p.Closed, p.Restored, p.Connected, ms(p.Since))
		return err
	})
}

// CloseChain implements mailbox.CommandWriter.
func (t *tx) CloseChain(p mailbox.PairingID, s mailbox.SurfaceID, line audit.Entry) error {
	return t.change(line, func() error {
		_, err := t.w.Exec("INSERT INTO chains (pairing, surface, closed) VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET closed = 1", p[:], s[:])
		return err
	})
}

// RaiseHighWater implements mailbox.CommandWriter.
func (t *tx) RaiseHighWater(p mailbox.PairingID, seq uint64) error {
	_, err := t.w.Exec("UPDATE mailboxes SET high_water = ? WHERE pairing = ? AND high_water < ?", seq, p[:], seq)
	return err
}
