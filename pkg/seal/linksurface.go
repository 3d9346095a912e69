package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

// SurfaceLink is one linking session at the surface, with keys made for it. Whatever goes wrong ends it and erases
// the keys. It prints as dots and is safe for concurrent use.
type SurfaceLink struct {
	hidden
	mode      proof.Mode
	origin    string // of the broker
	pid       proof.LinkID
	secret    LinkSecret
	nameplate string
	letters   proof.Letters
	card      []byte // bundleS
	nonce     [proof.LinkNonceSize]byte
	expires   time.Time

	mu      sync.Mutex
	keys    *Surface // nil after a failure
	state   proof.LinkState
	t       proof.Digest
	desktop proof.DesktopCard
	grant   proof.Grant
	signed  []byte
}

// JoinLink begins a session from a link. origin is the broker's; empty means the origin in the link.
func JoinLink(text, origin, label string, scope proof.Scope, now time.Time) (*SurfaceLink, error) {
	page, pid, secret, err := ParseLink(text)
	if err != nil {
		return nil, err
	}
	if origin == "" {
		origin = page
	}
	return join(&SurfaceLink{mode: proof.ModeLink, origin: origin, pid: pid, secret: secret}, label, scope, now)
}

// JoinCode begins a session from a typed code at the broker of this origin.
func JoinCode(text, origin, label string, scope proof.Scope, now time.Time) (*SurfaceLink, error) {
	nameplate, letters, err := ParseCode(text)
	if err != nil {
		return nil, err
	}
	return join(&SurfaceLink{mode: proof.ModeCode, origin: origin, nameplate: nameplate, letters: letters}, label, scope, now)
}

func join(l *SurfaceLink, label string, scope proof.Scope, now time.Time) (*SurfaceLink, error) {
	keys, err := NewSurface()
	if err != nil {
		return nil, err
	}
	l.keys, l.state, l.expires = keys, proof.LinkOpen, now.Add(proof.LinkLife)
	rand.Read(l.nonce[:]) // never fails
	l.card = proof.SurfaceCard{
		Ssig: keys.Ssig(), Skem: keys.Skem(), Label: label, Scope: scope, Versions: proof.OwnVersions(),
	}.Encode()
	if _, err := proof.ParseSurfaceCard(l.card); err != nil {
		return nil, fmt.Errorf("what this surface says of itself: %w", err)
	}
	return l, nil
}

// Origin returns the broker's origin.
func (l *SurfaceLink) Origin() string { return l.origin }

// State returns where the session stands.
func (l *SurfaceLink) State() proof.LinkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// move asks the table; the caller holds mu. Every end but done erases the keys.
func (l *SurfaceLink) move(event SurfaceEvent) error {
	to, ok := NextSurface(l.state, event)
	if !ok {
		if l.state.Final() {
			return fmt.Errorf("%w: %s", ErrOver, l.state)
		}
		return ErrState
	}
	l.state = to
	if to.Final() && to != proof.LinkDone {
		l.erase()
		return fmt.Errorf("%w: %s", ErrNotLinked, to)
	}
	return nil
}

func (l *SurfaceLink) erase() {
	if l.keys != nil {
		clear(l.keys.sign)
		clear(l.keys.priv[:])
	}
	l.keys, l.secret, l.letters = nil, LinkSecret{}, ""
}

func (l *SurfaceLink) alive(now time.Time) error {
	if !l.state.Final() && !now.Before(l.expires) {
		return l.move(SExpire)
	}
	if l.state.Final() {
		return fmt.Errorf("%w: %s", ErrOver, l.state)
	}
	return nil
}

// Claim gives message 2. It is made once, after the tap, and never repeated.
func (l *SurfaceLink) Claim(now time.Time) (proof.Claim, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(now); err != nil {
		return proof.Claim{}, err
	}
	if err := l.move(SClaim); err != nil {
		return proof.Claim{}, err
	}
	c := proof.Claim{Mode: l.mode, Commit: proof.Commit(l.card, l.nonce[:])}
	if l.mode == proof.ModeLink {
		pid, admit := l.pid, l.secret.Admit()
		c.Pid, c.Admit = &pid, &admit
		return c, nil
	}
	c.Nameplate, c.Code = l.nameplate, l.letters
	return c, nil
}

// Shown is what the person at the surface sees while the digits are typed into the desktop.
type Shown struct {
	Digits  string
	Desktop proof.DesktopCard
}

// Offer takes message 3 and gives message 4. A surface takes one offer.
func (l *SurfaceLink) Offer(o proof.Offer, now time.Time) (proof.Reveal, Shown, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(now); err != nil {
		return proof.Reveal{}, Shown{}, err
	}
	if l.state == proof.LinkOpen {
		return proof.Reveal{}, Shown{}, ErrState
	}
	card, err := l.checkOffer(o, now)
	if err != nil {
		return proof.Reveal{}, Shown{}, fmt.Errorf("%w: %w", l.move(SBadOffer), err)
	}
	if err := l.move(SOffer); err != nil {
		return proof.Reveal{}, Shown{}, err
	}
	l.pid, l.desktop = o.Pid, card
	l.t = proof.Transcript{
		Mode: l.mode, Pid: l.pid, VersionsD: card.Versions, VersionsS: proof.OwnVersions(), Origin: l.origin,
		Commit:  proof.Commit(l.card, l.nonce[:]),
		BundleD: o.BundleD, NonceD: o.NonceD, BundleS: l.card, NonceS: l.nonce[:],
	}.Sum()
	r := proof.Reveal{Pid: l.pid, BundleS: l.card, NonceS: l.nonce[:], Sig: proof.SignLink(l.keys.sign, l.t)}
	if l.mode == proof.ModeLink {
		r.MAC = l.secret.RevealMAC(proof.RevealInput(l.t))
	}
	return r, Shown{Digits: proof.Digits(l.t, card.Digits), Desktop: card}, nil
}

func (l *SurfaceLink) checkOffer(o proof.Offer, now time.Time) (proof.DesktopCard, error) {
	card, err := proof.ParseDesktopCard(o.BundleD)
	if err != nil {
		return card, err
	}
	if l.mode == proof.ModeLink && o.Pid != l.pid {
		return card, fmt.Errorf("%w: an offer of another session", proof.ErrRefused)
	}
	if (l.mode == proof.ModeLink) != (len(o.MAC) > 0) {
		return card, fmt.Errorf("%w: an offer of the other mode", proof.ErrRefused)
	}
	input := proof.OfferInput(l.mode, o.Pid, card.Versions, proof.Commit(l.card, l.nonce[:]), o.BundleD, o.NonceD)
	if len(o.MAC) > 0 && !hmac.Equal(o.MAC, l.secret.OfferMAC(input)) {
		return card, fmt.Errorf("%w: the mac does not hold", proof.ErrRefused)
	}
	if _, err := proof.OwnVersions().Common(card.Versions); err != nil {
		return card, err
	}
	bundle, err := proof.OpenBundle(card.Dsig, card.Bundle)
	if err != nil {
		return card, err
	}
	return card, bundle.Fresh(0, now.Add(-proof.MaxSkew)) // the clocks are not compared yet
}

// Grant takes message 6. In link mode the surface is linked then; in code mode the person types the finish code that
// the desktop shows.
func (l *SurfaceLink) Grant(m proof.GrantMsg, now time.Time) (needsFinishCode bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(now); err != nil {
		return false, err
	}
	if l.state != proof.LinkRevealed || m.Pid != l.pid {
		return false, l.move(SBadGrant)
	}
	g, signed, err := l.keys.OpenGrant(l.desktop.Dsig, transcriptDigest(l.t), m.Sealed)
	if err != nil {
		return false, fmt.Errorf("%w: %w", l.move(SBadGrant), err)
	}
	l.grant, l.signed = g, signed
	if l.mode == proof.ModeLink {
		return false, l.move(SGrantLink)
	}
	return true, l.move(SGrantCode)
}

// FinishCode takes what the person typed, once. A wrong code means that the desktop did not link this surface,
// whatever the broker says.
func (l *SurfaceLink) FinishCode(typed string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(now); err != nil {
		return err
	}
	if l.state == proof.LinkConfirmed && !sameDigits(typed, proof.FinishDigits(l.t, l.desktop.Digits)) {
		return l.move(SBadFinish)
	}
	return l.move(SFinish)
}

// Lost says that the broker ended the session.
func (l *SurfaceLink) Lost() { l.end(SLost) }

// Cancel says that the person gave up.
func (l *SurfaceLink) Cancel() { l.end(SCancel) }

func (l *SurfaceLink) end(event SurfaceEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.move(event) // why it ended is in State
}

// Joined is a linked surface: what is stored, and the finish that is posted after it was stored.
type Joined struct {
	Keys    *Surface
	Desktop proof.DesktopCard
	Grant   proof.Grant
	Signed  []byte // the grant
	Finish  proof.Finish
}

// Joined returns what the session made, once it is done.
func (l *SurfaceLink) Joined() (Joined, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != proof.LinkDone {
		return Joined{}, ErrState
	}
	f := proof.Finish{Pid: l.pid}
	f.Sign(l.keys.sign, l.grant.Transcript)
	return Joined{Keys: l.keys, Desktop: l.desktop, Grant: l.grant, Signed: l.signed, Finish: f}, nil
}

// transcriptDigest is SHA-256(T), which a grant names.
func transcriptDigest(t proof.Digest) proof.Digest { return sha256.Sum256(t[:]) }
