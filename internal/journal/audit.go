package journal

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/sqlitedb"
)

// How long the desktop keeps what is over (audit.md, Retention).
const (
	KeepAudit    = 90 * 24 * time.Hour
	KeepCommands = 30 * 24 * time.Hour // far beyond the longest life of an envelope, so a repeated one meets its row or its expiry
)

// Line is what an audit line says, in clear. Record sets its time, and the policy version of its pairing when it is 0.
type Line = audit.Record

// AuditEntry is one written line.
type AuditEntry struct {
	Seq    uint64
	Line   []byte            // exact JSON bytes of a wire.AuditLine
	Values map[string]string // the text behind each commitment that was not erased, by commitment
}

// appendLine gives a record the next number and stores its exact bytes.
func appendLine(tx *sqlitedb.Tx, at time.Time, r Line) error {
	r.Time = at
	if r.Pairing != "" && r.PolicyVersion == 0 {
		if err := tx.QueryRow(`SELECT coalesce(max(policy_version), 0) FROM pairing WHERE pairing = ?`, r.Pairing).Scan(&r.PolicyVersion); err != nil {
			return err
		}
	}
	var seq uint64
	if err := tx.QueryRow(`SELECT coalesce(max(seq), 0) + 1 FROM audit`).Scan(&seq); err != nil {
		return err
	}
	entry := audit.Build(r)
	line, err := entry.Encode(seq)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`INSERT INTO audit (seq, at, line) VALUES (?, ?, ?)`, seq, millis(at), line); err != nil {
		return err
	}
	for _, v := range entry.Values {
		if _, err := tx.Exec(`INSERT INTO audit_value (seq, field, commitment, salt, text) VALUES (?, ?, ?, ?, ?)`,
			seq, v.Field, v.Commitment, v.Salt[:], v.Text); err != nil {
			return err
		}
	}
	return nil
}

// Audit returns up to limit lines after a number, in order.
func (j *Journal) Audit(ctx context.Context, after uint64, limit int) ([]AuditEntry, error) {
	var entries []AuditEntry
	err := j.db.Read(ctx, func(q sqlitedb.Queryer) (err error) {
		entries, err = rowsOf(q, scanEntry, `SELECT seq, line FROM audit WHERE seq > ? ORDER BY seq LIMIT ?`, after, limit)
		if err != nil || len(entries) == 0 {
			return err
		}
		return addValues(q, entries)
	})
	return entries, err
}

// LastAudit is the number of the newest line; 0 when there is none.
func (j *Journal) LastAudit(ctx context.Context) (uint64, error) {
	return one(ctx, j, scanValue[uint64], `SELECT coalesce(max(seq), 0) FROM audit`)
}

// Prune removes what is over for longer than KeepAudit and KeepCommands. The newest audit line always stays, since
// the next one is numbered after it.
func (j *Journal) Prune(ctx context.Context, now time.Time) error {
	oldLine, oldCommand := millis(now.Add(-KeepAudit)), millis(now.Add(-KeepCommands))
	steps := []struct {
		query string
		until int64
	}{
		{`DELETE FROM audit_value WHERE seq IN (SELECT seq FROM audit WHERE at < ? AND seq < (SELECT max(seq) FROM audit))`, oldLine},
		{`DELETE FROM audit WHERE at < ? AND seq < (SELECT max(seq) FROM audit)`, oldLine},
		{`DELETE FROM inbox WHERE durable = 1 AND ended < ?`, oldCommand},
		{`DELETE FROM request WHERE closed > 0 AND closed < ?`, oldCommand},
		{`DELETE FROM turn WHERE ended > 0 AND ended < ?`, oldCommand},
		{`DELETE FROM link_session WHERE expires < ?`, oldCommand},
	}
	return j.db.Write(ctx, func(tx *sqlitedb.Tx) error {
		for _, s := range steps {
			if _, err := tx.Exec(s.query, s.until); err != nil {
				return err
			}
		}
		return nil
	})
}

func scanEntry(row scanner) (e AuditEntry, err error) {
	err = row.Scan(&e.Seq, &e.Line)
	return e, err
}

// addValues fills in what stands behind the commitments of entries, which are in order.
func addValues(q sqlitedb.Queryer, entries []AuditEntry) error {
	rows, err := q.Query(`SELECT seq, commitment, text FROM audit_value WHERE seq BETWEEN ? AND ?`,
		entries[0].Seq, entries[len(entries)-1].Seq)
	if err != nil {
		return err
	}
	defer rows.Close()
	values := map[uint64]map[string]string{}
	for rows.Next() {
		var seq uint64
		var commitment, text string
		if err := rows.Scan(&seq, &commitment, &text); err != nil {
			return err
		}
		if values[seq] == nil {
			values[seq] = map[string]string{}
		}
		values[seq][commitment] = text
	}
	for i := range entries {
		entries[i].Values = values[entries[i].Seq]
	}
	return rows.Err()
}
