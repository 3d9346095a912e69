package journal

import (
	"encoding/json"
	"time"

	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// States of an inbox row (mailbox.md, "At the desktop"). Done covers every end; the verdict says which.
const (
	Received     = "received"
	WaitingLocal = "waiting_local"
	Started      = "started"
	Done         = "done"
	Skipped      = "skipped" // ended at the broker; only its place in the surface's chain matters
)

// Row is one command in the inbox.
type Row struct {
	ID       int64 // the journal's own; set by reads
	Pairing  proof.PairingID
	Command  string       // the mailbox's id
	Envelope proof.Digest // zero for a stop of a command that never came
	Sequence uint64       // the mailbox's
	Surface  proof.SurfaceID
	Kind     string
	Seq      uint64       // the surface's
	Prev     proof.Digest // not stored: what Receive compares
	Commit   proof.Digest
	IssuedAt time.Time
	Expires  time.Time
	State    string

	Confirmed bool             // a person at the desktop allowed it
	Exec      wire.ExecCommand // empty once done
	Digest    proof.Digest     // request_sha256 of a decision
	Target    string           // revoke_surface: whom
	Started   time.Time
	Run       uint64 // the journal's counter when it was started

	Verdict  string // terminal state, when Done
	Reason   string
	Result   []byte // sealed and signed; empty when no surface could be named
	Durable  bool   // the broker holds the result
	Received time.Time
	Ended    time.Time
}

// Receive adds a command that may run, or that waits for a person when the row's state is WaitingLocal, and moves
// the surface's chain to it. ErrDuplicate when the envelope or the mailbox id is known, ErrChain when it is not the
// surface's next one.
func Receive(r Row) Change {
	return func(tx *sqlitedb.Tx) error {
		if err := insertRow(tx, r); err != nil {
			return err
		}
		return advance(tx, r, true)
	}
}

// Refuse adds a command with its final verdict; the row is Done. The chain moves to it when its seq is higher than
// the last one, so that one lost envelope costs its surface one refusal and not its chain.
func Refuse(r Row) Change {
	return func(tx *sqlitedb.Tx) error {
		r.State = Done
		if err := insertRow(tx, r); err != nil {
			return err
		}
		return advance(tx, r, false)
	}
}

// Skip adds an envelope that ended at the broker, and moves the chain to it.
func Skip(r Row) Change {
	return func(tx *sqlitedb.Tx) error {
		r.State, r.Durable, r.Ended = Skipped, true, r.Received
		if err := insertRow(tx, r); err != nil {
			return err
		}
		return advance(tx, r, true)
	}
}

// Bind ties an envelope to a tombstone that was written before it came, and moves the chain to it. The tombstone's
// verdict stands. ErrState when there is no such tombstone.
func Bind(r Row) Change {
	return func(tx *sqlitedb.Tx) error {
		err := must(tx.Exec(`UPDATE inbox SET envelope = ?, surface = ?, kind = ?, seq = ?, commitment = ?, iat = ?, exp = ?
			WHERE pairing = ? AND command = ? AND envelope IS NULL`, r.Envelope[:], r.Surface.String(), r.Kind, r.Seq, r.Commit[:],
			millis(r.IssuedAt), millis(r.Expires), r.Pairing.String(), r.Command))
		if err != nil {
			return err
		}
		return advance(tx, r, false)
	}
}

// insertRow adds r as it is and raises the pairing's high-water mark.
func insertRow(tx *sqlitedb.Tx, r Row) error {
	exec, err := json.Marshal(r.Exec)
	if err != nil {
		return err
	}
	if r.State != Received && r.State != WaitingLocal {
		exec = []byte{} // what will not run keeps no content
	}
	var envelope []byte
	if !r.Envelope.IsZero() {
		envelope = r.Envelope[:]
	}
	err = duplicate(tx.Exec(`INSERT INTO inbox (pairing, command, envelope, sequence, surface, kind, seq, commitment, iat, exp, state,
		exec, digest, target, verdict, reason, result, durable, received, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`, r.Pairing.String(), r.Command, envelope, r.Sequence, r.Surface.String(), r.Kind, r.Seq, r.Commit[:],
		millis(r.IssuedAt), millis(r.Expires), r.State, exec, r.Digest[:], r.Target, r.Verdict, r.Reason, bytesOf(r.Result), r.Durable,
		millis(r.Received), millis(r.Ended)))
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE pairing SET high_water = max(high_water, ?) WHERE pairing = ?`, r.Sequence, r.Pairing.String())
	return err
}

// advance moves the surface's chain to r. Strictly: only from its predecessor.
func advance(tx *sqlitedb.Tx, r Row, strict bool) error {
	changed, err := tx.Exec(`UPDATE surface SET last_seq = ?1, last_hash = ?2, last_use = ?3, resync = 0
		WHERE pairing = ?4 AND surface = ?5 AND last_seq < ?1 AND (NOT ?6 OR resync OR (last_seq = ?1 - 1 AND last_hash = ?7))`,
		r.Seq, r.Envelope[:], millis(r.Received), r.Pairing.String(), r.Surface.String(), strict, r.Prev[:])
	if err == nil && changed == 0 && strict {
		return ErrChain
	}
	return err
}

// Start marks a received command as about to be executed under ref. ErrState when it was stopped, or started, before.
func Start(id int64, ref string, run uint64, at time.Time) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE inbox SET state = 'started', ref = ?, run = ?, started = ? WHERE id = ? AND state = 'received'`,
			ref, run, millis(at), id))
	}
}

// StartAgain marks a started command that provably never ran, and that is executed again. seen is the time of the start
// before, so that only one who looked may do it: ErrState otherwise.
func StartAgain(id int64, seen time.Time, run uint64, at time.Time) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE inbox SET run = ?, started = ? WHERE id = ? AND state = 'started' AND started = ?`,
			run, millis(at), id, millis(seen)))
	}
}

// Confirm lets a command that waits for a person go on. ErrState when it no longer waits.
func Confirm(id int64) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE inbox SET state = 'received', confirmed = 1 WHERE id = ? AND state = 'waiting_local'`, id))
	}
}

// Await makes a received command wait for a person. ErrState when it was stopped or started before.
func Await(id int64) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE inbox SET state = 'waiting_local' WHERE id = ? AND state = 'received'`, id))
	}
}

// End is how a command ended.
type End struct {
	Verdict string // a terminal state
	Reason  string
	Result  []byte // sealed and signed
	At      time.Time
}

// Finish ends a command that is in state from. ErrState when it is not: it was stopped or ended before.
func Finish(id int64, from string, e End) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE inbox SET state = 'done', exec = x'', verdict = ?, reason = ?, result = ?, ended = ? WHERE id = ? AND state = ?`,
			e.Verdict, e.Reason, bytesOf(e.Result), millis(e.At), id, from))
	}
}

// Tombstone keeps that a command which never came must never run. ErrDuplicate when it is in the inbox.
func Tombstone(pairing proof.PairingID, command string, e End) Change {
	return func(tx *sqlitedb.Tx) error {
		return insertRow(tx, Row{
			Pairing: pairing, Command: command, State: Done, Verdict: e.Verdict, Reason: e.Reason, Result: e.Result,
			Received: e.At, Ended: e.At,
		})
	}
}

// CountRecovered counts one command that a crash had left started and that is resolved now.
func CountRecovered() Change {
	return func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`UPDATE meta SET recovered = recovered + 1`)
		return err
	}
}

// duplicate turns "no row inserted" into ErrDuplicate.
func duplicate(changed int64, err error) error {
	if err == nil && changed == 0 {
		return ErrDuplicate
	}
	return err
}

// bytesOf is never nil: a nil slice would be NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
