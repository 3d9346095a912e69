package journal

import (
	"context"
	"strings"
	"time"

	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/proof"
)

// Surface is a linked surface as this desktop knows it. The desktop's table, and not the grant, decides scope and
// revocation (pairing-protocol.md section 3).
type Surface struct {
	Pairing  proof.PairingID
	ID       proof.SurfaceID
	Label    string
	Scopes   proof.Scopes
	Ssig     proof.SigKey
	Skem     proof.KemKey
	Grant    []byte // the signed public half, as the broker holds it
	Serial   uint64
	Issued   time.Time
	NotAfter time.Time

	Revoked   time.Time // zero while it is linked
	RevokedBy string
	LastUse   time.Time
	LastSeq   uint64       // of its newest envelope that was journalled
	LastHash  proof.Digest // and that envelope's hash
	Resync    bool         // after recover: the next header's seq and prev are taken as they are
}

// Linked reports whether the surface may send at now.
func (s Surface) Linked(now time.Time) bool { return s.Revoked.IsZero() && now.Before(s.NotAfter) }

// PutSurface adds a surface, or renews the grant of one that is not revoked. A revoked id is never accepted again:
// ErrState.
func PutSurface(s Surface) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`INSERT INTO surface (pairing, surface, label, scopes, ssig, skem, grant_bytes, serial, issued, not_after, last_hash)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pairing, surface) DO UPDATE SET
			label = excluded.label, scopes = excluded.scopes, grant_bytes = excluded.grant_bytes, serial = excluded.serial,
			issued = excluded.issued, not_after = excluded.not_after WHERE revoked = 0 AND excluded.serial > serial`,
			s.Pairing.String(), s.ID.String(), s.Label, strings.Join(s.Scopes.Names(), " "), s.Ssig[:], s.Skem[:], s.Grant, s.Serial,
			millis(s.Issued), millis(s.NotAfter), s.LastHash[:]))
	}
}

// RevokeSurface ends a surface for good. ErrState when it is unknown or has ended already.
func RevokeSurface(pairing proof.PairingID, surface proof.SurfaceID, at time.Time, by string) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE surface SET revoked = ?, revoked_by = ? WHERE pairing = ? AND surface = ? AND revoked = 0`,
			millis(at), by, pairing.String(), surface.String()))
	}
}

// ResyncSurfaces lets each surface's next envelope say where its chain stands: recover (section 6).
func ResyncSurfaces(pairing proof.PairingID) Change {
	return func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`UPDATE surface SET resync = 1 WHERE pairing = ?`, pairing.String())
		return err
	}
}

const surfaceColumns = `SELECT pairing, surface, label, scopes, ssig, skem, grant_bytes, serial, issued, not_after,
	revoked, revoked_by, last_use, last_seq, last_hash, resync FROM surface`

// Surfaces returns every surface of a pairing, revoked ones too, oldest first.
func (j *Journal) Surfaces(ctx context.Context, pairing proof.PairingID) ([]Surface, error) {
	return list(ctx, j, scanSurface, surfaceColumns+` WHERE pairing = ? ORDER BY issued, surface`, pairing.String())
}

// Surface returns one surface, or ErrState when it is unknown.
func (j *Journal) Surface(ctx context.Context, pairing proof.PairingID, surface proof.SurfaceID) (Surface, error) {
	return one(ctx, j, scanSurface, surfaceColumns+` WHERE pairing = ? AND surface = ?`, pairing.String(), surface.String())
}

// HighestSerial is the highest serial that any grant of the pairing ever had; 0 when there was none.
func (j *Journal) HighestSerial(ctx context.Context, pairing proof.PairingID) (uint64, error) {
	return one(ctx, j, scanValue[uint64], `SELECT coalesce(max(serial), 0) FROM surface WHERE pairing = ?`, pairing.String())
}

func scanValue[T any](row scanner) (v T, err error) {
	err = row.Scan(&v)
	return v, err
}

func scanSurface(row scanner) (s Surface, err error) {
	var pairing, surface, scopes string
	var ssig, skem, hash []byte
	var issued, notAfter, revoked, lastUse int64
	err = row.Scan(&pairing, &surface, &s.Label, &scopes, &ssig, &skem, &s.Grant, &s.Serial, &issued, &notAfter,
		&revoked, &s.RevokedBy, &lastUse, &s.LastSeq, &hash, &s.Resync)
	if err != nil {
		return s, err
	}
	copy(s.Ssig[:], ssig)
	copy(s.Skem[:], skem)
	copy(s.LastHash[:], hash)
	s.Issued, s.NotAfter = fromMillis(issued), fromMillis(notAfter)
	s.Revoked, s.LastUse = fromMillis(revoked), fromMillis(lastUse)
	if s.Scopes, err = proof.ParseScopes(strings.Fields(scopes)); err != nil {
		return s, err
	}
	if s.Pairing, err = proof.ParsePairingID(pairing); err != nil {
		return s, err
	}
	s.ID, err = proof.ParseSurfaceID(surface)
	return s, err
}
