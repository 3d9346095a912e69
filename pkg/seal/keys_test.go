package seal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

// Whatever prints, logs or marshals a secret gets a word instead.
func TestSecretsDoNotShow(t *testing.T) {
	p := newPair(t, proof.ScopeDecide)
	link, open, err := p.d.OpenLink(LinkConfig{Mode: proof.ModeLink, Origin: origin, Page: origin, Host: "tower", Policy: "x", Highest: proof.ScopePrompt}, start)
	if err != nil {
		t.Fatal(err)
	}
	join := must(JoinLink(link.Text(""), "", "phone", proof.ScopePrompt, start))(t)
	epoch := NewEpoch(p.d.Pairing(), proof.EpochID{}, start)
	keys := must(p.s.OpenEpoch(p.d.Dsig(), must(epoch.Box(p.d, p.grant))(t)))(t)
	secrets := [][]byte{p.d.sign.Seed(), p.d.bundles[0].priv[:], p.s.sign.Seed(), p.s.priv[:], link.secret.b[:], epoch.keys.view[:], epoch.keys.decide[:]}
	for _, v := range []any{p.d, *p.s, p.s, link, join, link.secret, &link.secret, epoch, epoch.keys, keys, open.Code, *open.AdmitDigest} {
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&log, verb+"\n", v)
		}
		for _, s := range secrets {
			for _, form := range []string{string(s), hex.EncodeToString(s), strings.ToUpper(hex.EncodeToString(s)), fmt.Sprint(s), strings.Trim(fmt.Sprintf("%#v", s), "[]byte{}")} {
				if strings.Contains(log.String(), form) {
					t.Errorf("%T shows a secret", v)
				}
			}
		}
	}
	for _, v := range []any{p.d, p.s, link, join, link.secret, epoch, keys} {
		if b, err := json.Marshal(v); err == nil {
			t.Errorf("%T marshals to %s", v, b)
		}
	}
}

func TestSecretsCompare(t *testing.T) {
	a, b := NewLinkSecret(), NewLinkSecret()
	p, q := newPair(t, proof.ScopePrompt), newPair(t, proof.ScopePrompt)
	if !a.Equal(a) || a.Equal(b) || !p.d.Equal(p.d) || p.d.Equal(q.d) || !p.s.Equal(p.s) || p.s.Equal(q.s) {
		t.Error("secrets compare wrongly")
	}
}

func TestExports(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	if _, err := p.d.Rotate(start.Add(25 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	d := must(LoadDesktop(p.d.Export()))(t)
	if !d.Equal(p.d) || !bytes.Equal(d.Bundle(), p.d.Bundle()) || !bytes.Equal(d.Export(), p.d.Export()) {
		t.Error("a desktop comes back as another one")
	}
	s := must(LoadSurface(p.s.Export()))(t)
	if !s.Equal(p.s) || s.Skem() != p.s.Skem() {
		t.Error("a surface comes back as another one")
	}
	e := p.command(t, proof.Prompt, "x", proof.Chain{})
	if j := d.Judge(e, Case{Grant: p.grant, Now: start}); j.Verdict != proof.OK {
		t.Errorf("a loaded desktop: %v", j.Verdict)
	}
	for name, bad := range map[string][]byte{"empty": nil, "a surface's": p.s.Export(), "trailing": append(p.d.Export(), 0), "cut": p.d.Export()[:60]} {
		if _, err := LoadDesktop(bad); err == nil {
			t.Errorf("%s loads as a desktop", name)
		}
	}
	if _, err := LoadSurface(p.d.Export()); err == nil {
		t.Error("a desktop's loads as a surface")
	}
}

// A bundle every 24 h; what was sealed to one opens until its end + 24 h + 10 min, and not a moment longer.
func TestBundlesRotateAndAreErased(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	e := p.command(t, proof.Prompt, "x", proof.Chain{})
	end := start.Add(proof.BundleLife + proof.BundleErase)
	for at := start; at.Before(end); at = at.Add(time.Hour) {
		if _, err := p.d.Rotate(at); err != nil {
			t.Fatal(err)
		}
	}
	if changed, _ := p.d.Rotate(end.Add(-time.Millisecond)); changed {
		t.Error("rotated twice within a day")
	}
	if _, v := p.d.OpenCommand(e); v != proof.OK {
		t.Errorf("before the end: %v", v)
	}
	if n := p.bundle(t).Number; n != 5 {
		t.Errorf("bundle %d after %s", n, end.Sub(start))
	}
	if changed, _ := p.d.Rotate(end); !changed {
		t.Error("nothing was erased")
	}
	if _, v := p.d.OpenCommand(e); v != proof.UnknownBundle {
		t.Errorf("after the end: %v", v)
	}
	loaded := must(LoadDesktop(p.d.Export()))(t)
	if _, v := loaded.OpenCommand(e); v != proof.UnknownBundle {
		t.Errorf("an export kept it: %v", v)
	}
	if changed, _ := p.d.Rotate(start.Add(-1000 * time.Hour)); changed {
		t.Error("a clock that went back rotates")
	}
	if changed, _ := p.d.Rotate(end.Add(1000 * time.Hour)); !changed || len(p.d.bundles) != 1 {
		t.Errorf("after a long sleep: %d bundles", len(p.d.bundles))
	}
}

func TestRecoverErasesAllOldHalves(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	e := p.command(t, proof.Prompt, "x", proof.Chain{})
	before := p.bundle(t).Number
	if err := p.d.Recover(start); err != nil {
		t.Fatal(err)
	}
	if _, v := p.d.OpenCommand(e); v != proof.UnknownBundle || p.bundle(t).Number != before+1 {
		t.Errorf("%v, bundle %d", v, p.bundle(t).Number)
	}
	for range 2 * maxBundles {
		if err := p.d.Recover(start); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.d.bundles) != 1 {
		t.Errorf("%d bundles", len(p.d.bundles))
	}
}
