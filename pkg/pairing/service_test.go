package pairing_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/internal/store/sqlite"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
)

var (
	start     = time.UnixMilli(1_764_000_000_000)
	operator  = pairing.Origin{Kind: "operator", ID: "op"}
	network   = pairing.Origin{Kind: "network", IP: "192.0.2.7", UA: "test"}
	brokerKey = proof.SigKeyOf(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)))
)

const origin = "https://broker.example.com"

// world is a broker's rules over a real store.
type world struct {
	*testing.T
	store    *sqlite.Store
	enrol    *pairing.Enrolment
	registry *pairing.Registry
	links    *pairing.Linking
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "broker.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	pepper := pairing.Pepper{1}
	return &world{
		T: t, store: store,
		enrol:    &pairing.Enrolment{Codes: store, Pairings: store, Pepper: pepper, Broker: brokerKey},
		registry: &pairing.Registry{Pairings: store, Surfaces: store, Broker: brokerKey, Origin: origin},
		links:    &pairing.Linking{Links: store, Pepper: pepper},
	}
}

// lines returns the types of all audit lines so far, and fails if any line says something in clear.
func (w *world) lines() string {
	w.Helper()
	raw, _, err := w.store.Lines(w.Context(), 0, 1000)
	if err != nil {
		w.Fatal(err)
	}
	var types []string
	for _, line := range raw {
		var l struct{ Type, Reason string }
		if err := json.Unmarshal(line, &l); err != nil {
			w.Fatal(err)
		}
		for _, clear := range []string{"192.0.2.7", "tower", "phone"} {
			if bytes.Contains(line, []byte(clear)) {
				w.Errorf("a line says %q: %s", clear, line)
			}
		}
		types = append(types, strings.TrimSuffix(l.Type+":"+l.Reason, ":"))
	}
	return strings.Join(types, " ")
}

func (w *world) wantNew(before, want string) {
	w.Helper()
	if got := strings.TrimSpace(strings.TrimPrefix(w.lines(), before)); got != want {
		w.Errorf("audit lines: %s\nwant: %s", got, want)
	}
}

func (w *world) code(ttl time.Duration) pairing.Code {
	w.Helper()
	c, _, err := w.enrol.Issue(w.Context(), ttl, "", operator, start)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func desktop(t *testing.T) *seal.Desktop {
	t.Helper()
	d, err := seal.NewDesktop(start)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func redeemOf(d *seal.Desktop, code proof.Letters) (proof.Redeem, []byte) {
	r := proof.Redeem{
		Broker: brokerKey, Code: code, Dsig: d.Dsig(), Bundle: d.Bundle(), Host: "tower", Versions: proof.OwnVersions(), Executor: "echo",
	}
	return r, r.Sign(d.Signer())
}

func (w *world) redeem(d *seal.Desktop, code proof.Letters, now time.Time) (pairing.Pairing, error) {
	r, sig := redeemOf(d, code)
	return w.enrol.Redeem(w.Context(), r, sig, network, now)
}

func (w *world) enrolled() (*seal.Desktop, pairing.Pairing) {
	w.Helper()
	d := desktop(w.T)
	p, err := w.redeem(d, w.code(0).Letters(), start)
	if err != nil {
		w.Fatal(err)
	}
	return d, p
}

func TestRedeem(t *testing.T) {
	w, d := newWorld(t), desktop(t)
	code := w.code(0)
	p, err := w.redeem(d, code.Letters(), start.Add(time.Minute))
	if err != nil || p.ID != d.Pairing() || p.State != pairing.Active || !p.Sealed {
		t.Fatalf("%+v %v", p, err)
	}
	if again, err := w.redeem(d, code.Letters(), start.Add(14*time.Minute)); err != nil || again.ID != p.ID {
		t.Errorf("a lost reply: %v", err)
	}
	if w.lines() != "code.issued code.redeemed pairing.enrolled" {
		t.Error(w.lines())
	}
	if _, err := w.redeem(d, code.Letters(), start.Add(15*time.Minute)); !errors.Is(err, pairing.ErrBadCode) {
		t.Errorf("the same after its life: %v", err)
	}
	if _, err := w.redeem(desktop(t), code.Letters(), start.Add(time.Minute)); !errors.Is(err, pairing.ErrBadCode) {
		t.Errorf("another desktop with a used code: %v", err)
	}
	second := w.code(0)
	if _, err := w.redeem(d, second.Letters(), start); !errors.Is(err, pairing.ErrConflict) {
		t.Errorf("enrolled twice: %v", err)
	}
	if _, err := w.redeem(desktop(t), second.Letters(), start); err != nil {
		t.Errorf("the code is still good: %v", err)
	}
	list, err := w.enrol.List(t.Context())
	if err != nil || len(list) != 2 || list[0].State(start) != "used" {
		t.Errorf("%+v %v", list, err)
	}
}

// Wrong, unknown, used, expired, burned and revoked codes: one answer, and a line each that says which.
func TestCodesRefusedAlike(t *testing.T) {
	w := newWorld(t)
	open, expired, used, revoked := w.code(0), w.code(time.Minute), w.code(0), w.code(0)
	if _, err := w.redeem(desktop(t), used.Letters(), start); err != nil {
		t.Fatal(err)
	}
	list, _ := w.enrol.List(t.Context())
	for _, c := range list {
		if c.Selector == string(revoked.Letters()[:4]) {
			if err := w.enrol.Revoke(t.Context(), c.ID, operator, start); err != nil {
				t.Fatal(err)
			}
			if err := w.enrol.Revoke(t.Context(), c.ID, operator, start); !errors.Is(err, pairing.ErrConflict) {
				t.Errorf("revoked twice: %v", err)
			}
		}
	}
	wrong := open.Letters()[:11] + "B"
	if wrong == open.Letters() {
		wrong = open.Letters()[:11] + "C"
	}
	unknown := flip(open.Letters()[:1]) + open.Letters()[1:]
	at := start.Add(2 * time.Minute)
	for name, letters := range map[string]proof.Letters{
		"unknown": unknown, "wrong": wrong, "expired": expired.Letters(), "used": used.Letters(), "revoked": revoked.Letters(),
	} {
		before := w.lines()
		_, err := w.redeem(desktop(t), letters, at)
		if !errors.Is(err, pairing.ErrBadCode) || err.Error() != pairing.ErrBadCode.Message {
			t.Errorf("%s: %v", name, err)
		}
		w.wantNew(before, "code.refused:"+name)
	}
	for range pairing.MaxTries - 2 { // one was counted above
		if _, err := w.redeem(desktop(t), wrong, at); !errors.Is(err, pairing.ErrBadCode) {
			t.Error(err)
		}
	}
	before := w.lines()
	if _, err := w.redeem(desktop(t), wrong, at); !errors.Is(err, pairing.ErrBadCode) {
		t.Error(err)
	}
	w.wantNew(before, "code.refused:wrong code.burned:tries")
	if _, err := w.redeem(desktop(t), open.Letters(), at); !errors.Is(err, pairing.ErrBadCode) {
		t.Errorf("the right code after %d tries: %v", pairing.MaxTries, err)
	}
}

func flip(l proof.Letters) proof.Letters {
	if l == "B" {
		return "C"
	}
	return "B"
}

// A request that is not well signed touches no code.
func TestRedeemRefusesForms(t *testing.T) {
	w, d := newWorld(t), desktop(t)
	code := w.code(0)
	before := w.lines()
	r, sig := redeemOf(d, code.Letters())
	other := r
	other.Host = "tower2"
	foreign := r
	foreign.Broker = proof.SigKey{7}
	short := r
	short.Code = short.Code[:11]
	for name, try := range map[string]func() error{
		"other host": func() error { _, err := w.enrol.Redeem(t.Context(), other, sig, network, start); return err },
		"another broker": func() error {
			_, err := w.enrol.Redeem(t.Context(), foreign, foreign.Sign(d.Signer()), network, start)
			return err
		},
		"short code": func() error {
			_, err := w.enrol.Redeem(t.Context(), short, short.Sign(d.Signer()), network, start)
			return err
		},
		"dead bundle": func() error {
			_, err := w.enrol.Redeem(t.Context(), r, sig, network, start.Add(80*time.Hour))
			return err
		},
		"long life":     func() error { _, _, err := w.enrol.Issue(t.Context(), 25*time.Hour, "", operator, start); return err },
		"negative life": func() error { _, _, err := w.enrol.Issue(t.Context(), -1, "", operator, start); return err },
		"long note": func() error {
			_, _, err := w.enrol.Issue(t.Context(), 0, strings.Repeat("x", 121), operator, start)
			return err
		},
	} {
		if err := try(); !errors.Is(err, pairing.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.wantNew(before, "")
}

// Many desktops race for one code: one gets it.
func TestRedeemRace(t *testing.T) {
	w := newWorld(t)
	code := w.code(0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		d := desktop(t)
		wg.Go(func() {
			_, err := w.redeem(d, code.Letters(), start)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, pairing.ErrBadCode) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if all, _ := w.store.Pairings(t.Context()); won != 1 || len(all) != 1 {
		t.Errorf("%d won, %d pairings", won, len(all))
	}
}

func TestPairingStates(t *testing.T) {
	w := newWorld(t)
	_, p := w.enrolled()
	ctx, before := t.Context(), w.lines()
	if err := w.registry.Unlock(ctx, p.ID, operator, start); !errors.Is(err, pairing.ErrConflict) {
		t.Errorf("unlock an active one: %v", err)
	}
	for _, step := range []func() error{
		func() error { return w.registry.Lock(ctx, p.ID, "identity_conflict", operator, start) },
		func() error { return w.registry.Unlock(ctx, p.ID, operator, start) },
		func() error { return w.registry.Revoke(ctx, p.ID, "operator", operator, start) },
		func() error { return w.registry.Revoke(ctx, p.ID, "operator", operator, start) },
	} {
		if err := step(); err != nil {
			t.Error(err)
		}
	}
	w.wantNew(before, "pairing.locked:identity_conflict pairing.unlocked pairing.revoked:operator")
	if err := w.registry.Unlock(ctx, p.ID, operator, start); !errors.Is(err, pairing.ErrConflict) {
		t.Errorf("a revoked pairing comes back: %v", err)
	}
	if err := w.registry.Revoke(ctx, proof.PairingID{1}, "x", operator, start); !errors.Is(err, pairing.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
}

func TestBundles(t *testing.T) {
	w := newWorld(t)
	d, p := w.enrolled()
	first := d.Bundle()
	if err := w.registry.Bundle(t.Context(), p, first, start); err != nil {
		t.Errorf("the stored one again: %v", err)
	}
	next := start.Add(25 * time.Hour)
	if _, err := d.Rotate(next); err != nil {
		t.Fatal(err)
	}
	if err := w.registry.Bundle(t.Context(), p, d.Bundle(), next); err != nil {
		t.Error(err)
	}
	p, _ = w.store.Pairing(t.Context(), p.ID)
	if p.BundleNo != 2 {
		t.Errorf("bundle %d", p.BundleNo)
	}
	if err := w.registry.Bundle(t.Context(), p, first, next); !errors.Is(err, pairing.ErrConflict) {
		t.Errorf("rolled back: %v", err)
	}
	if err := w.registry.Bundle(t.Context(), p, desktop(t).Bundle(), next); !errors.Is(err, pairing.ErrMalformed) {
		t.Errorf("another desktop's: %v", err)
	}
	if err := w.registry.Bundle(t.Context(), p, d.Bundle(), next.Add(80*time.Hour)); !errors.Is(err, pairing.ErrMalformed) {
		t.Errorf("a dead one: %v", err)
	}
}
