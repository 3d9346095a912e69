package sqlite

import (
	"context"
	"errors"
	"time"

	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

const codeColumns = "id, selector, mac, note, tries, created, expires, used, burned, revoked, pairing, request"

// codeOpen is pairing.CodeRecord.State's "open" at the time of the parameter.
const codeOpen = "used = 0 AND burned = 0 AND revoked = 0 AND expires > ?"

func scanCode(r row) (c pairing.CodeRecord, err error) {
	err = r.Scan(&c.ID, &c.Selector, fixed(c.MAC[:]), &c.Note, &c.Tries, moment{&c.Created}, moment{&c.Expires}, moment{&c.Used},
		moment{&c.Burned}, moment{&c.Revoked}, fixed(c.Pairing[:]), fixed(c.Request[:]))
	return c, known(err)
}

// known turns "no rows" into pkg/pairing's error.
func known(err error) error {
	if absent(err) {
		return pairing.ErrNotFound
	}
	return err
}

// unique turns a second row of the same key into a conflict.
func unique(err error) error {
	if errors.Is(err, sqlitedb.ErrUnique) {
		return pairing.ErrConflict
	}
	return err
}

// once demands that exactly one row was as the method wants it.
func once(n int64, err error) error {
	if err == nil && n == 0 {
		return pairing.ErrConflict
	}
	return unique(err)
}

// IssueCode implements pairing.CodeStore.
func (s *Store) IssueCode(ctx context.Context, c pairing.CodeRecord, line wire.AuditLine) error {
	return s.write(ctx, func(t *tx) error {
		err := once(t.w.Exec("INSERT INTO codes ("+codeColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			c.ID, c.Selector, c.MAC[:], c.Note, c.Tries, ms(c.Created), ms(c.Expires), ms(c.Used), ms(c.Burned), ms(c.Revoked),
			c.Pairing[:], c.Request[:]))
		if err != nil {
			return err
		}
		return t.notes(line)
	})
}

// CodeBySelector implements pairing.CodeStore.
func (s *Store) CodeBySelector(ctx context.Context, selector string) (c pairing.CodeRecord, err error) {
	err = s.read(ctx, func(r reader) (err error) {
		c, err = scanCode(r.q.QueryRow("SELECT "+codeColumns+" FROM codes WHERE selector = ?", selector))
		return err
	})
	return c, err
}

// Codes implements pairing.CodeStore.
func (s *Store) Codes(ctx context.Context) (all []pairing.CodeRecord, err error) {
	err = s.read(ctx, func(r reader) (err error) {
		all, err = list(r.q, scanCode, "SELECT "+codeColumns+" FROM codes ORDER BY created DESC, rowid DESC")
		return err
	})
	return all, err
}

// RevokeCode implements pairing.CodeStore.
func (s *Store) RevokeCode(ctx context.Context, id string, now time.Time, line wire.AuditLine) error {
	return s.write(ctx, func(t *tx) error {
		if err := once(t.w.Exec("UPDATE codes SET revoked = ? WHERE id = ? AND "+codeOpen, ms(now), id, ms(now))); err != nil {
			return err
		}
		return t.notes(line)
	})
}

// RefuseCode implements pairing.CodeStore.
func (s *Store) RefuseCode(ctx context.Context, id string, now time.Time, refused, burned wire.AuditLine) error {
	return s.write(ctx, func(t *tx) error {
		n, err := t.w.Exec("UPDATE codes SET tries = tries + 1 WHERE id = ? AND tries < ? AND "+codeOpen, id, pairing.MaxTries, ms(now))
		if err != nil {
			return err
		}
		if err := t.notes(refused); err != nil {
			return err
		}
		n, err = t.w.Exec("UPDATE codes SET burned = ? WHERE id = ? AND tries >= ? AND ? > 0 AND "+codeOpen, ms(now), id, pairing.MaxTries, n, ms(now))
		if err != nil || n == 0 {
			return err
		}
		return t.notes(burned)
	})
}

// RedeemCode implements pairing.CodeStore.
func (s *Store) RedeemCode(ctx context.Context, id string, request proof.Digest, p pairing.Pairing, now time.Time, lines ...wire.AuditLine) error {
	return s.write(ctx, func(t *tx) error {
		err := once(t.w.Exec("UPDATE codes SET used = ?, pairing = ?, request = ? WHERE id = ? AND "+codeOpen, ms(now), p.ID[:], request[:], id, ms(now)))
		if err != nil {
			return err
		}
		if err := t.insertPairing(p); err != nil {
			return err
		}
		return t.notes(lines...)
	})
}
