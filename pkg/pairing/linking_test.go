package pairing_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
)

// session is one linking with the real ends and the broker between them.
type session struct {
	*world
	d     *seal.Desktop
	p     pairing.Pairing
	at    *seal.DesktopLink
	from  *seal.SurfaceLink
	link  pairing.Link
	value []byte
}

func (w *world) open(mode proof.Mode) *session {
	w.Helper()
	d, p := w.enrolled()
	return w.openFor(d, p, mode)
}

func (w *world) openFor(d *seal.Desktop, p pairing.Pairing, mode proof.Mode) *session {
	w.Helper()
	s := &session{world: w, d: d, p: p}
	cfg := seal.LinkConfig{Mode: mode, Origin: origin, Page: origin, Host: "tower", Policy: "x", Highest: proof.ScopePrompt}
	at, open, err := d.OpenLink(cfg, start)
	if err != nil {
		w.Fatal(err)
	}
	if s.link, err = w.links.Open(w.Context(), p, open, start); err != nil {
		w.Fatal(err)
	}
	s.at = at
	if mode == proof.ModeLink {
		s.from, err = seal.JoinLink(at.Text(""), "", "phone", proof.ScopePrompt, start)
	} else {
		s.from, err = seal.JoinCode(at.Text(s.link.Nameplate), origin, "phone", proof.ScopePrompt, start)
	}
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func (s *session) claim() proof.Claim {
	s.Helper()
	c, err := s.from.Claim(start)
	if err != nil {
		s.Fatal(err)
	}
	return c
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// reveal runs messages 2 to 4 and returns the digits.
func (s *session) reveal() string {
	s.Helper()
	c := s.claim()
	claimed, err := s.links.Claim(s.Context(), c, network, start)
	if err != nil || len(claimed.Session) != 16 || claimed.Link.Network != network.IP {
		s.Fatalf("%+v %v", claimed.Link, err)
	}
	s.value = claimed.Session
	offer, err := s.at.Claim(c.Bare(), start)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := s.links.Offer(s.Context(), s.p.ID, raw(offer), start); err != nil {
		s.Fatal(err)
	}
	reveal, shown, err := s.from.Offer(offer, start)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := s.links.Reveal(s.Context(), s.value, raw(reveal), network, start); err != nil {
		s.Fatal(err)
	}
	if _, err := s.at.Reveal(reveal, start); err != nil {
		s.Fatal(err)
	}
	return shown.Digits
}

func (s *session) grant(digits string) (seal.Linked, pairing.Surface) {
	s.Helper()
	linked, err := s.at.Digits(digits, 1, start)
	if err != nil {
		s.Fatal(err)
	}
	_, surface, err := s.links.Grant(s.Context(), s.p, raw(linked.Message), linked.Signed, start)
	if err != nil {
		s.Fatal(err)
	}
	return linked, surface
}

func (s *session) state() proof.LinkState {
	s.Helper()
	l, err := s.store.Link(s.Context(), s.link.Pid)
	if err != nil {
		s.Fatal(err)
	}
	return l.State
}

func TestLinkThrough(t *testing.T) {
	for _, mode := range []proof.Mode{proof.ModeLink, proof.ModeCode} {
		t.Run(mode.String(), func(t *testing.T) {
			s := newWorld(t).open(mode)
			before := s.lines()
			linked, surface := s.grant(s.reveal())
			l, err := s.links.Poll(t.Context(), s.value, start)
			if err != nil || l.State != proof.LinkConfirmed || string(l.Grant) != string(raw(linked.Message)) {
				t.Fatalf("%+v %v", l, err)
			}
			if needs, err := s.from.Grant(linked.Message, start); err != nil {
				t.Fatal(err)
			} else if needs {
				if err := s.from.FinishCode(linked.FinishCode, start); err != nil {
					t.Fatal(err)
				}
			}
			joined, err := s.from.Joined()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.links.Finish(t.Context(), s.p, s.value, raw(joined.Finish), network, start); err != nil || s.state() != proof.LinkDone {
				t.Fatalf("%v %v", s.state(), err)
			}
			s.wantNew(before, "link.claimed link.revealed link.confirmed surface.linked link.done")
			if surface.Label != "phone" || surface.ID != joined.Grant.Surface || surface.State(start) != "active" {
				t.Errorf("%+v", surface)
			}
			s.signIn(joined, surface)
		})
	}
}

// signIn tries a linked surface's signature in all the ways that matter.
func (s *session) signIn(joined seal.Joined, surface pairing.Surface) {
	s.Helper()
	auth := proof.SurfaceAuth{Origin: origin, Broker: brokerKey, Pairing: s.p.ID, Surface: surface.ID, Nonce: []byte("n"), Time: start.UnixMilli()}
	sig := auth.Sign(joined.Keys.Signer())
	ctx := s.Context()
	if got, err := s.registry.SignIn(ctx, auth, sig, network, start); err != nil || got.ID != surface.ID {
		s.Errorf("sign in: %v", err)
	}
	unknown, elsewhere := auth, auth
	unknown.Surface[0]++
	elsewhere.Origin = "https://evil.example.com" // what the caller says does not count: the broker's own is used
	for name, c := range map[string]struct {
		auth proof.SurfaceAuth
		sig  []byte
		at   time.Time
		want error
	}{
		"unknown":      {unknown, unknown.Sign(joined.Keys.Signer()), start, pairing.ErrUnauthorized},
		"signature":    {auth, append([]byte{1}, sig[1:]...), start, pairing.ErrUnauthorized},
		"no signature": {auth, nil, start, pairing.ErrUnauthorized},
		"other origin": {elsewhere, elsewhere.Sign(joined.Keys.Signer()), start, pairing.ErrUnauthorized},
		"grant's end":  {auth, sig, surface.NotAfter, pairing.ErrUnauthorized},
		"clock":        {auth, sig, start.Add(6 * time.Minute), &pairing.Error{Code: "clock_skew"}},
	} {
		if _, err := s.registry.SignIn(ctx, c.auth, c.sig, network, c.at); !errors.Is(err, c.want) {
			s.Errorf("%s: %v", name, err)
		}
	}
	if err := s.registry.Lock(ctx, s.p.ID, "x", operator, start); err != nil {
		s.Fatal(err)
	}
	if _, err := s.registry.SignIn(ctx, auth, sig, network, start); !errors.Is(err, pairing.ErrForbidden) {
		s.Errorf("locked: %v", err)
	}
	if err := s.registry.Unlock(ctx, s.p.ID, operator, start); err != nil {
		s.Fatal(err)
	}
	s.renewAndRevoke(joined, surface)
	if _, err := s.registry.SignIn(ctx, auth, sig, network, start); !errors.Is(err, pairing.ErrUnauthorized) {
		s.Errorf("revoked: %v", err)
	}
}

func (s *session) renewAndRevoke(joined seal.Joined, surface pairing.Surface) {
	s.Helper()
	g, ctx := joined.Grant, s.Context()
	g.Serial, g.Scopes = 2, proof.ScopesUpTo(proof.ScopeObserve)
	signed, _, _ := s.d.SealGrant(g)
	if got, err := s.registry.Renew(ctx, s.p, signed, start); err != nil || got.Serial != 2 || len(got.Scopes) != 1 || got.Label != "phone" {
		s.Errorf("renew: %+v %v", got, err)
	}
	if _, err := s.registry.Renew(ctx, s.p, joined.Signed, start); !errors.Is(err, pairing.ErrConflict) {
		s.Errorf("rolled back: %v", err)
	}
	if _, err := s.registry.Renew(ctx, s.p, signed[1:], start); !errors.Is(err, pairing.ErrMalformed) {
		s.Errorf("not signed: %v", err)
	}
	for range 2 {
		if err := s.registry.RevokeSurface(ctx, s.p.ID, surface.ID, "owner", operator, start); err != nil {
			s.Errorf("revoke: %v", err)
		}
	}
	g.Serial = 3
	signed, _, _ = s.d.SealGrant(g)
	if _, err := s.registry.Renew(ctx, s.p, signed, start); !errors.Is(err, pairing.ErrConflict) {
		s.Errorf("a revoked surface comes back: %v", err)
	}
}

// Five wrong claims burn an open session; the counting is the bound of section 3.
func TestWrongClaimsBurn(t *testing.T) {
	s := newWorld(t).open(proof.ModeCode)
	right := s.claim()
	wrong := right
	wrong.Code = flip(right.Code[:1]) + right.Code[1:]
	tries, before := 0, s.lines()
	for {
		got, err := s.links.Claim(t.Context(), wrong, network, start)
		if !errors.Is(err, pairing.ErrBadCode) || got.Session != nil {
			t.Fatalf("%v", err)
		}
		if tries++; got.Burned {
			if got.Link.Pid != s.link.Pid {
				t.Errorf("burned %v", got.Link.Pid)
			}
			break
		}
	}
	if tries != 5 || s.state() != proof.LinkBurned {
		t.Errorf("%d tries, %v", tries, s.state())
	}
	s.wantNew(before, strings.TrimSpace(strings.Repeat("code.refused:wrong ", 5))+" link.burned:tries")
	if _, err := s.links.Claim(t.Context(), right, network, start); !errors.Is(err, pairing.ErrBadCode) {
		t.Errorf("the right code afterwards: %v", err)
	}
}

// A second claim, right or wrong, is answered like an unknown code, burns the session, and its owner is told.
func TestSecondClaimBurns(t *testing.T) {
	for name, prepare := range map[string]func(*session){
		"claimed":   func(s *session) { s.must(s.links.Claim(s.Context(), s.claim(), network, start)) },
		"revealed":  func(s *session) { s.reveal() },
		"confirmed": func(s *session) { s.grant(s.reveal()) },
	} {
		for _, right := range []bool{true, false} {
			s := newWorld(t).open(proof.ModeLink)
			_, pid, secret, _ := seal.ParseLink(s.at.Text(""))
			admit := secret.Admit()
			prepare(s)
			if !right {
				admit[0]++
			}
			second := proof.Claim{Mode: proof.ModeLink, Pid: &pid, Admit: &admit, Commit: proof.Digest{1}}
			got, err := s.links.Claim(t.Context(), second, network, start)
			if !errors.Is(err, pairing.ErrBadCode) || !got.Burned || got.Session != nil || s.state() != proof.LinkBurned {
				t.Errorf("%s, right %v: %v, burned %v", name, right, err, got.Burned)
			}
			if !strings.Contains(s.lines(), "link.second_claim") {
				t.Error(s.lines())
			}
			all, _ := s.store.Surfaces(t.Context(), s.p.ID)
			for _, surface := range all {
				if surface.State(start) != "revoked" {
					t.Errorf("%s: the surface is %s", name, surface.State(start))
				}
			}
		}
	}
}

func (s *session) must(got pairing.Claimed, err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
	s.value = got.Session
}

func TestUnknownClaims(t *testing.T) {
	s := newWorld(t).open(proof.ModeCode)
	right := s.claim()
	other := right
	other.Nameplate = "00"
	if right.Nameplate == "00" {
		other.Nameplate = "01"
	}
	pid, admit := s.link.Pid, proof.Admit{}
	byLink := proof.Claim{Mode: proof.ModeLink, Pid: &pid, Admit: &admit, Commit: proof.Digest{1}}
	for name, c := range map[string]proof.Claim{"unknown nameplate": other, "a link to a code session": byLink} {
		if got, err := s.links.Claim(t.Context(), c, network, start); !errors.Is(err, pairing.ErrBadCode) || got.Burned {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.links.Claim(t.Context(), right.Bare(), network, start); !errors.Is(err, pairing.ErrMalformed) {
		t.Errorf("bare: %v", err)
	}
	if _, err := s.links.Claim(t.Context(), right, network, start.Add(proof.LinkLife)); !errors.Is(err, pairing.ErrBadCode) {
		t.Errorf("at 180 s: %v", err)
	}
	if _, err := s.links.Claim(t.Context(), right, network, start.Add(proof.LinkLife-1)); err != nil {
		t.Errorf("just before: %v", err)
	}
}

func TestOneSessionPerDesktop(t *testing.T) {
	w := newWorld(t)
	s := w.open(proof.ModeCode)
	for _, mode := range []proof.Mode{proof.ModeLink, proof.ModeCode} {
		_, open, _ := s.d.OpenLink(seal.LinkConfig{Mode: mode, Origin: origin, Page: origin, Host: "tower", Highest: proof.ScopePrompt}, start)
		if _, err := w.links.Open(t.Context(), s.p, open, start); !errors.Is(err, pairing.ErrConflict) {
			t.Errorf("a second one by %s: %v", mode, err)
		}
	}
	if _, err := w.links.EndByDesktop(t.Context(), s.p, s.link.Pid, pairing.EventCancel, "cancelled", start); err != nil || s.state() != proof.LinkCancelled {
		t.Errorf("%v %v", s.state(), err)
	}
	if _, err := w.links.EndByDesktop(t.Context(), s.p, s.link.Pid, pairing.EventBurn, "digits", start); err != nil || s.state() != proof.LinkCancelled {
		t.Errorf("ended twice: %v %v", s.state(), err)
	}
	w.openFor(s.d, s.p, proof.ModeLink)
	_, open, _ := desktop(t).OpenLink(seal.LinkConfig{Mode: proof.ModeLink, Origin: origin, Page: origin, Host: "tower", Highest: proof.ScopePrompt}, start)
	if _, err := w.links.Open(t.Context(), s.p, open, start); !errors.Is(err, pairing.ErrMalformed) {
		t.Errorf("another desktop's: %v", err)
	}
	locked := s.p
	locked.State = pairing.Locked
	if _, err := w.links.Open(t.Context(), locked, open, start); !errors.Is(err, pairing.ErrForbidden) {
		t.Errorf("locked: %v", err)
	}
}

func TestNameplatesAreUniqueAndRunOut(t *testing.T) {
	w := newWorld(t)
	seen := map[string]bool{}
	for range 100 {
		s := w.open(proof.ModeCode)
		if proof.CheckNameplate(s.link.Nameplate) != nil || seen[s.link.Nameplate] {
			t.Fatalf("nameplate %q again", s.link.Nameplate)
		}
		seen[s.link.Nameplate] = true
	}
	d, p := w.enrolled()
	cfg := seal.LinkConfig{Mode: proof.ModeCode, Origin: origin, Page: origin, Host: "tower", Highest: proof.ScopePrompt}
	_, open, _ := d.OpenLink(cfg, start)
	if _, err := w.links.Open(t.Context(), p, open, start); !errors.Is(err, pairing.ErrLimited) {
		t.Errorf("the 101st: %v", err)
	}
	w.openFor(d, p, proof.ModeLink) // links go on
	later := start.Add(proof.LinkLife)
	ended, err := w.links.Sweep(t.Context(), later)
	if err != nil || len(ended) != 101 {
		t.Errorf("%d expired (%v)", len(ended), err)
	}
	_, open, _ = d.OpenLink(cfg, later)
	if l, err := w.links.Open(t.Context(), p, open, later); err != nil || !seen[l.Nameplate] {
		t.Errorf("after a sweep: %v", err)
	}
}

// An ended pairing and its surfaces are as unknown as one that never was.
func TestSignInAtAnEndedPairing(t *testing.T) {
	s := newWorld(t).open(proof.ModeLink)
	linked, surface := s.grant(s.reveal())
	if _, err := s.from.Grant(linked.Message, start); err != nil {
		t.Fatal(err)
	}
	joined, err := s.from.Joined()
	if err != nil {
		t.Fatal(err)
	}
	auth := proof.SurfaceAuth{Origin: origin, Broker: brokerKey, Pairing: s.p.ID, Surface: surface.ID, Nonce: []byte("n"), Time: start.UnixMilli()}
	for _, end := range []func() error{
		func() error { return nil },
		func() error { return s.registry.Revoke(t.Context(), s.p.ID, "operator", operator, start) },
	} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		p, _ := s.store.Pairing(t.Context(), s.p.ID)
		_, err := s.registry.SignIn(t.Context(), auth, auth.Sign(joined.Keys.Signer()), network, start)
		if p.State == pairing.Ended && !errors.Is(err, pairing.ErrUnauthorized) || p.State == pairing.Active && err != nil {
			t.Errorf("%v: %v", p.State, err)
		}
	}
}

// What comes out of order, from the wrong one or unsigned changes nothing.
func TestLinkingRefuses(t *testing.T) {
	w := newWorld(t)
	s, other := w.open(proof.ModeCode), w.open(proof.ModeCode)
	ctx, c := t.Context(), s.claim()
	offer, _ := s.at.Claim(c.Bare(), start)
	reveal, shown, _ := s.from.Offer(offer, start)
	if _, err := s.links.Offer(ctx, s.p.ID, raw(offer), start); !errors.Is(err, pairing.ErrConflict) {
		t.Errorf("an offer before a claim: %v", err)
	}
	s.must(s.links.Claim(ctx, c, network, start))
	check := func(name string, err, want error, state proof.LinkState) {
		t.Helper()
		if !errors.Is(err, want) || s.state() != state {
			t.Errorf("%s: %v, %v", name, err, s.state())
		}
	}
	_, err := s.links.Reveal(ctx, s.value, raw(reveal), network, start)
	check("a reveal before the offer", err, pairing.ErrConflict, proof.LinkClaimed)
	_, err = s.links.Offer(ctx, other.p.ID, raw(offer), start)
	check("another desktop's offer", err, pairing.ErrNotFound, proof.LinkClaimed)
	_, err = s.links.Offer(ctx, s.p.ID, []byte("{}"), start)
	check("no offer", err, pairing.ErrMalformed, proof.LinkClaimed)
	if _, err = s.links.Offer(ctx, s.p.ID, raw(offer), start); err != nil {
		t.Fatal(err)
	}
	_, err = s.links.Offer(ctx, s.p.ID, raw(offer), start)
	check("the same offer again", err, nil, proof.LinkClaimed)
	second := offer
	second.NonceD = make([]byte, 32)
	_, err = s.links.Offer(ctx, s.p.ID, raw(second), start)
	check("a second offer", err, pairing.ErrConflict, proof.LinkClaimed)
	_, err = s.links.Reveal(ctx, make([]byte, 16), raw(reveal), network, start)
	check("another's session", err, pairing.ErrNotFound, proof.LinkClaimed)
	_, err = s.links.Reveal(ctx, nil, raw(reveal), network, start)
	check("no session", err, pairing.ErrNotFound, proof.LinkClaimed)
	if _, err = s.links.Reveal(ctx, s.value, raw(reveal), network, start); err != nil {
		t.Fatal(err)
	}
	if _, err = s.at.Reveal(reveal, start); err != nil {
		t.Fatal(err)
	}
	linked, err := s.at.Digits(shown.Digits, 1, start)
	if err != nil {
		t.Fatal(err)
	}
	forged := linked.Grant.Sign(other.d.Signer())
	_, _, err = s.links.Grant(ctx, s.p, raw(linked.Message), forged, start)
	check("a grant of another desktop", err, pairing.ErrMalformed, proof.LinkRevealed)
	swapped := linked.Grant
	swapped.Ssig = other.d.Dsig()
	swapped.Surface = proof.SurfaceOf(swapped.Pairing, swapped.Ssig, swapped.Skem)
	_, _, err = s.links.Grant(ctx, s.p, raw(linked.Message), swapped.Sign(s.d.Signer()), start)
	check("a grant for other keys", err, pairing.ErrMalformed, proof.LinkRevealed)
	s.grantAgain(linked)
	bad := proof.Finish{Pid: s.link.Pid}
	bad.Sign(other.d.Signer(), linked.Grant.Transcript)
	_, err = s.links.Finish(ctx, s.p, s.value, raw(bad), network, start)
	check("a finish by another key", err, pairing.ErrMalformed, proof.LinkConfirmed)
}

func (s *session) grantAgain(linked seal.Linked) {
	s.Helper()
	for i, want := range []error{nil, pairing.ErrConflict} {
		if _, _, err := s.links.Grant(s.Context(), s.p, raw(linked.Message), linked.Signed, start); !errors.Is(err, want) {
			s.Errorf("grant %d: %v", i+1, err)
		}
	}
}

// A surface that does not take its grant in time, or cancels, is revoked with the session's end.
func TestUnfinishedLinkingIsUndone(t *testing.T) {
	for name, end := range map[string]func(*session) error{
		"expired": func(s *session) error {
			l, err := s.links.Poll(s.Context(), s.value, start.Add(proof.LinkLife))
			if l.State != proof.LinkExpired {
				s.Errorf("%v", l.State)
			}
			return err
		},
		"cancelled": func(s *session) error {
			_, err := s.links.CancelBySurface(s.Context(), s.value, network, start)
			return err
		},
	} {
		s := newWorld(t).open(proof.ModeCode)
		_, surface := s.grant(s.reveal())
		if err := end(s); err != nil {
			t.Fatal(err)
		}
		got, err := s.store.Surface(t.Context(), s.p.ID, surface.ID)
		if err != nil || got.State(start) != "revoked" || s.state().String() != name {
			t.Errorf("%s: the surface is %s, the session %v (%v)", name, got.State(start), s.state(), err)
		}
		if !strings.HasSuffix(s.lines(), "surface.revoked:link_"+name) {
			t.Error(s.lines())
		}
	}
}

func TestLinksLeft(t *testing.T) {
	var opened []time.Time
	for i := range proof.MaxLinksPerDay {
		if left := pairing.LinksLeft(opened, start); left != proof.MaxLinksPerDay-i {
			t.Errorf("%d left after %d", left, i)
		}
		opened = append(opened, start)
	}
	if pairing.LinksLeft(append(opened, start), start) != 0 || pairing.LinksLeft(opened, start.Add(24*time.Hour)) != proof.MaxLinksPerDay {
		t.Error("the day's cap counts wrongly")
	}
}
