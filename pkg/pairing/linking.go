package pairing

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// sessionSize is the value that only the claimer of a session knows: 128 bits.
const sessionSize = 16

// nameplates is how many there are: two digits.
const nameplates = 100

// Linking moves linking sessions at the broker (section 3). Every transition is stored, with its audit line, before
// the method returns, so that the caller may then send the next message. It is safe for concurrent use.
type Linking struct {
	Links  LinkStore
	Pepper Pepper
}

// Claimed is the outcome of a claim. When the claim was refused and thereby burned somebody's session, Burned is
// true and Link is that session: its desktop is to be told (reason second_claim or tries), the claimer is not.
type Claimed struct {
	Link    Link
	Session []byte // the claimer's, 16 bytes; only when the claim was taken
	Burned  bool
}

// Open takes message 1 of a desktop's owner. In code mode the session gets a nameplate.
func (s *Linking) Open(ctx context.Context, p Pairing, o proof.Open, now time.Time) (Link, error) {
	if p.State != Active {
		return Link{}, ErrForbidden
	}
	if err := o.Verify(p.Dsig); err != nil {
		return Link{}, malformed("the opening of a linking session does not verify")
	}
	l := Link{Pid: o.Pid, Pairing: p.ID, Mode: o.Mode, State: proof.LinkOpen, Opened: now, Expires: o.Ends(now)}
	if !l.Live(now) {
		return Link{}, malformed("the linking session has ended before it began; check the clocks")
	}
	if _, err := s.Sweep(ctx, now); err != nil {
		return Link{}, err
	}
	line := desktopOf(p).line("link.opened", now, p.ID, target("link", o.Pid.String()))
	if o.Mode == proof.ModeLink {
		l.Check = *o.AdmitDigest
		return l, s.Links.OpenLink(ctx, l, line)
	}
	l.Check = s.Pepper.linkMAC(o.Pid, o.Code)
	return s.openWithNameplate(ctx, l, line)
}

func (s *Linking) openWithNameplate(ctx context.Context, l Link, line wire.AuditLine) (Link, error) {
	for range retries {
		live, err := s.Links.OpenLinks(ctx)
		if err != nil {
			return Link{}, fmt.Errorf("reading linking sessions: %w", err)
		}
		taken := make(map[string]bool, len(live))
		for _, other := range live {
			if other.Pairing == l.Pairing {
				return Link{}, ErrConflict
			}
			taken[other.Nameplate] = true
		}
		if l.Nameplate = freeNameplate(taken); l.Nameplate == "" {
			return Link{}, ErrLimited
		}
		err = s.Links.OpenLink(ctx, l, line)
		if !errors.Is(err, ErrConflict) {
			return l, err
		}
	}
	return Link{}, ErrConflict
}

// freeNameplate starts at a random one and takes the first that is free; "" when none is.
func freeNameplate(taken map[string]bool) string {
	var b [1]byte
	rand.Read(b[:])
	for i := range nameplates {
		if n := fmt.Sprintf("%02d", (int(b[0])+i)%nameplates); !taken[n] {
			return n
		}
	}
	return ""
}

// Claim takes message 2. There is one claim per session, ever: a second one, right or wrong, is answered like an
// unknown code and burns the session. Whatever is wrong gives ErrBadCode.
func (s *Linking) Claim(ctx context.Context, c proof.Claim, by Origin, now time.Time) (Claimed, error) {
	if c.IsBare() {
		return Claimed{}, malformed("a claim needs a link's or a code's parts")
	}
	for range retries {
		got, err := s.tryClaim(ctx, c, by, now)
		if !errors.Is(err, ErrConflict) {
			return got, err
		}
	}
	return Claimed{}, ErrBadCode
}

func (s *Linking) tryClaim(ctx context.Context, c proof.Claim, by Origin, now time.Time) (Claimed, error) {
	l, err := s.find(ctx, c)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Claimed{}, fmt.Errorf("reading a linking session: %w", err)
	}
	right := s.admits(c, l) && err == nil
	switch {
	case err != nil || !l.Live(now):
		return s.refuseClaim(ctx, Link{}, by, now)
	case l.State != proof.LinkOpen:
		return s.secondClaim(ctx, l, right, by, now)
	case !right:
		return s.refuseClaim(ctx, l, by, now)
	}
	return s.firstClaim(ctx, l, by, now)
}

func (s *Linking) find(ctx context.Context, c proof.Claim) (Link, error) {
	if c.Mode == proof.ModeLink {
		return s.Links.Link(ctx, *c.Pid)
	}
	return s.Links.LinkByNameplate(ctx, c.Nameplate)
}

// admits compares in constant time, and does the same work for a session that is not there.
func (s *Linking) admits(c proof.Claim, l Link) bool {
	if c.Mode == proof.ModeLink {
		return proof.SameAdmit(*c.Admit, l.Check) && l.Mode == c.Mode
	}
	return s.Pepper.linkMAC(l.Pid, c.Code).Equal(l.Check) && l.Mode == c.Mode
}

func (s *Linking) firstClaim(ctx context.Context, l Link, by Origin, now time.Time) (Claimed, error) {
	session := make([]byte, sessionSize)
	rand.Read(session)
	tries, from := l.Tries, l.State
	l.State, _ = NextLink(l.State, EventClaim)
	l.Session, l.Network, l.Agent = sha256.Sum256(session), by.IP, by.UA
	err := s.Links.MoveLink(ctx, from, tries, l, nil, proof.SurfaceID{}, now, by.line("link.claimed", now, l.Pairing, linkTarget(l)))
	if err != nil {
		return Claimed{}, err
	}
	return Claimed{Link: l, Session: session}, nil
}

func (s *Linking) refuseClaim(ctx context.Context, l Link, by Origin, now time.Time) (Claimed, error) {
	name := ""
	if !l.Pid.IsZero() {
		name = l.Pid.String()
	}
	line := refused(by.line("code.refused", now, l.Pairing, target("link", name)), "wrong")
	burned := refused(by.line("link.burned", now, l.Pairing, target("link", name)), "tries")
	burnt, err := s.Links.RefuseClaim(ctx, l.Pid, now, line, burned)
	if err != nil {
		return Claimed{}, fmt.Errorf("refusing a claim: %w", err)
	}
	if burnt {
		l.State, l.Reason = proof.LinkBurned, "tries"
	}
	return Claimed{Link: l, Burned: burnt}, ErrBadCode
}

func (s *Linking) secondClaim(ctx context.Context, l Link, right bool, by Origin, now time.Time) (Claimed, error) {
	event := EventWrongClaim
	if right {
		event = EventClaim
	}
	second := refused(by.line("link.second_claim", now, l.Pairing, linkTarget(l)), event.String())
	burned, err := s.moveTo(ctx, l, event, "second_claim", by, now, second)
	if err != nil {
		return Claimed{}, err
	}
	return Claimed{Link: burned, Burned: true}, ErrBadCode
}

// Offer keeps message 3 for the claimer. A desktop sends one.
func (s *Linking) Offer(ctx context.Context, pairing proof.PairingID, raw json.RawMessage, now time.Time) (Link, error) {
	o, err := proof.ParseMessage[proof.Offer](raw)
	if err != nil {
		return Link{}, malformed("this is not an offer")
	}
	l, err := s.ofPairing(ctx, pairing, o.Pid, now)
	if err != nil {
		return Link{}, err
	}
	if bytes.Equal(l.Offer, raw) {
		return l, nil
	}
	if _, ok := NextLink(l.State, EventOffer); !ok || l.Offer != nil {
		return Link{}, ErrConflict
	}
	l.Offer = raw
	return l, s.Links.MoveLink(ctx, l.State, l.Tries, l, nil, proof.SurfaceID{}, now)
}

// Reveal keeps message 4 for the desktop. A claimer sends one, after it got the offer.
func (s *Linking) Reveal(ctx context.Context, session []byte, raw json.RawMessage, by Origin, now time.Time) (Link, error) {
	r, err := proof.ParseMessage[proof.Reveal](raw)
	if err != nil {
		return Link{}, malformed("this is not a reveal")
	}
	if _, err := proof.ParseSurfaceCard(r.BundleS); err != nil {
		return Link{}, malformed("what the surface says of itself is not well formed")
	}
	l, err := s.ofSession(ctx, session, now)
	if err != nil {
		return Link{}, err
	}
	if l.Pid != r.Pid {
		return Link{}, ErrNotFound
	}
	to, ok := NextLink(l.State, EventReveal)
	if !ok || l.Offer == nil {
		return Link{}, ErrConflict
	}
	from := l.State
	l.State, l.Reveal = to, raw
	line := by.line("link.revealed", now, l.Pairing, linkTarget(l))
	return l, s.Links.MoveLink(ctx, from, l.Tries, l, nil, proof.SurfaceID{}, now, line)
}

// Grant keeps message 6 for the claimer and takes the signed grant in clear: it must verify under the pairing's key
// and name the keys that the claimer revealed. From here the surface is known; it is revoked again unless the claimer
// finishes in time.
func (s *Linking) Grant(ctx context.Context, p Pairing, raw json.RawMessage, signed []byte, now time.Time) (Link, Surface, error) {
	m, err := proof.ParseMessage[proof.GrantMsg](raw)
	if err != nil {
		return Link{}, Surface{}, malformed("this is not a grant message")
	}
	l, err := s.ofPairing(ctx, p.ID, m.Pid, now)
	if err != nil {
		return Link{}, Surface{}, err
	}
	to, ok := NextLink(l.State, EventGrant)
	if !ok {
		return Link{}, Surface{}, ErrConflict
	}
	surface, transcript, err := surfaceOfLink(p, l, signed, now)
	if err != nil {
		return Link{}, Surface{}, err
	}
	from := l.State
	l.State, l.Grant, l.Surface, l.Transcript = to, raw, surface.ID, transcript
	by := desktopOf(p)
	err = s.Links.MoveLink(ctx, from, l.Tries, l, &surface, proof.SurfaceID{}, now,
		by.line("link.confirmed", now, p.ID, linkTarget(l)),
		by.line("surface.linked", now, p.ID, target("surface", surface.ID.String())))
	return l, surface, err
}

func surfaceOfLink(p Pairing, l Link, signed []byte, now time.Time) (Surface, proof.Digest, error) {
	var none proof.Digest
	g, err := proof.OpenGrant(p.Dsig, signed)
	if err != nil {
		return Surface{}, none, malformed("the grant does not verify")
	}
	card, err := revealed(l)
	if err != nil {
		return Surface{}, none, err
	}
	if card.Ssig != g.Ssig || card.Skem != g.Skem {
		return Surface{}, none, malformed("the grant is for other keys than were revealed")
	}
	return SurfaceFrom(g, signed, card.Label, now), g.Transcript, nil
}

// revealed reads what the claimer said of itself out of a stored reveal.
func revealed(l Link) (proof.SurfaceCard, error) {
	r, err := proof.ParseMessage[proof.Reveal](l.Reveal)
	if err != nil {
		return proof.SurfaceCard{}, fmt.Errorf("reading a stored reveal: %w", err)
	}
	return proof.ParseSurfaceCard(r.BundleS)
}

// Finish takes the claimer's last message, which must verify under the surface's key: it took the grant.
func (s *Linking) Finish(ctx context.Context, p Pairing, session []byte, raw json.RawMessage, by Origin, now time.Time) (Link, error) {
	f, err := proof.ParseMessage[proof.Finish](raw)
	if err != nil {
		return Link{}, malformed("this is not a finish")
	}
	l, err := s.ofSession(ctx, session, now)
	if err != nil {
		return Link{}, err
	}
	if l.State != proof.LinkConfirmed || l.Pid != f.Pid || l.Pairing != p.ID {
		return Link{}, ErrConflict
	}
	if err := s.verifyFinish(p, l, f); err != nil {
		return Link{}, err
	}
	return s.moveTo(ctx, l, EventTook, "", by, now)
}
