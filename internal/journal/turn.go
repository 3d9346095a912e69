package journal

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Turn is what the runtime does after a prompt.
type Turn struct {
	Ref      string // the user message's id
	Session  string
	Pairing  proof.PairingID // zero when it was begun at the desktop
	Envelope proof.Digest    // of the prompt; zero likewise
	Started  time.Time
	Ended    time.Time // zero while it runs
	Outcome  string
}

// BeginTurn keeps that a prompt's turn is about to run: one change with the prompt's Start.
func BeginTurn(t Turn) Change {
	return func(tx *sqlitedb.Tx) error {
		pairing, envelope := "", []byte{}
		if !t.Envelope.IsZero() {
			pairing, envelope = t.Pairing.String(), t.Envelope[:]
		}
		_, err := tx.Exec(`INSERT INTO turn (ref, session, pairing, envelope, started) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			t.Ref, t.Session, pairing, envelope, millis(t.Started))
		return err
	}
}

// NoteTurn keeps that the runtime speaks of a turn. It changes nothing of one that is known: a prompt's own row was
// written before. It has no audit line, since nothing was decided.
func (j *Journal) NoteTurn(ctx context.Context, t Turn) error { return j.db.Write(ctx, BeginTurn(t)) }

// EndTurn keeps how a turn ended. ErrState when it is unknown or has ended before.
func EndTurn(ref, outcome string, at time.Time) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE turn SET ended = ?, outcome = ? WHERE ref = ? AND ended = 0`, millis(at), outcome, ref))
	}
}

// DropTurn forgets a turn whose prompt had no effect.
func DropTurn(ref string) Change {
	return func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`DELETE FROM turn WHERE ref = ? AND ended = 0`, ref)
		return err
	}
}

// Turn returns the turn of a user message, or ErrState when it is not known.
func (j *Journal) Turn(ctx context.Context, ref string) (Turn, error) {
	scan := func(row scanner) (t Turn, err error) {
		var pairing string
		var envelope []byte
		var started, ended int64
		err = row.Scan(&t.Ref, &t.Session, &pairing, &envelope, &started, &ended, &t.Outcome)
		t.Started, t.Ended = fromMillis(started), fromMillis(ended)
		copy(t.Envelope[:], envelope)
		if err == nil && pairing != "" {
			t.Pairing, err = proof.ParsePairingID(pairing)
		}
		return t, err
	}
	return one(ctx, j, scan, `SELECT ref, session, pairing, envelope, started, ended, outcome FROM turn WHERE ref = ?`, ref)
}

// OpenTurns returns the turns whose end the journal does not have: for the executor's catching up.
func (j *Journal) OpenTurns(ctx context.Context) ([]wire.ExecTurn, error) {
	scan := func(row scanner) (t wire.ExecTurn, err error) {
		err = row.Scan(&t.Ref, &t.SessionID)
		return t, err
	}
	return list(ctx, j, scan, `SELECT ref, session FROM turn WHERE ended = 0 ORDER BY started, ref`)
}
