package journal

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/proof"
)

// Pairing is one enrolment of this desktop at a broker.
type Pairing struct {
	ID         proof.PairingID
	BrokerURL  string
	BrokerKey  proof.SigKey // pinned at enrolment
	PageOrigin string       // what links start with
	Host       string       // this desktop's name as the broker knows it
	Enrolled   time.Time

	Revoked   time.Time // zero while it holds
	RevokedBy string
	Told      bool   // the broker knows that it was revoked
	Locked    string // a stable code, for example journal_changed; empty when not locked
	HighWater uint64 // highest mailbox sequence that was ever journalled

	Policy        []byte // the policy document as it was set; whoever reads it decides that malformed means no
	PolicyVersion int    // raised by each SetPolicy; stands in audit lines
}

// Live reports whether commands may be taken.
func (p Pairing) Live() bool { return p.Revoked.IsZero() && p.Locked == "" }

// PutPairing adds a pairing after enrolment. One that exists keeps what it learnt and gets the broker's facts anew.
func PutPairing(p Pairing) Change {
	return func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`INSERT INTO pairing (pairing, broker_url, broker_key, page_origin, host, enrolled, policy, policy_version)
			VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (pairing) DO UPDATE SET
			broker_url = excluded.broker_url, broker_key = excluded.broker_key, page_origin = excluded.page_origin, host = excluded.host`,
			p.ID.String(), p.BrokerURL, p.BrokerKey[:], p.PageOrigin, p.Host, millis(p.Enrolled), p.Policy)
		return err
	}
}

// RevokePairing ends a pairing for good. ErrState when it has ended already.
func RevokePairing(id proof.PairingID, at time.Time, by string) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE pairing SET revoked = ?, revoked_by = ? WHERE pairing = ? AND revoked = 0`,
			millis(at), by, id.String()))
	}
}

// PairingTold keeps that the broker knows of a pairing's end: there is no reason to connect any more.
func (j *Journal) PairingTold(ctx context.Context, id proof.PairingID) error {
	return j.db.Write(ctx, func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`UPDATE pairing SET told = 1 WHERE pairing = ? AND revoked > 0`, id.String())
		return err
	})
}

// LockPairing stops a pairing until its owner acts. ErrState when it is locked for that reason already.
func LockPairing(id proof.PairingID, reason string) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE pairing SET locked = ? WHERE pairing = ? AND locked <> ?`, reason, id.String(), reason))
	}
}

// UnlockPairing undoes LockPairing.
func UnlockPairing(id proof.PairingID) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE pairing SET locked = '' WHERE pairing = ?`, id.String()))
	}
}

// SetPolicy replaces a pairing's policy document and raises its version. Whether the document means anything is for
// the caller to judge before, and for whoever reads it to judge again.
func SetPolicy(id proof.PairingID, document []byte) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE pairing SET policy = ?, policy_version = policy_version + 1 WHERE pairing = ?`,
			document, id.String()))
	}
}

const pairingColumns = `SELECT pairing, broker_url, broker_key, page_origin, host, enrolled, revoked, revoked_by, told, locked,
	high_water, policy, policy_version FROM pairing`

// Pairings returns all pairings, revoked ones too, in the order of their enrolment.
func (j *Journal) Pairings(ctx context.Context) ([]Pairing, error) {
	return list(ctx, j, scanPairing, pairingColumns+` ORDER BY enrolled, pairing`)
}

// Pairing returns one pairing, or ErrState when there is none with that id.
func (j *Journal) Pairing(ctx context.Context, id proof.PairingID) (Pairing, error) {
	return one(ctx, j, scanPairing, pairingColumns+` WHERE pairing = ?`, id.String())
}

func scanPairing(row scanner) (p Pairing, err error) {
	var id string
	var key []byte
	var enrolled, revoked int64
	err = row.Scan(&id, &p.BrokerURL, &key, &p.PageOrigin, &p.Host, &enrolled, &revoked, &p.RevokedBy, &p.Told, &p.Locked,
		&p.HighWater, &p.Policy, &p.PolicyVersion)
	if err != nil {
		return p, err
	}
	copy(p.BrokerKey[:], key)
	p.Enrolled, p.Revoked = fromMillis(enrolled), fromMillis(revoked)
	p.ID, err = proof.ParsePairingID(id)
	return p, err
}

// scanner is a *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

// list reads all rows of a query.
func list[T any](ctx context.Context, j *Journal, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	var all []T
	err := j.db.Read(ctx, func(q sqlitedb.Queryer) (err error) {
		all, err = rowsOf(q, scan, query, args...)
		return err
	})
	return all, err
}

func rowsOf[T any](q sqlitedb.Queryer, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// one reads one row; none is ErrState.
func one[T any](ctx context.Context, j *Journal, scan func(scanner) (T, error), query string, args ...any) (T, error) {
	var v T
	err := j.db.Read(ctx, func(q sqlitedb.Queryer) (err error) {
		v, err = scan(q.QueryRow(query, args...))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return v, ErrState
	}
	return v, err
}
