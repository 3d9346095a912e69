package sqlite

import (
	"context"
	"encoding/json"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/pkg/wire"
)

// change is how everything is changed: do runs in the transaction, and the line that describes it is written with it.
// There is no way around it but for the event log's text, which has no lines.
func (t *tx) change(line audit.Entry, do func() error) error {
	if err := do(); err != nil {
		return err
	}
	return t.Note(line)
}

// Note implements mailbox.CommandWriter: a line alone.
func (t *tx) Note(line audit.Entry) error {
	var seq uint64
	if err := t.w.QueryRow("SELECT coalesce(max(seq), 0) + 1 FROM audit_lines").Scan(&seq); err != nil {
		return err
	}
	bytes, err := line.Encode(seq)
	if err != nil {
		return err
	}
	if _, err := t.w.Exec("INSERT INTO audit_lines (seq, line) VALUES (?, ?)", seq, bytes); err != nil {
		return err
	}
	for _, v := range line.Values {
		_, err := t.w.Exec("INSERT INTO audit_values (seq, field, commitment, salt, value) VALUES (?, ?, ?, ?, ?)",
			seq, v.Field, v.Commitment, v.Salt[:], v.Text)
		if err != nil {
			return err
		}
	}
	t.lines++
	return nil
}

// notes writes the lines of pkg/pairing, whose label, ip and ua are still in clear.
func (t *tx) notes(lines ...wire.AuditLine) error {
	for _, l := range lines {
		if err := t.Note(audit.Commit(l)); err != nil {
			return err
		}
	}
	return nil
}

// Append writes a line that describes no change of this store: the broker started, someone read the log.
func (s *Store) Append(ctx context.Context, line audit.Entry) error {
	return s.write(ctx, func(t *tx) error { return t.Note(line) })
}

// Lines returns at most limit lines with a seq above after, each exactly as stored, and the after of the next call.
func (s *Store) Lines(ctx context.Context, after uint64, limit int) (lines []json.RawMessage, next uint64, err error) {
	next = after
	err = s.read(ctx, func(r reader) error {
		rows, err := r.q.Query("SELECT seq, line FROM audit_lines WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var line []byte
			if err := rows.Scan(&next, &line); err != nil {
				return err
			}
			lines = append(lines, line)
		}
		return rows.Err()
	})
	return lines, next, err
}

// Values returns what the commitments of a line stand for, as far as it was not erased, by field.
func (s *Store) Values(ctx context.Context, seq uint64) (map[string]audit.Value, error) {
	values := map[string]audit.Value{}
	err := s.read(ctx, func(r reader) error {
		rows, err := r.q.Query("SELECT field, commitment, salt, value FROM audit_values WHERE seq = ?", seq)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var v audit.Value
			var salt []byte
			if err := rows.Scan(&v.Field, &v.Commitment, &salt, &v.Text); err != nil {
				return err
			}
			copy(v.Salt[:], salt)
			values[v.Field] = v
		}
		return rows.Err()
	})
	return values, err
}
