package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"strings"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

// LinkConfig is what the desktop's owner decided before a linking begins, and what the desktop says of itself.
type LinkConfig struct {
	Mode    proof.Mode
	Origin  string      // of the broker, as proof.Origin gives it; enters the transcript
	Page    string      // what a link begins with; usually the same
	Host    string      // host name, proof.CheckLabel
	Policy  string      // pairing.Policy.Summary
	Highest proof.Scope // ScopePrompt, or ScopeDecide after a yes to the one question
}

// DesktopLink is one linking session at the desktop. It lives in memory: an agent that restarts has cancelled it. It
// prints as dots and is safe for concurrent use.
type DesktopLink struct {
	hidden
	d       *Desktop
	cfg     LinkConfig
	pid     proof.LinkID
	secret  LinkSecret    // link mode
	letters proof.Letters // code mode
	expires time.Time
	card    []byte // bundleD
	nonce   [proof.LinkNonceSize]byte

	mu      sync.Mutex
	state   proof.LinkState
	commit  proof.Digest
	surface proof.SurfaceCard
	t       proof.Digest
	entries int
	grant   proof.Grant
}

// OpenLink begins a session and returns message 1 for the broker.
func (d *Desktop) OpenLink(cfg LinkConfig, now time.Time) (*DesktopLink, proof.Open, error) {
	l := &DesktopLink{d: d, cfg: cfg, state: proof.LinkOpen, expires: now.Add(proof.LinkLife)}
	rand.Read(l.pid[:]) // never fails
	rand.Read(l.nonce[:])
	l.card = proof.DesktopCard{
		Pairing: d.Pairing(), Dsig: d.Dsig(), Bundle: d.Bundle(), Host: cfg.Host, Policy: cfg.Policy,
		Digits: proof.DigitsFor(cfg.Highest), Versions: proof.OwnVersions(),
	}.Encode()
	if _, err := proof.ParseDesktopCard(l.card); err != nil {
		return nil, proof.Open{}, fmt.Errorf("what this desktop says of itself: %w", err)
	}
	if !cfg.Highest.Valid() {
		return nil, proof.Open{}, fmt.Errorf("%w: no such scope", proof.ErrForm)
	}
	open := proof.Open{Pid: l.pid, Mode: cfg.Mode, Expires: l.expires.UnixMilli()}
	switch cfg.Mode {
	case proof.ModeLink:
		l.secret = NewLinkSecret()
		digest := l.secret.Admit().Digest()
		open.AdmitDigest = &digest
	case proof.ModeCode:
		l.letters = proof.NewLetters(proof.CodeLetters)
		open.Code = l.letters
	default:
		return nil, proof.Open{}, fmt.Errorf("%w: no such mode", proof.ErrForm)
	}
	open.Sign(d.sign)
	return l, open, nil
}

// Pid names the session.
func (l *DesktopLink) Pid() proof.LinkID { return l.pid }

// Mode returns how it was opened.
func (l *DesktopLink) Mode() proof.Mode { return l.cfg.Mode }

// Expires returns its end by the desktop's clock.
func (l *DesktopLink) Expires() time.Time { return l.expires }

// Text is what the owner hands to the surface: the link, or with the broker's nameplate the typed code. Secret.
func (l *DesktopLink) Text(nameplate string) string {
	if l.cfg.Mode == proof.ModeLink {
		return FormatLink(l.cfg.Page, l.pid, l.secret)
	}
	return FormatCode(nameplate, l.letters)
}

// State returns where the session stands.
func (l *DesktopLink) State() proof.LinkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Granted returns the surface that the session made, once digits were right. Unless the session became done it is to
// be revoked.
func (l *DesktopLink) Granted() (proof.Grant, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.grant, !l.grant.Surface.IsZero()
}

// move asks the table; the caller holds mu. A final state that is no success comes back as its error.
func (l *DesktopLink) move(event DesktopEvent) error {
	to, ok := NextDesktop(l.state, event)
	if !ok {
		if l.state.Final() {
			return fmt.Errorf("%w: %s", ErrOver, l.state)
		}
		return ErrState
	}
	l.state = to
	if to == proof.LinkBurned {
		return ErrBurned
	}
	return nil
}

// alive expires a session whose time is over; the caller holds mu.
func (l *DesktopLink) alive(now time.Time) error {
	if !l.state.Final() && !now.Before(l.expires) {
		l.state, _ = NextDesktop(l.state, DExpire)
	}
	if l.state.Final() {
		return fmt.Errorf("%w: %s", ErrOver, l.state)
	}
	return nil
}

// Claim takes message 2 and gives message 3. There is one claim, ever: another one burns the session, and so does
// one of the other mode.
func (l *DesktopLink) Claim(c proof.Claim, now time.Time) (proof.Offer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(now); err != nil {
		return proof.Offer{}, err
	}
	if c.Mode != l.cfg.Mode {
		return proof.Offer{}, fmt.Errorf("%w: %w", ErrOtherMode, l.move(DOtherMode))
	}
	if err := l.move(DClaim); err != nil {
		return proof.Offer{}, err
	}
	l.commit = c.Commit
	offer := proof.Offer{Pid: l.pid, BundleD: l.card, NonceD: l.nonce[:]}
	if l.cfg.Mode == proof.ModeLink {
		offer.MAC = l.secret.OfferMAC(proof.OfferInput(l.cfg.Mode, l.pid, proof.OwnVersions(), l.commit, l.card, l.nonce[:]))
	}
	return offer, nil
}

// Candidate is who wants to be linked: what the owner sees beside the field for the digits.
type Candidate struct {
	Label   string
	Asked   proof.Scope  // what it asked for
	Scopes  proof.Scopes // what it will get: never more than the owner's answer
	Surface proof.SurfaceID
	Digits  int // how many to type
}

// Reveal takes message 4. Whatever does not hold burns the session.
func (l *DesktopLink) Reveal(r proof.Reveal, now time.Time) (Candidate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(now); err != nil {
		return Candidate{}, err
	}
	if l.state == proof.LinkOpen {
		return Candidate{}, l.move(DReveal)
	}
	card, t, err := l.checkReveal(r)
	if err != nil {
		return Candidate{}, fmt.Errorf("%w: %w", l.move(DBadReveal), err)
	}
	if err := l.move(DReveal); err != nil {
		return Candidate{}, err
	}
	l.surface, l.t = card, t
	return Candidate{
		Label: card.Label, Asked: card.Scope, Scopes: l.scopes(), Digits: proof.DigitsFor(l.cfg.Highest),
		Surface: proof.SurfaceOf(l.d.Pairing(), card.Ssig, card.Skem),
	}, nil
}

func (l *DesktopLink) scopes() proof.Scopes {
	return proof.ScopesUpTo(min(l.cfg.Highest, l.surface.Scope))
}

// checkReveal holds commitment, mac, proof of possession and a common version.
func (l *DesktopLink) checkReveal(r proof.Reveal) (proof.SurfaceCard, proof.Digest, error) {
	var none proof.Digest
	if r.Pid != l.pid || !proof.Commit(r.BundleS, r.NonceS).Equal(l.commit) {
		return proof.SurfaceCard{}, none, fmt.Errorf("%w: not what was committed to", proof.ErrRefused)
	}
	card, err := proof.ParseSurfaceCard(r.BundleS)
	if err != nil {
		return proof.SurfaceCard{}, none, err
	}
	t := proof.Transcript{
		Mode: l.cfg.Mode, Pid: l.pid, VersionsD: proof.OwnVersions(), VersionsS: card.Versions, Origin: l.cfg.Origin,
		Commit: l.commit, BundleD: l.card, NonceD: l.nonce[:], BundleS: r.BundleS, NonceS: r.NonceS,
	}.Sum()
	if (l.cfg.Mode == proof.ModeLink) != (len(r.MAC) > 0) ||
		len(r.MAC) > 0 && !hmac.Equal(r.MAC, l.secret.RevealMAC(proof.RevealInput(t))) {
		return proof.SurfaceCard{}, none, fmt.Errorf("%w: the mac does not hold", proof.ErrRefused)
	}
	if _, err := proof.OwnVersions().Common(card.Versions); err != nil {
		return proof.SurfaceCard{}, none, err
	}
	return card, t, proof.VerifyLink(card.Ssig, t, r.Sig)
}

// Linked is what right digits give. Signed goes to the broker, Message to the surface; both after the caller stored
// the grant. FinishCode is set in code mode: the owner types it into the surface.
type Linked struct {
	Grant      proof.Grant
	Signed     []byte
	Message    proof.GrantMsg
	Label      string
	FinishCode string
}

// Digits takes what the owner typed; spaces count for nothing. serial is the grant's, above every one that this
// pairing gave before. A wrong entry is ErrDigits while entries are left, then ErrBurned.
func (l *DesktopLink) Digits(typed string, serial uint64, now time.Time) (Linked, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(now); err != nil {
		return Linked{}, err
	}
	if l.state != proof.LinkRevealed {
		return Linked{}, l.move(DDigits)
	}
	n := proof.DigitsFor(l.cfg.Highest)
	if !sameDigits(typed, proof.Digits(l.t, n)) {
		return Linked{}, l.wrongDigits()
	}
	linked, err := l.seal(serial, now)
	if err != nil {
		return Linked{}, err
	}
	if l.cfg.Mode == proof.ModeCode {
		linked.FinishCode = proof.FinishDigits(l.t, n)
	}
	l.grant = linked.Grant
	return linked, l.move(DDigits)
}

func (l *DesktopLink) wrongDigits() error {
	l.entries++
	if l.entries >= proof.MaxDigitEntries {
		return l.move(DLastDigits)
	}
	if err := l.move(DWrongDigits); err != nil {
		return err
	}
	return ErrDigits
}

// sameDigits compares in constant time, without spaces.
func sameDigits(typed, want string) bool {
	typed = strings.ReplaceAll(strings.TrimSpace(typed), " ", "")
	return subtle.ConstantTimeCompare([]byte(typed), []byte(want)) == 1
}

func (l *DesktopLink) seal(serial uint64, now time.Time) (Linked, error) {
	g := proof.Grant{
		Pairing: l.d.Pairing(), Ssig: l.surface.Ssig, Skem: l.surface.Skem, Scopes: l.scopes(), Serial: serial,
		Issued: now.UnixMilli(), NotAfter: now.Add(proof.GrantLife).UnixMilli(), Transcript: transcriptDigest(l.t),
	}
	g.Surface = proof.SurfaceOf(g.Pairing, g.Ssig, g.Skem)
	signed, sealed, err := l.d.SealGrant(g)
	if err != nil {
		return Linked{}, err
	}
	return Linked{Grant: g, Signed: signed, Message: proof.GrantMsg{Pid: l.pid, Sealed: sealed}, Label: l.surface.Label}, nil
}

// Finish takes the surface's last message. One that does not verify burns, and the surface is to be revoked.
func (l *DesktopLink) Finish(f proof.Finish, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(now); err != nil {
		return err
	}
	if f.Pid != l.pid || f.Verify(l.surface.Ssig, l.grant.Transcript) != nil {
		return l.move(DBadFinish)
	}
	return l.move(DTook)
}

// Lost says that the broker ended the session: a second claim, a cancel by the surface, its expiry.
func (l *DesktopLink) Lost() { l.end(DLost) }

// Cancel says that the owner gave up.
func (l *DesktopLink) Cancel() { l.end(DCancel) }

func (l *DesktopLink) end(event DesktopEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, _ = NextDesktop(l.state, event)
}

// Expire ends the session if its time is over, and reports whether it is in a final state now.
func (l *DesktopLink) Expire(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alive(now) != nil
}
