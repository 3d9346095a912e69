package seal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

func TestCommandThere(t *testing.T) {
	p := newPair(t, proof.ScopeDecide)
	var chain proof.Chain
	for i, kind := range proof.Kinds() {
		payload := strings.Repeat("x", i*60)
		e := p.command(t, kind, payload, chain)
		j := p.d.Judge(e, p.now(chain))
		if j.Verdict != proof.OK || string(j.Payload) != payload {
			t.Fatalf("%v: %v %q", kind, j.Verdict, j.Payload)
		}
		if (len(e.Ciphertext())-proof.TagSize)%proof.PadBlock != 0 {
			t.Errorf("%v: the length shows", kind)
		}
		chain = j.Chain
	}
	if chain.Seq != uint64(len(proof.Kinds())) {
		t.Errorf("the row is at %d", chain.Seq)
	}
}

func TestPayloadBounds(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	big := Command{Kind: proof.Prompt, Payload: make([]byte, proof.MaxPayload), Iat: start, Exp: start.Add(time.Hour)}
	raw := must(p.s.SealCommand(p.bundle(t), big, proof.Chain{}))(t)
	if j := p.d.Judge(must(proof.ParseEnvelope(raw))(t), p.now(proof.Chain{})); j.Verdict != proof.OK || len(j.Payload) != proof.MaxPayload {
		t.Errorf("the biggest: %v", j.Verdict)
	}
	big.Payload = make([]byte, proof.MaxPayload+1)
	if _, err := p.s.SealCommand(p.bundle(t), big, proof.Chain{}); !errors.Is(err, proof.ErrForm) {
		t.Errorf("one byte over: %v", err)
	}
	long := Command{Kind: proof.Abort, Iat: start, Exp: start.Add(2*time.Minute + 1)}
	if _, err := p.s.SealCommand(p.bundle(t), long, proof.Chain{}); !errors.Is(err, proof.ErrRefused) {
		t.Errorf("an abort of more than 2 min: %v", err)
	}
}

// What a hostile broker or surface can do to an envelope, and the verdict that it leaves.
func TestJudgeRefuses(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	first := p.command(t, proof.Prompt, "1", proof.Chain{})
	at := proof.Chain{Seq: 1, Hash: first.Hash()}
	next := p.command(t, proof.Prompt, "2", at)
	other := newPair(t, proof.ScopePrompt)
	again := func(e proof.Envelope, change func(header []byte), by ed25519.PrivateKey) proof.Envelope {
		header := bytes.Clone(e.HeaderBytes())
		change(header)
		return must(proof.ParseEnvelope(proof.SignEnvelope(header, e.Raw()[proof.HeaderSize:len(e.Raw())-64], by)))(t)
	}
	same := func([]byte) {}
	for name, c := range map[string]struct {
		e     proof.Envelope
		alter func(*Case)
		want  proof.Verdict
		moves bool // the row goes on
	}{
		"good":              {next, func(*Case) {}, proof.OK, true},
		"repeat":            {first, func(*Case) {}, proof.Repeat, false},
		"replay":            {first, func(c *Case) { c.Chain = proof.Chain{Seq: 2, Hash: next.Hash()} }, proof.Stale, false},
		"drop before":       {next, func(c *Case) { c.Chain = proof.Chain{} }, proof.Gap, false},
		"other predecessor": {next, func(c *Case) { c.Chain.Hash[0]++ }, proof.WrongPrev, false},
		"re-signed":         {again(next, same, other.s.Signer()), func(*Case) {}, proof.BadSignature, false},
		"other surface":     {other.command(t, proof.Prompt, "2", at), func(*Case) {}, proof.UnknownSurface, false},
		"revoked":           {next, func(c *Case) { c.Revoked = true }, proof.Revoked, true},
		"grant over":        {next, func(c *Case) { c.Grant.NotAfter = start.UnixMilli() }, proof.GrantEnded, true},
		"scope":             {p.command(t, proof.PermissionRespond, "2", at), func(*Case) {}, proof.OutOfScope, true},
		"expired":           {next, func(c *Case) { c.Now = start.Add(25 * time.Hour); c.Broker = c.Now }, proof.Expired, true},
		"from the future":   {next, func(c *Case) { c.Now = start.Add(-6 * time.Minute); c.Last, c.Broker = c.Now, c.Now }, proof.FromFuture, true},
		"clock behind":      {next, func(c *Case) { c.Last = start.Add(1) }, proof.ClockSkew, true},
		"clock off broker":  {next, func(c *Case) { c.Broker = start.Add(6 * time.Minute) }, proof.ClockSkew, true},
		"unknown bundle":    {again(next, func(h []byte) { h[42] = 9 }, p.s.Signer()), func(*Case) {}, proof.UnknownBundle, true},
		"other commitment":  {again(next, func(h []byte) { h[99]++ }, p.s.Signer()), func(*Case) {}, proof.Unopenable, true},
		"other kind":        {again(next, func(h []byte) { h[2] = byte(proof.CreateSession) }, p.s.Signer()), func(*Case) {}, proof.Unopenable, true},
	} {
		in := p.now(at)
		c.alter(&in)
		j := p.d.Judge(c.e, in)
		if j.Verdict != c.want || (j.Payload != nil) != (c.want == proof.OK) {
			t.Errorf("%s: %v, payload %q; want %v", name, j.Verdict, j.Payload, c.want)
		}
		if moved := j.Chain != in.Chain; moved != c.moves {
			t.Errorf("%s: the row moved: %v", name, moved)
		}
	}
}

// A surface that commits to something else than it seals is caught after opening.
func TestWrongCommitment(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	b := p.bundle(t)
	h := proof.Header{
		Kind: proof.Prompt, Pairing: b.Pairing, Surface: p.grant.Surface, Bundle: b.Number, Seq: 1,
		Iat: start.UnixMilli(), Exp: start.Add(time.Hour).UnixMilli(),
		Commit: Commitment(make([]byte, proof.SaltSize), []byte("shown")),
	}
	sealed := must(sealTo(b.Key, commandInfo(h), h.Encode(), pad(make([]byte, proof.SaltSize), []byte("meant"))))(t)
	e := must(proof.ParseEnvelope(proof.SignEnvelope(h.Encode(), sealed, p.s.Signer())))(t)
	if j := p.d.Judge(e, p.now(proof.Chain{})); j.Verdict != proof.WrongCommitment || j.Payload != nil {
		t.Errorf("%v %q", j.Verdict, j.Payload)
	}
}

func TestStubClosesPrev(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	dropped := p.command(t, proof.Prompt, "1", proof.Chain{})
	next := p.command(t, proof.Prompt, "2", proof.Chain{}.Advance(dropped.Header, dropped.Hash()))
	if j := p.d.Judge(next, p.now(proof.Chain{})); j.Verdict != proof.Gap {
		t.Fatalf("without the stub: %v", j.Verdict)
	}
	j := JudgeStub(dropped.Stub(), p.grant, proof.Chain{})
	if j.Verdict != proof.OK {
		t.Fatal(j.Verdict)
	}
	if j := p.d.Judge(next, p.now(j.Chain)); j.Verdict != proof.OK {
		t.Errorf("after the stub: %v", j.Verdict)
	}
	forged := dropped.Stub()
	forged.BodyHash[0]++
	if j := JudgeStub(forged, p.grant, proof.Chain{}); j.Verdict != proof.BadSignature || j.Chain.Seq != 0 {
		t.Errorf("forged: %v", j.Verdict)
	}
	lying := dropped.Stub()
	lying.Hash[0]++ // its signature holds: only the next envelope shows the lie
	if j := p.d.Judge(next, p.now(JudgeStub(lying, p.grant, proof.Chain{}).Chain)); j.Verdict != proof.WrongPrev {
		t.Errorf("a stub of another hash: %v", j.Verdict)
	}
	if j := JudgeStub(dropped.Stub(), newPair(t, proof.ScopePrompt).grant, proof.Chain{}); j.Verdict != proof.UnknownSurface {
		t.Errorf("another surface's: %v", j.Verdict)
	}
}

func TestUnpadTakesOnlyWhatPadGives(t *testing.T) {
	for _, n := range []int{0, 1, 251, 252, 253, 508, 1000} {
		padded := pad(nil, bytes.Repeat([]byte{1}, n))
		if _, got, err := unpad(0, padded); err != nil || len(got) != n || len(padded)%256 != 0 {
			t.Errorf("%d: %d %v", n, len(got), err)
		}
		if _, _, err := unpad(0, append(padded, make([]byte, 256)...)); err == nil {
			t.Errorf("%d: a block too many", n)
		}
		if n%256 != 252 {
			padded[len(padded)-1] = 1
			if _, _, err := unpad(0, padded); err == nil {
				t.Errorf("%d: padding that is not zero", n)
			}
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, 255), bytes.Repeat([]byte{255}, 256)} {
		if _, _, err := unpad(32, bad); !errors.Is(err, proof.ErrForm) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

func TestWeakRecipientIsRefused(t *testing.T) {
	if _, err := sealTo(proof.KemKey{}, nil, nil, nil); err == nil {
		t.Error("sealed to a point of small order")
	}
	p := newPair(t, proof.ScopePrompt)
	if _, err := openWith(p.s.kem, nil, nil, make([]byte, 48)); !errors.Is(err, ErrOpen) {
		t.Errorf("enc of small order: %v", err)
	}
}

// The gate: one seal and one open allocate at most this often, whatever the payload's size.
func TestAllocations(t *testing.T) {
	p := newPair(t, proof.ScopePrompt)
	b := p.bundle(t)
	c := Command{Kind: proof.Prompt, Payload: make([]byte, 1000), Iat: start, Exp: start.Add(time.Hour)}
	e := must(proof.ParseEnvelope(must(p.s.SealCommand(b, c, proof.Chain{}))(t)))(t)
	in := p.now(proof.Chain{})
	for _, gate := range []struct {
		name string
		max  float64
		f    func()
	}{
		{"seal", maxSealAllocs, func() { _, _ = p.s.SealCommand(b, c, proof.Chain{}) }},
		{"open", maxOpenAllocs, func() { p.d.Judge(e, in) }},
	} {
		if n := testing.AllocsPerRun(50, gate.f); n > gate.max {
			t.Errorf("%s: %.0f allocations, at most %.0f", gate.name, n, gate.max)
		} else {
			t.Logf("%s: %.0f allocations", gate.name, n)
		}
	}
}

const maxSealAllocs, maxOpenAllocs = 120, 120

func BenchmarkSealCommand(b *testing.B) {
	p := newPair(b, proof.ScopePrompt)
	bundle := p.bundle(b)
	c := Command{Kind: proof.Prompt, Payload: make([]byte, 1000), Iat: start, Exp: start.Add(time.Hour)}
	for b.Loop() {
		if _, err := p.s.SealCommand(bundle, c, proof.Chain{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	p := newPair(b, proof.ScopePrompt)
	e, in := p.command(b, proof.Prompt, "x", proof.Chain{}), p.now(proof.Chain{})
	for b.Loop() {
		if p.d.Judge(e, in).Verdict != proof.OK {
			b.Fatal("refused")
		}
	}
}
