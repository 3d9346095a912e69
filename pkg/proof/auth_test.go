package proof

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestTunnelSignature(t *testing.T) {
	b := SigKeyOf(ssig)
	sig := SignTunnel(dsig, b, []byte("nonce"), "b.example.com")
	if err := VerifyTunnel(SigKeyOf(dsig), b, []byte("nonce"), "b.example.com", sig); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"key":    VerifyTunnel(SigKeyOf(ssig), b, []byte("nonce"), "b.example.com", sig),
		"broker": VerifyTunnel(SigKeyOf(dsig), SigKeyOf(dsig), []byte("nonce"), "b.example.com", sig),
		"nonce":  VerifyTunnel(SigKeyOf(dsig), b, []byte("other"), "b.example.com", sig),
		"host":   VerifyTunnel(SigKeyOf(dsig), b, []byte("nonce"), "c.example.com", sig),
		"border": VerifyTunnel(SigKeyOf(dsig), b, []byte("nonceb"), ".example.com", sig),
		"none":   VerifyTunnel(SigKeyOf(dsig), b, []byte("nonce"), "b.example.com", nil),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestSurfaceAuthCoversEverything(t *testing.T) {
	good := SurfaceAuth{
		Origin: "https://b.example.com", Broker: SigKey{1}, Pairing: PairingID{2}, Surface: SurfaceID{3}, Nonce: []byte{4}, Time: 5,
	}
	sig := good.Sign(ssig)
	if err := good.Verify(SigKeyOf(ssig), sig); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*SurfaceAuth){
		"origin": func(a *SurfaceAuth) { a.Origin += "x" }, "broker": func(a *SurfaceAuth) { a.Broker[0]++ },
		"pairing": func(a *SurfaceAuth) { a.Pairing[0]++ }, "surface": func(a *SurfaceAuth) { a.Surface[0]++ },
		"nonce": func(a *SurfaceAuth) { a.Nonce = []byte{5} }, "time": func(a *SurfaceAuth) { a.Time++ },
	} {
		a := good
		change(&a)
		if a.Verify(SigKeyOf(ssig), sig) == nil {
			t.Errorf("another %s verifies", name)
		}
	}
}

func TestToken(t *testing.T) {
	tok := Token{Pairing: PairingID{1}, Surface: SurfaceID{2}, Expires: now.Add(TokenLife).UnixMilli()}
	text := tok.Sign(dsig)
	if len(text) > maxToken {
		t.Errorf("%d characters, maxToken is %d", len(text), maxToken)
	}
	if got, err := OpenToken(SigKeyOf(dsig), text, now); err != nil || got != tok {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := OpenToken(SigKeyOf(dsig), text, now.Add(TokenLife)); !errors.Is(err, ErrRefused) {
		t.Errorf("at its end: %v", err)
	}
	if _, err := OpenToken(SigKeyOf(ssig), text, now); !errors.Is(err, ErrSignature) {
		t.Errorf("another broker: %v", err)
	}
	for _, bad := range []string{"", text + "A", text[1:], "B" + text[1:], strings.Repeat("A", 5000)} {
		if _, err := OpenToken(SigKeyOf(dsig), bad, now); err == nil {
			t.Errorf("%q opens", bad)
		}
	}
}

func TestHelloAndRevocation(t *testing.T) {
	h := Hello{Broker: SigKey{1}, Time: 2, JournalID: []byte{3}, Counter: 4, HighWater: 5}
	sig := h.Sign(dsig)
	if h.Verify(SigKeyOf(dsig), sig) != nil {
		t.Error("a good hello")
	}
	for i, change := range []func(*Hello){
		func(h *Hello) { h.Broker[0]++ }, func(h *Hello) { h.Time++ }, func(h *Hello) { h.JournalID = nil },
		func(h *Hello) { h.Counter++ }, func(h *Hello) { h.HighWater++ },
	} {
		o := h
		change(&o)
		if o.Verify(SigKeyOf(dsig), sig) == nil {
			t.Errorf("hello: change %d verifies", i)
		}
	}
	r := Revocation{Pairing: PairingID{1}, Surface: SurfaceID{2}, Time: 3}
	sig = r.Sign(ssig)
	whole := r
	whole.Surface = SurfaceID{}
	if r.Verify(SigKeyOf(ssig), sig) != nil || whole.Verify(SigKeyOf(ssig), sig) == nil {
		t.Error("a revocation of a surface ends the pairing")
	}
}

func TestRedeem(t *testing.T) {
	good := Redeem{
		Broker: SigKey{1}, Code: "BCDFGHJKLMNP", Dsig: SigKeyOf(dsig), Bundle: testBundle().Sign(dsig), Host: "tower",
		Versions: Versions{1}, Executor: "opencode",
	}
	sig := good.Sign(dsig)
	if err := good.Verify(sig); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Redeem){
		"broker": func(r *Redeem) { r.Broker[0]++ }, "code": func(r *Redeem) { r.Code = "BCDFGHJKLMNQ" },
		"key": func(r *Redeem) { r.Dsig = SigKeyOf(ssig) }, "host": func(r *Redeem) { r.Host = "tower2" },
		"bad host": func(r *Redeem) { r.Host = "<" }, "versions": func(r *Redeem) { r.Versions = Versions{1, 2} },
		"no versions": func(r *Redeem) { r.Versions = nil }, "executor": func(r *Redeem) { r.Executor = "echo" },
		"bundle": func(r *Redeem) { r.Bundle = r.Bundle[1:] },
	} {
		r := good
		change(&r)
		if r.Verify(sig) == nil {
			t.Errorf("another %s verifies", name)
		}
		if name != "bundle" && r.Digest() == good.Digest() {
			t.Errorf("another %s has the same digest", name)
		}
	}
}

func TestRequestsDigest(t *testing.T) {
	a, b := RequestDigest(PairingID{1}, []byte("x")), RequestDigest(PairingID{1}, []byte("y"))
	if a == b || a == RequestDigest(PairingID{2}, []byte("x")) {
		t.Error("two requests share a digest")
	}
	if RequestsDigest([]Digest{a, b}) != RequestsDigest([]Digest{b, a}) || RequestsDigest([]Digest{a}) == RequestsDigest(nil) {
		t.Error("the list's digest depends on order, or not on the list")
	}
	if NonceLife != time.Minute || BeatStale != 3*BeatEvery {
		t.Error("the bounds of sections 2 and 5 changed")
	}
}
