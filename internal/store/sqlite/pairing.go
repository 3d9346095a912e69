package sqlite

import (
	"context"
	"encoding/json"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

const pairingColumns = "id, dsig, host, state, reason, sealed, executor, versions, kinds, bundle, bundle_no, created, seen"

func scanPairing(r row) (p pairing.Pairing, err error) {
	var versions, kinds []byte
	err = r.Scan(fixed(p.ID[:]), fixed(p.Dsig[:]), &p.Host, &p.State, &p.Reason, &p.Sealed, &p.Executor, &versions, &kinds,
		&p.Bundle, &p.BundleNo, moment{&p.Created}, moment{&p.Seen})
	if err != nil {
		return p, known(err)
	}
	p.Versions = versions
	return p, json.Unmarshal(kinds, &p.Kinds)
}

func (t *tx) insertPairing(p pairing.Pairing) error {
	kinds, err := json.Marshal(p.Kinds)
	if err != nil {
		return err
	}
	return once(t.w.Exec("INSERT INTO pairings ("+pairingColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		p.ID[:], p.Dsig[:], p.Host, byte(p.State), p.Reason, p.Sealed, p.Executor, blob(p.Versions), string(kinds),
		blob(p.Bundle), p.BundleNo, ms(p.Created), ms(p.Seen)))
}

// Pairing implements pairing.PairingStore.
func (s *Store) Pairing(ctx context.Context, id proof.PairingID) (p pairing.Pairing, err error) {
	err = s.read(ctx, func(r reader) (err error) {
		p, err = scanPairing(r.q.QueryRow("SELECT "+pairingColumns+" FROM pairings WHERE id = ?", id[:]))
		return err
	})
	return p, err
}

// Pairings implements pairing.PairingStore.
func (s *Store) Pairings(ctx context.Context) (all []pairing.Pairing, err error) {
	err = s.read(ctx, func(r reader) (err error) {
		all, err = list(r.q, scanPairing, "SELECT "+pairingColumns+" FROM pairings ORDER BY created DESC, rowid DESC")
		return err
	})
	return all, err
}

// MovePairing implements pairing.PairingStore. The end of a pairing also closes its mailbox: what waits is cancelled
// in the same transaction.
func (s *Store) MovePairing(ctx context.Context, id proof.PairingID, from, to pairing.State, reason string, now time.Time, line wire.AuditLine) error {
	err := s.write(ctx, func(t *tx) error {
		err := once(t.w.Exec("UPDATE pairings SET state = ?, reason = ? WHERE id = ? AND state = ?", byte(to), reason, id[:], byte(from)))
		if err != nil {
			return err
		}
		if to != pairing.Ended {
			return t.notes(line)
		}
		entry := audit.Commit(line)
		return mailbox.ClosePairing(t, id, entry, revoker(line), now)
	})
	s.waker.Wake(id)
	return err
}

// revoker is who a cancelled command's line names: whoever revoked, without what the revocation's own line says about
// the network.
func revoker(l wire.AuditLine) mailbox.By {
	return mailbox.By{Actor: audit.Actor{Kind: l.Actor.Kind, ID: l.Actor.ID, Key: l.Actor.Key}}
}

// PutBundle implements pairing.PairingStore.
func (s *Store) PutBundle(ctx context.Context, id proof.PairingID, number uint64, signed []byte, line wire.AuditLine) error {
	return s.write(ctx, func(t *tx) error {
		err := once(t.w.Exec("UPDATE pairings SET bundle = ?, bundle_no = ? WHERE id = ? AND bundle_no < ?", blob(signed), number, id[:], number))
		if err != nil {
			return err
		}
		return t.notes(line)
	})
}

// SeePairing implements pairing.PairingStore.
func (s *Store) SeePairing(ctx context.Context, id proof.PairingID, executor string, kinds []string, now time.Time) error {
	list, err := json.Marshal(kinds)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		n, err := t.w.Exec("UPDATE pairings SET executor = ?, kinds = ?, seen = ? WHERE id = ?", executor, string(list), ms(now), id[:])
		if err == nil && n == 0 {
			return pairing.ErrNotFound
		}
		return err
	})
}
