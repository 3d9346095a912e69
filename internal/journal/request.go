package journal

import (
	"context"
	"encoding/json"
	"time"

	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Desk is who decided a request when it was done at the desktop itself.
const Desk = "desk"

// Request is an approval or a question as it was published to surfaces with decide.
type Request struct {
	Pairing   proof.PairingID
	ID        string
	Session   string
	Kind      string // permission or question
	Bytes     []byte // exact, as published
	Exec      wire.ExecRequest
	Digest    proof.Digest // over Bytes; what a decision must name
	Ref       []byte       // random; all that the broker sees of the id
	Opened    time.Time
	Closed    time.Time // zero while it is open
	Outcome   string    // allowed, denied, answered, rejected, lost, expired
	DecidedBy string    // a surface's label, or Desk; of a claimed one who is deciding
	Claimed   bool      // a decision is being carried out
}

// OpenRequest keeps a request that was just asked. ErrDuplicate when its id is known.
func OpenRequest(r Request) Change {
	return func(tx *sqlitedb.Tx) error {
		exec, err := json.Marshal(r.Exec)
		if err != nil {
			return err
		}
		return duplicate(tx.Exec(`INSERT INTO request (pairing, request, session, kind, bytes, exec, digest, ref, opened)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, r.Pairing.String(), r.ID, r.Session, r.Kind, r.Bytes, exec,
			r.Digest[:], r.Ref, millis(r.Opened)))
	}
}

// ClaimRequest reserves an open request for one decision, so that of two surfaces one wins. The digest must be that
// of the request as published. ErrState otherwise: Request tells why.
func ClaimRequest(pairing proof.PairingID, request string, digest, envelope proof.Digest, label string) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE request SET claimed = ?1, decided_by = ?2 WHERE pairing = ?3 AND request = ?4 AND digest = ?5
			AND closed = 0 AND (claimed IS NULL OR claimed = ?1)`, envelope[:], label, pairing.String(), request, digest[:]))
	}
}

// ReleaseRequest undoes a claim whose decision had no effect. A request that was closed meanwhile stays as it is.
func ReleaseRequest(pairing proof.PairingID, request string, envelope proof.Digest) Change {
	return func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`UPDATE request SET claimed = NULL, decided_by = '' WHERE pairing = ? AND request = ? AND claimed = ? AND closed = 0`,
			pairing.String(), request, envelope[:])
		return err
	}
}

// CloseRequest keeps how a request ended. Who claimed it before decided it, whatever by says. ErrState when it is
// not open.
func CloseRequest(pairing proof.PairingID, request, outcome, by string, at time.Time) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE request SET closed = ?, outcome = ?, decided_by = CASE WHEN claimed IS NULL THEN ? ELSE decided_by END
			WHERE pairing = ? AND request = ? AND closed = 0`, millis(at), outcome, by, pairing.String(), request))
	}
}

const requestColumns = `SELECT pairing, request, session, kind, bytes, exec, digest, ref, opened, closed, outcome, decided_by,
	claimed IS NOT NULL FROM request`

// OpenRequests returns the requests of a pairing that wait, oldest first.
func (j *Journal) OpenRequests(ctx context.Context, pairing proof.PairingID) ([]Request, error) {
	return list(ctx, j, scanRequest, requestColumns+` WHERE pairing = ? AND closed = 0 ORDER BY opened, request`, pairing.String())
}

// ClosedRequests returns the requests of a pairing that ended at or after a time, oldest first.
func (j *Journal) ClosedRequests(ctx context.Context, pairing proof.PairingID, since time.Time) ([]Request, error) {
	return list(ctx, j, scanRequest, requestColumns+` WHERE pairing = ? AND closed >= ? AND closed > 0 ORDER BY closed, request`,
		pairing.String(), millis(since))
}

// Request returns one request, open or closed, or ErrState when it was never published.
func (j *Journal) Request(ctx context.Context, pairing proof.PairingID, request string) (Request, error) {
	return one(ctx, j, scanRequest, requestColumns+` WHERE pairing = ? AND request = ?`, pairing.String(), request)
}

// PendingRequests returns what was open in the runtime when the journal last heard of it, each once although several
// pairings may have published it: for the executor's catching up.
func (j *Journal) PendingRequests(ctx context.Context) ([]wire.ExecRequest, error) {
	all, err := list(ctx, j, scanRequest, requestColumns+` WHERE closed = 0 GROUP BY request ORDER BY opened, request`)
	var pending []wire.ExecRequest
	for _, r := range all {
		pending = append(pending, r.Exec)
	}
	return pending, err
}

func scanRequest(row scanner) (r Request, err error) {
	var pairing string
	var digest, exec []byte
	var opened, closed int64
	err = row.Scan(&pairing, &r.ID, &r.Session, &r.Kind, &r.Bytes, &exec, &digest, &r.Ref, &opened, &closed, &r.Outcome, &r.DecidedBy, &r.Claimed)
	if err != nil {
		return r, err
	}
	copy(r.Digest[:], digest)
	if err := json.Unmarshal(exec, &r.Exec); err != nil {
		return r, err
	}
	r.Opened, r.Closed = fromMillis(opened), fromMillis(closed)
	r.Pairing, err = proof.ParsePairingID(pairing)
	return r, err
}
