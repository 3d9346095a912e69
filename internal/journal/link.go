package journal

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/proof"
)

// LinkSession is one linking session at the desktop. Its secrets live in memory only, so a session does not outlive
// the agent; the row is what it came to.
type LinkSession struct {
	Pairing proof.PairingID
	Pid     proof.LinkID
	Mode    string // link or code
	State   string // open, claimed, revealed, confirmed, done, burned, expired, cancelled
	Decide  bool   // the owner answered yes to the question
	Label   string // of the surface, once it is known
	Network string // where the claim came from, as the broker says
	Opened  time.Time
	Expires time.Time
	Reason  string // of an end
}

// OpenLink adds a session in the state it carries.
func OpenLink(s LinkSession) Change {
	return func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`INSERT INTO link_session (pairing, pid, mode, state, decide, label, network, opened, expires, reason)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, s.Pairing.String(), s.Pid[:], s.Mode, s.State, s.Decide, s.Label, s.Network,
			millis(s.Opened), millis(s.Expires), s.Reason)
		return err
	}
}

// MoveLink stores a transition: the row must be in state from (else ErrState) and becomes s.
func MoveLink(s LinkSession, from string) Change {
	return func(tx *sqlitedb.Tx) error {
		return must(tx.Exec(`UPDATE link_session SET state = ?, label = ?, network = ?, reason = ? WHERE pairing = ? AND pid = ? AND state = ?`,
			s.State, s.Label, s.Network, s.Reason, s.Pairing.String(), s.Pid[:], from))
	}
}

const linkColumns = `SELECT pairing, pid, mode, state, decide, label, network, opened, expires, reason FROM link_session`

// LinkSession returns one session, or ErrState.
func (j *Journal) LinkSession(ctx context.Context, pairing proof.PairingID, pid proof.LinkID) (LinkSession, error) {
	return one(ctx, j, scanLink, linkColumns+` WHERE pairing = ? AND pid = ?`, pairing.String(), pid[:])
}

// LiveLinks returns the sessions that have not ended: after a start, those which an earlier agent left behind.
func (j *Journal) LiveLinks(ctx context.Context, pairing proof.PairingID) ([]LinkSession, error) {
	return list(ctx, j, scanLink, linkColumns+` WHERE pairing = ? AND state IN ('open', 'claimed', 'revealed', 'confirmed')
		ORDER BY opened`, pairing.String())
}

// LinksSince counts the sessions opened after a time, for the desktop's own cap on sessions a day.
func (j *Journal) LinksSince(ctx context.Context, pairing proof.PairingID, since time.Time) (int, error) {
	return one(ctx, j, scanValue[int], `SELECT count(*) FROM link_session WHERE pairing = ? AND opened > ?`,
		pairing.String(), millis(since))
}

func scanLink(row scanner) (s LinkSession, err error) {
	var pairing string
	var pid []byte
	var opened, expires int64
	err = row.Scan(&pairing, &pid, &s.Mode, &s.State, &s.Decide, &s.Label, &s.Network, &opened, &expires, &s.Reason)
	if err != nil {
		return s, err
	}
	copy(s.Pid[:], pid)
	s.Opened, s.Expires = fromMillis(opened), fromMillis(expires)
	s.Pairing, err = proof.ParsePairingID(pairing)
	return s, err
}
