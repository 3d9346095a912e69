package seal

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

func TestResult(t *testing.T) {
	p, q := newPair(t, proof.ScopePrompt), newPair(t, proof.ScopePrompt)
	h := proof.ResultHeader{
		Pairing: p.d.Pairing(), Surface: p.grant.Surface, Envelope: proof.Digest{1}, Command: "cmd_1", State: "completed",
		Counter: 3, Time: start.UnixMilli(),
	}
	signed := must(p.d.SealResult(p.s.Skem(), h, []byte(`{"ok":true}`)))(t)
	got, body, err := p.s.OpenResult(p.d.Dsig(), signed)
	if err != nil || got != h || string(body) != `{"ok":true}` {
		t.Fatalf("%+v %q %v", got, body, err)
	}
	if r, err := proof.OpenResult(p.d.Dsig(), signed); err != nil || r.Header != h || bytes.Contains(signed, []byte("ok")) {
		t.Errorf("the broker sees %+v %v", r.Header, err)
	}
	if _, _, err := q.s.OpenResult(p.d.Dsig(), signed); !errors.Is(err, proof.ErrRefused) {
		t.Errorf("another surface: %v", err)
	}
	if _, _, err := p.s.OpenResult(q.d.Dsig(), signed); !errors.Is(err, proof.ErrSignature) {
		t.Errorf("another desktop: %v", err)
	}
	stolen := must(q.d.SealResult(p.s.Skem(), h, []byte("forged")))(t)
	if _, _, err := p.s.OpenResult(q.d.Dsig(), stolen); !errors.Is(err, proof.ErrRefused) {
		t.Errorf("another desktop that names this pairing: %v", err)
	}
	if _, err := p.d.SealResult(p.s.Skem(), h, make([]byte, proof.MaxResult)); !errors.Is(err, proof.ErrForm) {
		t.Errorf("too large: %v", err)
	}
}

func TestGrantSealed(t *testing.T) {
	p, q := newPair(t, proof.ScopePrompt), newPair(t, proof.ScopePrompt)
	signed, sealed, err := p.d.SealGrant(p.grant)
	if err != nil {
		t.Fatal(err)
	}
	got, again, err := p.s.OpenGrant(p.d.Dsig(), p.grant.Transcript, sealed)
	if err != nil || !bytes.Equal(again, signed) || got.Serial != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	for name, try := range map[string]func() error{
		"other surface":    func() error { _, _, err := q.s.OpenGrant(p.d.Dsig(), p.grant.Transcript, sealed); return err },
		"other transcript": func() error { _, _, err := p.s.OpenGrant(p.d.Dsig(), proof.Digest{8}, sealed); return err },
		"other desktop":    func() error { _, _, err := p.s.OpenGrant(q.d.Dsig(), p.grant.Transcript, sealed); return err },
		"altered": func() error {
			bad := bytes.Clone(sealed)
			bad[40]++
			_, _, err := p.s.OpenGrant(p.d.Dsig(), p.grant.Transcript, bad)
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: opens", name)
		}
	}
	// Sealed by whoever knows Skem, but signed by another desktop.
	forged := must(sealTo(p.s.Skem(), grantInfo(p.d.Pairing(), p.grant.Surface), p.grant.Transcript[:], p.grant.Sign(q.d.sign)))(t)
	if _, _, err := p.s.OpenGrant(p.d.Dsig(), p.grant.Transcript, forged); !errors.Is(err, proof.ErrSignature) {
		t.Errorf("forged: %v", err)
	}
}

func TestEpoch(t *testing.T) {
	view, decide := newPair(t, proof.ScopePrompt), newPair(t, proof.ScopeDecide)
	decide.grant.Pairing, decide.grant.Surface = view.d.Pairing(), decide.s.ID(view.d.Pairing())
	e := NewEpoch(view.d.Pairing(), proof.EpochID{9}, start)
	boxV := must(e.Box(view.d, view.grant))(t)
	boxD := must(e.Box(view.d, decide.grant))(t)
	kv, kd := must(view.s.OpenEpoch(view.d.Dsig(), boxV))(t), must(decide.s.OpenEpoch(view.d.Dsig(), boxD))(t)
	if kv.Header.Previous != (proof.EpochID{9}) || kv.Header.Decide || !kd.Header.Decide {
		t.Errorf("%+v", kv.Header)
	}
	if _, err := view.s.OpenEpoch(view.d.Dsig(), boxD); !errors.Is(err, proof.ErrRefused) {
		t.Errorf("another surface's box: %v", err)
	}
	ref := proof.Reference{1}
	text, _, err := e.Seal(view.d, Events{Key: proof.KeyView, Class: proof.ClassText, Body: []byte("[1]"), Time: start})
	if err != nil {
		t.Fatal(err)
	}
	request, seq, err := e.Seal(view.d, Events{Key: proof.KeyDecide, Class: proof.ClassRequestOpen, Reference: ref, Body: []byte("[2]"), Time: start})
	if err != nil || seq != 2 || e.Seq() != 2 {
		t.Fatalf("seq %d %v", seq, err)
	}
	for _, k := range []*EpochKeys{kv, kd} {
		if h, body, err := k.Open(view.d.Dsig(), text); err != nil || string(body) != "[1]" || h.Seq != 1 || h.Class != proof.ClassText {
			t.Errorf("%+v %q %v", h, body, err)
		}
	}
	if _, body, err := kd.Open(view.d.Dsig(), request); err != nil || string(body) != "[2]" {
		t.Errorf("%q %v", body, err)
	}
	if h, body, err := kv.Open(view.d.Dsig(), request); !errors.Is(err, ErrNoKey) || body != nil || h.Seq != 2 {
		t.Errorf("without the scope: %+v %q %v", h, body, err)
	}
	if b, err := proof.OpenBatch(view.d.Dsig(), request); err != nil || b.Header.Reference != ref || b.Header.Size != len(b.Sealed) {
		t.Errorf("the broker sees %+v %v", b.Header, err)
	}
	later := NewEpoch(view.d.Pairing(), e.ID(), start)
	other, _, _ := later.Seal(view.d, Events{Key: proof.KeyView, Class: proof.ClassText, Time: start})
	if _, _, err := kv.Open(view.d.Dsig(), other); !errors.Is(err, proof.ErrRefused) {
		t.Errorf("another epoch: %v", err)
	}
	if e.Over(start.Add(proof.EpochLife-1)) || !e.Over(start.Add(proof.EpochLife)) {
		t.Error("an epoch is over at another time than after 24 h")
	}
}

func TestEpochRefuses(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	e := NewEpoch(p.d.Pairing(), proof.EpochID{}, start)
	for name, ev := range map[string]Events{
		"too large":            {Key: proof.KeyView, Class: proof.ClassText, Body: make([]byte, MaxEvents+1)},
		"no key":               {Class: proof.ClassText},
		"no class":             {Key: proof.KeyView},
		"request without name": {Key: proof.KeyDecide, Class: proof.ClassRequestClosed},
		"text with a name":     {Key: proof.KeyView, Class: proof.ClassText, Reference: proof.Reference{1}},
	} {
		if _, _, err := e.Seal(p.d, ev); !errors.Is(err, proof.ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if e.Seq() != 0 {
		t.Errorf("refusals took %d", e.Seq())
	}
	signed, _, err := e.Seal(p.d, Events{Key: proof.KeyView, Class: proof.ClassText, Body: make([]byte, MaxEvents), Time: start})
	if err != nil || len(signed) > wire.MaxBatchBytes {
		t.Errorf("the largest batch has %d bytes (%v)", len(signed), err)
	}
	e.seq = proof.MaxNumber
	if _, _, err := e.Seal(p.d, Events{Key: proof.KeyView, Class: proof.ClassText}); !errors.Is(err, proof.ErrRefused) {
		t.Errorf("used up: %v", err)
	}
}

// No nonce serves twice, also when many goroutines seal.
func TestNoncesAreUnique(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	e := NewEpoch(p.d.Pairing(), proof.EpochID{}, start)
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[[12]byte]bool{}
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				key := proof.EpochKey(1 + i%2)
				_, seq, err := e.Seal(p.d, Events{Key: key, Class: proof.ClassText, Body: []byte("x"), Time: start})
				mu.Lock()
				if n := counterNonce(seq); err != nil || seen[n] {
					t.Errorf("seq %d again (%v)", seq, err)
				} else {
					seen[n] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 400 || e.Seq() != 400 {
		t.Errorf("%d nonces, seq %d", len(seen), e.Seq())
	}
}
