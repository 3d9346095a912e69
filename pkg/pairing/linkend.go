package pairing

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Poll returns the session of a claimer, expired when its time is over.
func (s *Linking) Poll(ctx context.Context, session []byte, now time.Time) (Link, error) {
	l, err := s.Links.LinkBySession(ctx, sha256.Sum256(session))
	if err != nil {
		return Link{}, err
	}
	if !l.State.Final() && !l.Live(now) {
		return s.moveTo(ctx, l, EventExpire, "expired", brokerItself, now)
	}
	return l, nil
}

// CancelBySurface ends the session of a claimer who gave up.
func (s *Linking) CancelBySurface(ctx context.Context, session []byte, by Origin, now time.Time) (Link, error) {
	l, err := s.ofSession(ctx, session, now)
	if err != nil {
		return Link{}, err
	}
	return s.moveTo(ctx, l, EventCancel, "cancelled", by, now)
}

// EndByDesktop burns (a check failed at the desktop) or cancels (its owner gave up) a session. A session that is over
// already stays as it is, and is no error: both ends may have seen the end.
func (s *Linking) EndByDesktop(ctx context.Context, p Pairing, pid proof.LinkID, event LinkEvent, reason string, now time.Time) (Link, error) {
	if event != EventBurn && event != EventCancel {
		return Link{}, ErrMalformed
	}
	l, err := s.Links.Link(ctx, pid)
	if err != nil {
		return Link{}, err
	}
	if l.Pairing != p.ID {
		return Link{}, ErrNotFound
	}
	if l.State.Final() {
		return l, nil
	}
	return s.moveTo(ctx, l, event, reason, desktopOf(p), now)
}

// Sweep expires every session whose time is over and returns them: their desktops are to be told.
func (s *Linking) Sweep(ctx context.Context, now time.Time) ([]Link, error) {
	open, err := s.Links.OpenLinks(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading linking sessions: %w", err)
	}
	var ended []Link
	for _, l := range open {
		if l.Live(now) {
			continue
		}
		l, err := s.moveTo(ctx, l, EventExpire, "expired", brokerItself, now)
		if errors.Is(err, ErrConflict) {
			continue // it moved meanwhile; the next sweep sees
		}
		if err != nil {
			return ended, err
		}
		ended = append(ended, l)
	}
	return ended, nil
}

var brokerItself = Origin{Kind: "broker"}

// endLines names the audit line of each final state.
var endLines = map[proof.LinkState]string{
	proof.LinkDone:      "link.done",
	proof.LinkBurned:    "link.burned",
	proof.LinkExpired:   "link.expired",
	proof.LinkCancelled: "link.cancelled",
}

// moveTo ends a session by event. A surface that was granted and not taken is revoked in the same transaction.
func (s *Linking) moveTo(ctx context.Context, l Link, event LinkEvent, reason string, by Origin, now time.Time, before ...wire.AuditLine) (Link, error) {
	to, ok := NextLink(l.State, event)
	if !ok {
		return Link{}, ErrConflict
	}
	from, revoke := l.State, proof.SurfaceID{}
	l.State, l.Reason = to, reason
	line := by.line(endLines[to], now, l.Pairing, linkTarget(l))
	line.Reason = reason
	lines := append(before, line)
	if to != proof.LinkDone && !l.Surface.IsZero() {
		revoke = l.Surface
		gone := by.line("surface.revoked", now, l.Pairing, target("surface", revoke.String()))
		gone.Reason = "link_" + to.String()
		lines = append(lines, gone)
	}
	if err := s.Links.MoveLink(ctx, from, l.Tries, l, nil, revoke, now, lines...); err != nil {
		return Link{}, err
	}
	return l, nil
}

// verifyFinish checks a finish under the key and the transcript of the grant that is stored for the surface.
func (s *Linking) verifyFinish(p Pairing, l Link, f proof.Finish) error {
	card, err := revealed(l)
	if err != nil {
		return err
	}
	if proof.SurfaceOf(p.ID, card.Ssig, card.Skem) != l.Surface || f.Verify(card.Ssig, l.Transcript) != nil {
		return malformed("the finish does not verify")
	}
	return nil
}

// ofPairing returns a live session of a desktop.
func (s *Linking) ofPairing(ctx context.Context, pairing proof.PairingID, pid proof.LinkID, now time.Time) (Link, error) {
	l, err := s.Links.Link(ctx, pid)
	if err != nil {
		return Link{}, err
	}
	if l.Pairing != pairing {
		return Link{}, ErrNotFound
	}
	return l, ended(l, now)
}

// ofSession returns the live session of a claimer.
func (s *Linking) ofSession(ctx context.Context, session []byte, now time.Time) (Link, error) {
	if len(session) != sessionSize {
		return Link{}, ErrNotFound
	}
	l, err := s.Links.LinkBySession(ctx, sha256.Sum256(session))
	if err != nil {
		return Link{}, err
	}
	return l, ended(l, now)
}

func ended(l Link, now time.Time) error {
	if !l.Live(now) {
		return ErrConflict
	}
	return nil
}

func linkTarget(l Link) wire.AuditTarget { return target("link", l.Pid.String()) }

// LinksLeft is the desktop's own cap: how many of proof.MaxLinksPerDay sessions it may still open, given when it
// opened the ones before.
func LinksLeft(opened []time.Time, now time.Time) int {
	left := proof.MaxLinksPerDay
	for _, t := range opened {
		if now.Sub(t) < 24*time.Hour {
			left--
		}
	}
	return max(left, 0)
}
