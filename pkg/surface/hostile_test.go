package surface

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// answers bends every answer to a post of a command, or to a question about one.
func answers(f func(*wire.Command)) func(*http.Request, *http.Response) error {
	return func(r *http.Request, res *http.Response) error {
		if strings.Contains(r.URL.Path, "/commands") && res.StatusCode < 300 {
			return edit(res, f)
		}
		return nil
	}
}

func TestOnlySignedResultsAreBelieved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	first := prompt(t, s, id, "first")
	for name, lie := range map[string]func(*wire.Command){
		"no result at all":     func(c *wire.Command) { c.State, c.Result = wire.StateCompleted, nil },
		"blocked, it says":     func(c *wire.Command) { c.State, c.Result = wire.StateBlocked, nil },
		"of another command":   func(c *wire.Command) { c.State, c.Result = wire.StateCompleted, first.Command.Result },
		"forged":               func(c *wire.Command) { c.State, c.Result = wire.StateCompleted, flip(first.Command.Result) },
		"not of that form":     func(c *wire.Command) { c.State, c.Result = wire.StateCompleted, []byte("done") },
		"another one's answer": func(c *wire.Command) { c.Envelope = first.Hash[:] },
	} {
		p.net.set(nil, answers(lie))
		o, err := s.Do(t.Context(), proof.Prompt, wire.Prompt{SessionID: id, Text: name}, nil)
		if !errors.Is(err, ErrUnsignedResult) && !errors.Is(err, ErrKept) || o.Signed {
			t.Errorf("%s: %+v %v", name, o, err)
		}
		p.net.set(nil, nil)
	}
	prompt(t, s, id, "and the truth")
}

// A broker that says "queued" beside a signed result does not keep the surface waiting, nor does its "failed" count.
func TestSignedStateWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	for _, state := range []string{wire.StateQueued, wire.StateFailed, wire.StateExpired} {
		p.net.set(nil, answers(func(c *wire.Command) {
			if c.Result != nil {
				c.State = state
			}
		}))
		o, err := s.Do(t.Context(), proof.Prompt, wire.Prompt{SessionID: id, Text: "x"}, nil)
		if err != nil || !o.Done() || o.State() != wire.StateCompleted {
			t.Errorf("%s: %s %v", state, o.State(), err)
		}
	}
}

func flip(b []byte) []byte {
	out := append([]byte{}, b...)
	out[len(out)-1] ^= 1
	return out
}

// states bends the broker's answer on a pairing, which carries bundle and grant.
func states(f func(*wire.PairingState)) func(*http.Request, *http.Response) error {
	return func(r *http.Request, res *http.Response) error {
		if r.Method == http.MethodGet && path.Base(path.Dir(r.URL.Path)) == "pairings" && res.StatusCode == http.StatusOK {
			return edit(res, f)
		}
		return nil
	}
}

// recover gives the desktop a new bundle.
func (w *world) recover() {
	w.t.Helper()
	w.clock.advance(25 * time.Hour)
	w.stopAgent()
	w.runAgent()
}

func TestRolledBackBundleIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	old, err := s.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.recover()
	p.clock.advance(25 * time.Hour)
	eventually(t, "the next bundle is there", func() bool {
		st, err := s.State(t.Context())
		return err == nil && string(st.Bundle) != string(old.Bundle)
	})
	prompt(t, s, id0(t, s, id), "under the new one")
	for name, lie := range map[string]func(*wire.PairingState){
		"rolled back": func(st *wire.PairingState) { st.Bundle = old.Bundle },
		"forged":      func(st *wire.PairingState) { st.Bundle = flip(st.Bundle) },
		"none":        func(st *wire.PairingState) { st.Bundle = nil },
		"a stranger's": func(st *wire.PairingState) {
			other, err := seal.NewDesktop(w.clock.now())
			if err != nil {
				t.Error(err)
				return
			}
			st.Bundle = other.Bundle()
		},
		"forged grant": func(st *wire.PairingState) { st.Grant = flip(st.Grant) },
	} {
		p.net.posts = nil
		p.net.set(nil, states(lie))
		if _, err := s.Send(t.Context(), proof.Status, wire.Status{}); err == nil || len(p.net.posts) != 0 {
			t.Errorf("%s: %v, %d posts", name, err, len(p.net.posts))
		}
	}
}

// id0 makes a session anew: the echo's are gone with its process.
func id0(t *testing.T, s *Surface, _ string) string { return session(t, s) }

func TestAsleepTooLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	w.stopAgent()
	w.clock.advance(73 * time.Hour)
	p.clock.advance(73 * time.Hour)
	if _, err := s.Send(t.Context(), proof.Status, wire.Status{}); !errors.Is(err, ErrAsleep) {
		t.Errorf("%v", err)
	}
}

// The grant that the broker shows may only become newer.
func TestOlderGrantIsRefused(t *testing.T) {
	desk, err := seal.NewDesktop(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.NewSurface()
	if err != nil {
		t.Fatal(err)
	}
	other, err := seal.NewSurface()
	if err != nil {
		t.Fatal(err)
	}
	sign := func(k *seal.Surface, serial uint64) []byte {
		signed, _, err := desk.SealGrant(proof.Grant{
			Pairing: desk.Pairing(), Surface: k.ID(desk.Pairing()), Ssig: k.Ssig(), Skem: k.Skem(), Scopes: proof.ScopesUpTo(proof.ScopePrompt),
			Serial: serial, Issued: time.Now().UnixMilli(), NotAfter: time.Now().Add(time.Hour).UnixMilli(), Transcript: proof.Digest{1},
		})
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	s := &Surface{}
	p := &profile{Surface: keys.ID(desk.Pairing()), Dsig: desk.Dsig(), Grant: sign(keys, 5)}
	if err := s.renewGrant(p, sign(keys, 4)); err == nil {
		t.Error("an older one was taken")
	}
	if err := s.renewGrant(p, sign(other, 9)); err == nil {
		t.Error("another surface's was taken")
	}
	next := sign(keys, 6)
	if err := s.renewGrant(p, next); err != nil || string(p.Grant) != string(next) {
		t.Errorf("a newer one: %v", err)
	}
}

// A broker that stands in for the desktop in a linking by link has no mac; nothing is shown.
func TestSwappedKeysInALinking(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	shown := false
	for name, swap := range map[string]func(*wire.LinkClaimReply){
		"other keys": func(r *wire.LinkClaimReply) {
			desk, err := seal.NewDesktop(time.Now())
			if err != nil {
				t.Error(err)
				return
			}
			o, err := proof.ParseMessage[proof.Offer](r.Offer)
			if err != nil {
				t.Error(err)
				return
			}
			o.BundleD = proof.DesktopCard{
				Pairing: desk.Pairing(), Dsig: desk.Dsig(), Bundle: desk.Bundle(), Host: "desk", Policy: "p", Digits: 6, Versions: proof.OwnVersions(),
			}.Encode()
			r.Offer, _ = json.Marshal(o)
		},
		"another nonce": func(r *wire.LinkClaimReply) {
			o, _ := proof.ParseMessage[proof.Offer](r.Offer)
			o.NonceD = flip(o.NonceD)
			r.Offer, _ = json.Marshal(o)
		},
		"no offer": func(r *wire.LinkClaimReply) { r.Offer = json.RawMessage(`{}`) },
	} {
		req := w.request("link", "prompt")
		p.net.set(nil, func(r *http.Request, res *http.Response) error {
			if r.URL.Path == wire.PathLinkClaim {
				return edit(res, swap)
			}
			return nil
		})
		_, err := Link(t.Context(), p.opts, req, silent{shown: &shown})
		if err == nil || shown {
			t.Errorf("%s: %v, digits shown %v", name, err, shown)
		}
		w.endLinking()
		if left, _ := List(p.opts.Dir); len(left) != 0 || len(p.opts.Secrets.(*memory).values) != 0 {
			t.Errorf("%s: something was kept", name)
		}
	}
}

// endLinking waits until the desktop knows that the surface gave up, and lets the pause after it pass.
func (w *world) endLinking() {
	w.t.Helper()
	eventually(w.t, "the session ended", func() bool {
		err := w.desk.LinkCancel(w.t.Context(), w.pairing)
		return err != nil
	})
	w.clock.advance(30 * time.Second)
}

// silent is a person who types nothing.
type silent struct {
	shown *bool
	code  string
}

func (s silent) ShowDigits(string, string, string)               { *s.shown = true }
func (s silent) FinishCode(context.Context, int) (string, error) { return s.code, nil }

// In code mode a broker can say "linked"; without the desktop's finish code nobody is.
func TestLinkedFalsely(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	who := &typist{w: w, failed: make(chan error, 1), finish: func(code string) string {
		return code[1:] + string('0'+('9'-code[0]))
	}}
	_, err := Link(t.Context(), p.opts, w.request("code", "prompt"), who)
	if !errors.Is(err, seal.ErrNotLinked) {
		t.Errorf("with a wrong finish code: %v", err)
	}
	if left, _ := List(p.opts.Dir); len(left) != 0 || len(p.opts.Secrets.(*memory).values) != 0 {
		t.Error("something was kept")
	}
	eventually(t, "the desktop takes the surface back", func() bool {
		all, err := w.desk.Surfaces(t.Context(), w.pairing)
		return err == nil && len(all) == 1 && !all[0].Revoked.IsZero()
	})
}

// The person types the wrong digits three times, or gives up, or the broker ends the session.
func TestLinkingThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	who := &typist{w: w, failed: make(chan error, 1), digits: func(string) string {
		for range 2 {
			_ = w.desk.LinkDigits(t.Context(), w.pairing, "x")
		}
		return "x"
	}}
	_, err := Link(t.Context(), p.opts, w.request("link", "prompt"), who)
	if !errors.Is(err, ErrLinkEnded) {
		t.Errorf("wrong digits: %v", err)
	}
	if refused, ok := errors.AsType[*agent.ControlError](<-who.failed); !ok || refused.Code != "link_burned" {
		t.Errorf("the owner is told %v", refused)
	}
	w.clock.advance(30 * time.Second)
	req := w.request("link", "prompt")
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Link(ctx, p.opts, req, cancels{cancel})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if e, err := w.linkEvent(t.Context(), agent.LinkBurned); err != nil || e.Reason != "cancelled" {
		t.Errorf("the desktop hears %+v %v", e, err)
	}
	for _, text := range []string{req.Text, "https://x/p#1.a.b", "77-BCDF-GHJK"} {
		r := LinkRequest{Text: text, Broker: w.base, Label: "phone", Scope: "prompt"}
		if _, err := Link(t.Context(), p.opts, r, silent{shown: new(bool)}); err == nil || strings.Contains(err.Error(), "GHJK") {
			t.Errorf("a used or wrong text: %v", err)
		}
	}
	for _, r := range []LinkRequest{
		{Text: req.Text, Label: "phone", Scope: "root"}, {Text: req.Text, Label: "a\x1b[2J", Scope: "prompt"}, {Text: "77-BCDF-GHJK", Label: "x", Scope: "prompt"},
	} {
		if _, err := Link(t.Context(), p.opts, r, silent{shown: new(bool)}); err == nil {
			t.Errorf("%q %q was taken", r.Label, r.Scope)
		}
	}
}

// cancels is a person who gives up when the digits are shown.
type cancels struct{ cancel func() }

func (c cancels) ShowDigits(string, string, string)               { c.cancel() }
func (c cancels) FinishCode(context.Context, int) (string, error) { return "", context.Canceled }

// The poll for the grant changes nothing and so survives cuts; the desktop's finish too.
func TestLinkingSurvivesCuts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	cuts := map[string]int{wire.PathLinkGrant: 1, wire.PathLinkFinish: 1}
	p.net.set(nil, func(r *http.Request, _ *http.Response) error {
		if cuts[r.URL.Path] > 0 {
			cuts[r.URL.Path]--
			return errCut
		}
		return nil
	})
	s := w.link(p, "link", "prompt")
	prompt(t, s, session(t, s), "hello")
}

func TestAddresses(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://b.example.com": true, "http://127.0.0.1:8787": true, "http://localhost": true, "http://[::1]:1": true,
		"http://b.example.com": false, "http://127.evil.example.com": false, "ftp://b": false, "https://u:p@b": false, "": false, "https://": false,
	} {
		if _, err := newAPI(address, nil); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}
