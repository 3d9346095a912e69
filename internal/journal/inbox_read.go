package journal

import (
	"context"
	"encoding/json"

	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/proof"
)

const rowColumns = `SELECT id, pairing, command, envelope, sequence, surface, kind, seq, commitment, iat, exp, state, confirmed,
	exec, digest, target, ref, started, run, verdict, reason, result, durable, received, ended FROM inbox`

// Command returns the row of a mailbox id, or ErrState when it is not in the inbox.
func (j *Journal) Command(ctx context.Context, pairing proof.PairingID, command string) (Row, error) {
	return one(ctx, j, scanRow, rowColumns+` WHERE pairing = ? AND command = ?`, pairing.String(), command)
}

// Row returns the row of the journal's own id, or ErrState.
func (j *Journal) Row(ctx context.Context, id int64) (Row, error) {
	return one(ctx, j, scanRow, rowColumns+` WHERE id = ?`, id)
}

// Envelope returns the row of an envelope, or ErrState when it is not in the inbox.
func (j *Journal) Envelope(ctx context.Context, pairing proof.PairingID, envelope proof.Digest) (Row, error) {
	return one(ctx, j, scanRow, rowColumns+` WHERE pairing = ? AND envelope = ?`, pairing.String(), envelope[:])
}

// Rows returns the commands that are not settled with the broker, in the order in which they came: what runs, what
// waits, and results that it has not confirmed.
func (j *Journal) Rows(ctx context.Context, pairing proof.PairingID) ([]Row, error) {
	return list(ctx, j, scanRow, rowColumns+` WHERE pairing = ? AND durable = 0 ORDER BY id`, pairing.String())
}

// RowsIn returns the commands in one state, in the order in which they came.
func (j *Journal) RowsIn(ctx context.Context, pairing proof.PairingID, state string) ([]Row, error) {
	return list(ctx, j, scanRow, rowColumns+` WHERE pairing = ? AND durable = 0 AND state = ? ORDER BY id`, pairing.String(), state)
}

// Settled keeps that the broker holds the results of these commands.
func (j *Journal) Settled(ctx context.Context, pairing proof.PairingID, commands ...string) error {
	return j.db.Write(ctx, func(tx *sqlitedb.Tx) error {
		for _, command := range commands {
			_, err := tx.Exec(`UPDATE inbox SET durable = 1 WHERE pairing = ? AND command = ? AND state = 'done'`, pairing.String(), command)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Rename gives a known envelope the id under which a broker delivers it now: one that was restored from a backup has
// lost the old one. Its result, if any, is to be sent again; when the id is another one it needs a result that names
// it, else result is nil.
func (j *Journal) Rename(ctx context.Context, pairing proof.PairingID, id int64, command string, sequence uint64, result []byte) error {
	return j.db.Write(ctx, func(tx *sqlitedb.Tx) error {
		if err := must(tx.Exec(`UPDATE inbox SET command = ?, sequence = ?, durable = 0, result = coalesce(?, result)
			WHERE pairing = ? AND id = ? AND state <> 'skipped'`, command, sequence, result, pairing.String(), id)); err != nil {
			return err
		}
		_, err := tx.Exec(`UPDATE pairing SET high_water = max(high_water, ?) WHERE pairing = ?`, sequence, pairing.String())
		return err
	})
}

// Recovered counts the commands which a crash had left started and which were resolved since the journal was made.
func (j *Journal) Recovered(ctx context.Context) (int, error) {
	return one(ctx, j, scanValue[int], `SELECT recovered FROM meta`)
}

func scanRow(row scanner) (r Row, err error) {
	var pairing, surface string
	var envelope, commit, exec, digest []byte
	var iat, exp, started, received, ended int64
	var ref string
	err = row.Scan(&r.ID, &pairing, &r.Command, &envelope, &r.Sequence, &surface, &r.Kind, &r.Seq, &commit, &iat, &exp, &r.State,
		&r.Confirmed, &exec, &digest, &r.Target, &ref, &started, &r.Run, &r.Verdict, &r.Reason, &r.Result, &r.Durable, &received, &ended)
	if err != nil {
		return r, err
	}
	copy(r.Envelope[:], envelope)
	copy(r.Commit[:], commit)
	copy(r.Digest[:], digest)
	r.IssuedAt, r.Expires, r.Started = fromMillis(iat), fromMillis(exp), fromMillis(started)
	r.Received, r.Ended = fromMillis(received), fromMillis(ended)
	if len(exec) > 0 {
		if err := json.Unmarshal(exec, &r.Exec); err != nil {
			return r, err
		}
	}
	r.Exec.Ref, r.Exec.StartedAt = ref, r.Started
	if surface != "" {
		if r.Surface, err = proof.ParseSurfaceID(surface); err != nil {
			return r, err
		}
	}
	r.Pairing, err = proof.ParsePairingID(pairing)
	return r, err
}
