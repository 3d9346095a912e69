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

const linkColumns = "pid, pairing, mode, nameplate, check_, state, final, reason, tries, opened, expires, session, network, agent," +
	" offer, reveal, grant_, surface, transcript"

func scanLink(r row) (l pairing.Link, err error) {
	var final bool
	var offer, reveal, grant []byte
	err = r.Scan(fixed(l.Pid[:]), fixed(l.Pairing[:]), &l.Mode, &l.Nameplate, fixed(l.Check[:]), &l.State, &final, &l.Reason,
		&l.Tries, moment{&l.Opened}, moment{&l.Expires}, fixed(l.Session[:]), &l.Network, &l.Agent, &offer, &reveal, &grant,
		fixed(l.Surface[:]), fixed(l.Transcript[:]))
	l.Offer, l.Reveal, l.Grant = raw(offer), raw(reveal), raw(grant)
	return l, known(err)
}

// raw gives an absent message back as it was given.
func raw(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

func linkArgs(l pairing.Link) []any {
	return []any{
		l.Pid[:], l.Pairing[:], byte(l.Mode), l.Nameplate, l.Check[:], byte(l.State), l.State.Final(), l.Reason, l.Tries,
		ms(l.Opened), ms(l.Expires), l.Session[:], l.Network, l.Agent, blob(l.Offer), blob(l.Reveal), blob(l.Grant),
		l.Surface[:], l.Transcript[:],
	}
}

// OpenLink implements pairing.LinkStore.
func (s *Store) OpenLink(ctx context.Context, l pairing.Link, line wire.AuditLine) error {
	return s.write(ctx, func(t *tx) error {
		err := once(t.w.Exec("INSERT INTO links ("+linkColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", linkArgs(l)...))
		if err != nil {
			return err
		}
		return t.notes(line)
	})
}

func (s *Store) link(ctx context.Context, where string, arg any) (l pairing.Link, err error) {
	err = s.read(ctx, func(r reader) (err error) {
		l, err = scanLink(r.q.QueryRow("SELECT "+linkColumns+" FROM links WHERE "+where, arg))
		return err
	})
	return l, err
}

// Link implements pairing.LinkStore.
func (s *Store) Link(ctx context.Context, pid proof.LinkID) (pairing.Link, error) {
	return s.link(ctx, "pid = ?", pid[:])
}

// LinkByNameplate implements pairing.LinkStore.
func (s *Store) LinkByNameplate(ctx context.Context, nameplate string) (pairing.Link, error) {
	return s.link(ctx, "final = 0 AND nameplate <> '' AND nameplate = ?", nameplate)
}

// LinkBySession implements pairing.LinkStore.
func (s *Store) LinkBySession(ctx context.Context, session proof.Digest) (pairing.Link, error) {
	if session.IsZero() {
		return pairing.Link{}, pairing.ErrNotFound // the value of every session that nobody has claimed
	}
	return s.link(ctx, "session = ?", session[:])
}

// OpenLinks implements pairing.LinkStore.
func (s *Store) OpenLinks(ctx context.Context) (all []pairing.Link, err error) {
	err = s.read(ctx, func(r reader) (err error) {
		all, err = list(r.q, scanLink, "SELECT "+linkColumns+" FROM links WHERE final = 0 ORDER BY opened, rowid")
		return err
	})
	return all, err
}

// MoveLink implements pairing.LinkStore.
func (s *Store) MoveLink(ctx context.Context, from proof.LinkState, tries int, l pairing.Link, put *pairing.Surface, revoke proof.SurfaceID, now time.Time, lines ...wire.AuditLine) error {
	err := s.write(ctx, func(t *tx) error {
		if err := t.moveLink(from, tries, l); err != nil {
			return err
		}
		if put != nil {
			if err := t.insertSurface(*put); err != nil {
				return err
			}
		}
		if revoke.IsZero() {
			return t.notes(lines...)
		}
		return t.undoLink(l, revoke, now, lines)
	})
	s.waker.Wake(l.Pairing)
	return err
}

func (t *tx) moveLink(from proof.LinkState, tries int, l pairing.Link) error {
	args := append(linkArgs(l)[1:], l.Pid[:], byte(from), tries)
	return once(t.w.Exec("UPDATE links SET pairing = ?, mode = ?, nameplate = ?, check_ = ?, state = ?, final = ?, reason = ?, tries = ?,"+
		" opened = ?, expires = ?, session = ?, network = ?, agent = ?, offer = ?, reveal = ?, grant_ = ?, surface = ?, transcript = ?"+
		" WHERE pid = ? AND state = ? AND tries = ?", args...))
}

// undoLink revokes the surface of a session that ended badly. The last line is the revocation's.
func (t *tx) undoLink(l pairing.Link, revoke proof.SurfaceID, now time.Time, lines []wire.AuditLine) error {
	if len(lines) == 0 {
		return pairing.ErrConflict
	}
	last := len(lines) - 1
	if err := t.notes(lines[:last]...); err != nil {
		return err
	}
	if err := t.revoke(l.Pairing, revoke, l.Reason, now); err != nil {
		return err
	}
	return mailbox.CloseSurface(t, l.Pairing, revoke, audit.Commit(lines[last]), revoker(lines[last]), now)
}

// RefuseClaim implements pairing.LinkStore.
func (s *Store) RefuseClaim(ctx context.Context, pid proof.LinkID, now time.Time, refused, burned wire.AuditLine) (burnt bool, err error) {
	err = s.write(ctx, func(t *tx) error {
		n, err := t.w.Exec("UPDATE links SET tries = tries + 1 WHERE pid = ? AND state = ? AND expires > ? AND tries < ?",
			pid[:], byte(proof.LinkOpen), ms(now), proof.MaxCodeTries)
		if err != nil {
			return err
		}
		if err := t.notes(refused); err != nil {
			return err
		}
		n, err = t.w.Exec("UPDATE links SET state = ?, final = 1, reason = 'tries' WHERE pid = ? AND state = ? AND tries >= ? AND ? > 0",
			byte(proof.LinkBurned), pid[:], byte(proof.LinkOpen), proof.MaxCodeTries, n)
		if burnt = err == nil && n > 0; !burnt {
			return err
		}
		return t.notes(burned)
	})
	return burnt && err == nil, err
}
