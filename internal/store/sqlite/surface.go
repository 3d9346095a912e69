package sqlite

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

const surfaceColumns = "pairing, id, ssig, label, scopes, serial, grant_, not_after, created, used, revoked, reason"

func scanSurface(r row) (s pairing.Surface, err error) {
	var scopes []byte
	err = r.Scan(fixed(s.Pairing[:]), fixed(s.ID[:]), fixed(s.Ssig[:]), &s.Label, &scopes, &s.Serial, &s.Grant,
		moment{&s.NotAfter}, moment{&s.Created}, moment{&s.Used}, moment{&s.Revoked}, &s.Reason)
	for _, b := range scopes {
		s.Scopes = append(s.Scopes, proof.Scope(b))
	}
	return s, known(err)
}

func scopeBytes(list proof.Scopes) []byte {
	b := make([]byte, len(list))
	for i, s := range list {
		b[i] = byte(s)
	}
	return b
}

func (t *tx) insertSurface(s pairing.Surface) error {
	return once(t.w.Exec("INSERT INTO surfaces ("+surfaceColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		s.Pairing[:], s.ID[:], s.Ssig[:], s.Label, scopeBytes(s.Scopes), s.Serial, blob(s.Grant), ms(s.NotAfter), ms(s.Created),
		ms(s.Used), ms(s.Revoked), s.Reason))
}

// Surface implements pairing.SurfaceStore.
func (s *Store) Surface(ctx context.Context, p proof.PairingID, id proof.SurfaceID) (one pairing.Surface, err error) {
	err = s.read(ctx, func(r reader) (err error) {
		one, err = r.surface(p, id)
		return err
	})
	return one, err
}

func (r reader) surface(p proof.PairingID, id proof.SurfaceID) (pairing.Surface, error) {
	return scanSurface(r.q.QueryRow("SELECT "+surfaceColumns+" FROM surfaces WHERE pairing = ? AND id = ?", p[:], id[:]))
}

// Surfaces implements pairing.SurfaceStore.
func (s *Store) Surfaces(ctx context.Context, p proof.PairingID) (all []pairing.Surface, err error) {
	err = s.read(ctx, func(r reader) (err error) {
		all, err = list(r.q, scanSurface, "SELECT "+surfaceColumns+" FROM surfaces WHERE pairing = ? ORDER BY created DESC, rowid DESC", p[:])
		return err
	})
	return all, err
}

// PutSurface implements pairing.SurfaceStore.
func (s *Store) PutSurface(ctx context.Context, one pairing.Surface, line wire.AuditLine) error {
	return s.write(ctx, func(t *tx) error {
		if _, err := t.surface(one.Pairing, one.ID); err != nil {
			return err
		}
		err := once(t.w.Exec("UPDATE surfaces SET serial = ?, scopes = ?, grant_ = ?, not_after = ?, label = ?"+
			" WHERE pairing = ? AND id = ? AND serial < ? AND revoked = 0",
			one.Serial, scopeBytes(one.Scopes), blob(one.Grant), ms(one.NotAfter), one.Label, one.Pairing[:], one.ID[:], one.Serial))
		if err != nil {
			return err
		}
		return t.notes(line)
	})
}

// RevokeSurface implements pairing.SurfaceStore. The surface's commands that wait are cancelled in the same
// transaction.
func (s *Store) RevokeSurface(ctx context.Context, p proof.PairingID, id proof.SurfaceID, reason string, now time.Time, line wire.AuditLine) error {
	err := s.write(ctx, func(t *tx) error {
		if err := t.revoke(p, id, reason, now); err != nil {
			return err
		}
		return mailbox.CloseSurface(t, p, id, audit.Commit(line), revoker(line), now)
	})
	s.waker.Wake(p)
	return err
}

func (t *tx) revoke(p proof.PairingID, id proof.SurfaceID, reason string, now time.Time) error {
	if _, err := t.surface(p, id); err != nil {
		return err
	}
	return once(t.w.Exec("UPDATE surfaces SET revoked = ?, reason = ? WHERE pairing = ? AND id = ? AND revoked = 0", ms(now), reason, p[:], id[:]))
}

// TouchSurface implements pairing.SurfaceStore.
func (s *Store) TouchSurface(ctx context.Context, p proof.PairingID, id proof.SurfaceID, now time.Time, line wire.AuditLine) error {
	return s.write(ctx, func(t *tx) error {
		err := once(t.w.Exec("UPDATE surfaces SET used = ? WHERE pairing = ? AND id = ? AND revoked = 0", ms(now), p[:], id[:]))
		if err != nil {
			return err
		}
		return t.notes(line)
	})
}

// NoteSurface implements pairing.SurfaceStore.
func (s *Store) NoteSurface(ctx context.Context, line wire.AuditLine) error {
	return s.write(ctx, func(t *tx) error { return t.notes(line) })
}
