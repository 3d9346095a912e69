package sqlite

import (
	"database/sql"
	"strings"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
)

const commandColumns = "id, pairing, sequence, surface, kind, seq, prev, digest, commit_, issued, expires, size, " +
	"state, reason, token, epoch, deliveries, stop, skip, reported, resolved, created, updated, result"

// commandDest lists where the columns go, in their order.
func commandDest(c *mailbox.Command) []any {
	return []any{
		&c.ID, fixed(c.Pairing[:]), &c.Sequence, fixed(c.Surface[:]), &c.Kind, &c.Seq, fixed(c.Prev[:]), fixed(c.Digest[:]),
		fixed(c.Commit[:]),
		moment{&c.IssuedAt},
		moment{&c.Expires},
		&c.Size,
		&c.State, &c.Reason, fixed(c.Token[:]), &c.Epoch, &c.Deliveries, &c.Stop, &c.Skip, &c.Reported, &c.Resolved,
		moment{&c.Created},
		moment{&c.Updated},
		&c.Result,
	}
}

func scanCommand(r row) (mailbox.Command, error) {
	var c mailbox.Command
	return c, found(r.Scan(commandDest(&c)...))
}

// Command implements mailbox.CommandReader.
func (r reader) Command(p mailbox.PairingID, id mailbox.CommandID) (mailbox.Command, error) {
	return scanCommand(r.q.QueryRow("SELECT "+commandColumns+" FROM commands WHERE id = ? AND pairing = ?", id, p[:]))
}

// ByDigest implements mailbox.CommandReader.
func (r reader) ByDigest(p mailbox.PairingID, d mailbox.Digest) (mailbox.Command, error) {
	return scanCommand(r.q.QueryRow("SELECT "+commandColumns+" FROM commands WHERE pairing = ? AND digest = ?", p[:], d[:]))
}

// Next implements mailbox.CommandReader.
func (r reader) Next(p mailbox.PairingID) (mailbox.Command, error) {
	var c mailbox.Command
	err := r.q.QueryRow("SELECT "+commandColumns+", header, body_hash, signature, envelope"+
		" FROM commands JOIN envelopes ON command = n"+
		" WHERE pairing = ? AND (state = 0 OR skip = 1) ORDER BY sequence LIMIT 1", p[:]).
		Scan(append(commandDest(&c), &c.Header, fixed(c.BodyHash[:]), &c.Signature, &c.Envelope)...)
	return c, found(err)
}

// Commands implements mailbox.CommandReader.
func (r reader) Commands(f mailbox.Filter) ([]mailbox.Command, error) {
	where, args := conditions(f)
	return list(r.q, scanCommand, "SELECT "+commandColumns+" FROM commands WHERE "+where+" ORDER BY pairing, sequence LIMIT ?",
		append(args, f.Limit)...)
}

// conditions writes a filter as SQL. The number of different texts is small, so that each is prepared once; the
// literal terms let SQLite see that its partial indexes hold what is asked for.
func conditions(f mailbox.Filter) (string, []any) {
	var terms []string
	var args []any
	and := func(term string, values ...any) {
		terms, args = append(terms, term), append(args, values...)
	}
	if !f.Pairing.IsZero() {
		and("pairing = ?", f.Pairing[:])
	}
	if !f.Surface.IsZero() {
		and("surface = ?", f.Surface[:])
	}
	mask, open := stateMask(f.States)
	if len(f.States) == 1 && f.States[0] == mailbox.OutcomeUnknown {
		and("state = 9")
	} else {
		and("(? >> state) & 1 = 1", mask)
	}
	if open {
		and("state < 4")
	}
	if !f.ExpiresBefore.IsZero() {
		and("expires <= ?", ms(f.ExpiresBefore))
	}
	if f.StopNone {
		and("stop = 0")
	}
	if f.StopAsked {
		and("stop IN (1, 2)")
	}
	if f.Unreported {
		and("reported = 0 AND resolved = ''")
	}
	return strings.Join(terms, " AND "), args
}

// stateMask has a bit for each state; no states mean every open one.
func stateMask(states []mailbox.State) (mask int64, open bool) {
	if len(states) == 0 {
		return 1<<mailbox.Completed - 1, true
	}
	open = true
	for _, s := range states {
		mask |= 1 << s
		open = open && !s.Terminal()
	}
	return mask, open
}

// Insert implements mailbox.CommandWriter.
func (t *tx) Insert(c mailbox.Command, line audit.Entry) error {
	return t.change(line, func() error {
		if err := t.insert(c); err != nil {
			return err
		}
		_, err := t.w.Exec("INSERT INTO mailboxes (pairing, sequence, open, open_bytes) VALUES (?, ?, 1, ?)"+
			" ON CONFLICT DO UPDATE SET sequence = excluded.sequence, open = open + 1, open_bytes = open_bytes + excluded.open_bytes",
			c.Pairing[:], c.Sequence, c.Size)
		if err != nil {
			return err
		}
		_, err = t.w.Exec("INSERT INTO chains (pairing, surface, seq, last, open) VALUES (?, ?, ?, ?, 1)"+
			" ON CONFLICT DO UPDATE SET seq = excluded.seq, last = excluded.last, open = open + 1",
			c.Pairing[:], c.Surface[:], c.Seq, c.Digest[:])
		return err
	})
}

func (t *tx) insert(c mailbox.Command) error {
	var n int64
	err := t.w.QueryRow("INSERT INTO commands ("+commandColumns+") VALUES (?"+strings.Repeat(", ?", 23)+") RETURNING n",
		c.ID, c.Pairing[:], c.Sequence, c.Surface[:], c.Kind, c.Seq, c.Prev[:], c.Digest[:], c.Commit[:], ms(c.IssuedAt),
		ms(c.Expires), c.Size, c.State, c.Reason, c.Token[:], c.Epoch, c.Deliveries, c.Stop, c.Skip, c.Reported, c.Resolved,
		ms(c.Created), ms(c.Updated), blob(c.Result)).Scan(&n)
	if err != nil {
		return err
	}
	_, err = t.w.Exec("INSERT INTO envelopes (command, header, body_hash, signature, envelope) VALUES (?, ?, ?, ?, ?)",
		n, blob(c.Header), c.BodyHash[:], blob(c.Signature), blob(c.Envelope))
	return err
}

// Save implements mailbox.CommandWriter.
func (t *tx) Save(c mailbox.Command, line audit.Entry) error {
	return t.change(line, func() error {
		if c.State.Terminal() {
			if err := t.end(c); err != nil {
				return err
			}
		}
		n, err := t.w.Exec("UPDATE commands SET state = ?, reason = ?, token = ?, epoch = ?, deliveries = ?, stop = ?, skip = ?,"+
			" reported = ?, resolved = ?, updated = ?, result = ? WHERE id = ?",
			c.State, c.Reason, c.Token[:], c.Epoch, c.Deliveries, c.Stop, c.Skip, c.Reported, c.Resolved, ms(c.Updated),
			blob(c.Result), c.ID)
		if err == nil && n == 0 {
			err = found(sql.ErrNoRows)
		}
		return err
	})
}

// end gives back what an open command takes up, when the stored row is still open.
func (t *tx) end(c mailbox.Command) error {
	n, err := t.w.Exec("UPDATE envelopes SET envelope = x'' WHERE command = (SELECT n FROM commands WHERE id = ? AND state < 4)", c.ID)
	if err != nil || n == 0 {
		return err
	}
	_, err = t.w.Exec("UPDATE mailboxes SET open = open - 1, open_bytes = open_bytes - ? WHERE pairing = ?", c.Size, c.Pairing[:])
	if err != nil {
		return err
	}
	_, err = t.w.Exec("UPDATE chains SET open = open - 1 WHERE pairing = ? AND surface = ?", c.Pairing[:], c.Surface[:])
	return err
}

// PruneEnded implements mailbox.CommandWriter.
func (t *tx) PruneEnded(before time.Time, keep, limit int) (int, error) {
	const waits = "NOT (state = 9 AND resolved = '')"
	old, err := t.w.Exec("DELETE FROM commands WHERE n IN (SELECT n FROM commands WHERE state >= 4 AND updated < ? AND "+waits+" LIMIT ?)",
		ms(before), limit)
	if err != nil || int(old) >= limit {
		return int(old), err
	}
	many, err := t.w.Exec("DELETE FROM commands WHERE n IN (SELECT n FROM mailboxes JOIN commands USING (pairing)"+
		" WHERE mailboxes.sequence > ?1 AND commands.sequence <= mailboxes.sequence - ?1 AND state >= 4 AND "+waits+" LIMIT ?2)",
		keep, limit-int(old))
	return int(old + many), err
}
