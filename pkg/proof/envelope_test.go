package proof

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

func testHeader() Header {
	g := testGrant()
	return Header{
		Kind: Prompt, Pairing: g.Pairing, Surface: g.Surface, Bundle: 3, Seq: 1,
		Iat: now.UnixMilli(), Exp: now.Add(time.Hour).UnixMilli(), Commit: Digest{5},
	}
}

func testEnvelope(h Header) []byte {
	return SignEnvelope(h.Encode(), make([]byte, EncSize+PadBlock+TagSize), ssig)
}

func TestHeaderLayout(t *testing.T) {
	h := Header{
		Kind: History, Pairing: PairingID{1}, Surface: SurfaceID{2}, Bundle: 0x0304, Seq: 0x0506, Iat: 0x0708, Exp: 0x090a,
		Prev: Digest{11}, Commit: Digest{12},
	}
	b := h.Encode()
	if len(b) != 131 || HeaderSize != 131 {
		t.Fatalf("%d bytes", len(b))
	}
	for at, want := range map[int]byte{ // the offsets of section 4
		0: 1, 1: 1, 2: 9, 3: 1, 19: 2, 41: 3, 42: 4, 49: 5, 50: 6, 57: 7, 58: 8, 65: 9, 66: 10, 67: 11, 99: 12,
	} {
		if b[at] != want {
			t.Errorf("byte %d is %d, want %d", at, b[at], want)
		}
	}
	back, err := ParseHeader(b)
	if err != nil || back != h {
		t.Errorf("%+v %v", back, err)
	}
}

func TestHeaderRefused(t *testing.T) {
	good := testHeader()
	for name, change := range map[string]func([]byte) []byte{
		"short":       func(b []byte) []byte { return b[:130] },
		"long":        func(b []byte) []byte { return append(b, 0) },
		"version 2":   func(b []byte) []byte { b[0] = 2; return b },
		"suite 2":     func(b []byte) []byte { b[1] = 2; return b },
		"kind 0":      func(b []byte) []byte { b[2] = 0; return b },
		"kind 11":     func(b []byte) []byte { b[2] = 11; return b },
		"bundle 0":    func(b []byte) []byte { clear(b[35:43]); return b },
		"seq 0":       func(b []byte) []byte { clear(b[43:51]); return b },
		"seq too big": func(b []byte) []byte { b[43] = 1; return b },
		"exp = iat":   func(b []byte) []byte { copy(b[59:67], b[51:59]); return b },
		"iat < 0":     func(b []byte) []byte { b[51] = 0x80; return b },
	} {
		if _, err := ParseHeader(change(good.Encode())); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnvelopeHoldsEveryByte(t *testing.T) {
	raw := testEnvelope(testHeader())
	e, err := ParseEnvelope(raw)
	if err != nil || e.Verify(SigKeyOf(ssig)) != nil {
		t.Fatal(err)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 0x10
		if e, err := ParseEnvelope(bad); err == nil && e.Verify(SigKeyOf(ssig)) == nil {
			t.Fatalf("byte %d flipped, and it verifies", i)
		}
	}
	if e.Verify(SigKeyOf(dsig)) == nil {
		t.Error("another key verifies")
	}
}

func TestEnvelopeSizes(t *testing.T) {
	if n := HeaderSize + EncSize + SaltSize + LengthSize + MaxPayload + TagSize + signatureSize; n > wire.MaxEnvelopeBytes || n+PadBlock <= wire.MaxEnvelopeBytes {
		t.Errorf("MaxPayload makes %d bytes, of %d", n, wire.MaxEnvelopeBytes)
	}
	if MaxPayload < wire.MaxPromptBytes+1000 {
		t.Errorf("MaxPayload %d does not carry a prompt of %d", MaxPayload, wire.MaxPromptBytes)
	}
	raw := testEnvelope(testHeader())
	biggest := SignEnvelope(testHeader().Encode(), make([]byte, EncSize+SaltSize+LengthSize+MaxPayload+TagSize), ssig)
	if _, err := ParseEnvelope(biggest); err != nil {
		t.Errorf("the biggest: %v", err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "cut": raw[:len(raw)-1], "trailing": append(bytes.Clone(raw), 0),
		"no block":       append(bytes.Clone(raw[:HeaderSize+EncSize+TagSize]), raw[:signatureSize]...),
		"one block over": SignEnvelope(testHeader().Encode(), make([]byte, EncSize+SaltSize+LengthSize+MaxPayload+TagSize+PadBlock), ssig),
	} {
		if _, err := ParseEnvelope(b); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStub(t *testing.T) {
	e, _ := ParseEnvelope(testEnvelope(testHeader()))
	s := e.Stub()
	back, err := ParseStub(s.HeaderBytes(), s.Hash[:], s.BodyHash[:], s.Sig[:])
	if err != nil || back.Verify(SigKeyOf(ssig)) != nil || back.Header != e.Header || back.Hash != e.Hash() {
		t.Fatalf("%+v %v", back, err)
	}
	back.BodyHash[0]++
	if back.Verify(SigKeyOf(ssig)) == nil {
		t.Error("another body verifies")
	}
	if _, err := ParseStub(s.HeaderBytes(), s.Hash[:31], s.BodyHash[:], s.Sig[:]); !errors.Is(err, ErrForm) {
		t.Errorf("short hash: %v", err)
	}
}

func TestChain(t *testing.T) {
	at := Chain{Seq: 5, Hash: Digest{5}}
	h := func(seq uint64, prev Digest) Header { return Header{Seq: seq, Prev: prev} }
	for name, c := range map[string]struct {
		h    Header
		hash Digest
		want Verdict
	}{
		"next":             {h(6, Digest{5}), Digest{6}, OK},
		"repeat":           {h(5, Digest{4}), Digest{5}, Repeat},
		"fork of the last": {h(5, Digest{4}), Digest{50}, Stale},
		"replay":           {h(2, Digest{1}), Digest{2}, Stale},
		"gap":              {h(7, Digest{5}), Digest{7}, Gap},
		"wrong prev":       {h(6, Digest{50}), Digest{6}, WrongPrev},
	} {
		if got := at.Check(c.h, c.hash); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var zero Chain
	if seq, prev := zero.Next(); seq != 1 || !prev.IsZero() || zero.Check(h(1, Digest{}), Digest{1}) != OK {
		t.Error("the first envelope has seq 1 and no prev")
	}
	if next := at.Advance(h(6, Digest{5}), Digest{6}); next != (Chain{6, Digest{6}}) {
		t.Errorf("%+v", next)
	}
	if got := at.Adopt(h(9, Digest{8})); got != (Chain{8, Digest{8}}) || got.Check(h(9, Digest{8}), Digest{9}) != OK {
		t.Errorf("adopted %+v", got)
	}
	if got := at.Adopt(h(3, Digest{2})); got != at {
		t.Errorf("went back to %+v", got)
	}
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Header)
		at     time.Time
		want   Verdict
	}{
		"good":                 {func(*Header) {}, now, OK},
		"other surface":        {func(h *Header) { h.Surface[0]++ }, now, UnknownSurface},
		"other pairing":        {func(h *Header) { h.Pairing[0]++ }, now, UnknownSurface},
		"scope":                {func(h *Header) { h.Kind, h.Exp = PermissionRespond, h.Iat+1 }, now, OutOfScope},
		"itself or another":    {func(h *Header) { h.Kind = RevokeSurface }, now, OK},
		"last instant":         {func(*Header) {}, now.Add(time.Hour), OK},
		"expired":              {func(*Header) {}, now.Add(time.Hour + time.Millisecond), Expired},
		"5 min ahead":          {func(*Header) {}, now.Add(-MaxSkew), OK},
		"over 5 min ahead":     {func(*Header) {}, now.Add(-MaxSkew - time.Millisecond), FromFuture},
		"24 h":                 {func(h *Header) { h.Exp = h.Iat + 86_400_000 }, now, OK},
		"over 24 h":            {func(h *Header) { h.Exp = h.Iat + 86_400_001 }, now, LifeTooLong},
		"abort over 2 min":     {func(h *Header) { h.Kind, h.Exp = Abort, h.Iat+120_001 }, now, LifeTooLong},
		"the grant's end":      {func(h *Header) { h.Iat, h.Exp = h.Iat+7_776_000_000, h.Exp+7_776_000_000 }, now.Add(GrantLife), GrantEnded},
		"just before that end": {func(h *Header) { h.Iat, h.Exp = h.Iat+7_776_000_000, h.Exp+7_776_000_000 }, now.Add(GrantLife - 1), OK},
	} {
		h := testHeader()
		c.change(&h)
		if got := testGrant().Judge(h, c.at); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestJudgeClock(t *testing.T) {
	for name, c := range map[string]struct {
		kind         Kind
		last, broker time.Duration // against now
		want         Verdict
	}{
		"all equal":             {Prompt, 0, 0, OK},
		"behind the journal":    {Prompt, time.Millisecond, 0, ClockSkew},
		"5 min off":             {Status, 0, MaxSkew, OK},
		"over 5 min behind":     {Status, 0, MaxSkew + 1, ClockSkew},
		"over 5 min ahead":      {Status, 0, -MaxSkew - 1, ClockSkew},
		"abort behind":          {Abort, time.Hour, 0, OK},
		"abort far from broker": {Abort, 0, time.Hour, OK},
	} {
		if got := JudgeClock(c.kind, now, now.Add(c.last), now.Add(c.broker)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if JudgeClock(Prompt, now, now, time.Time{}) != OK {
		t.Error("a broker that has not spoken counts")
	}
}

func TestVerdictNames(t *testing.T) {
	seen := map[string]bool{}
	for v := OK; v <= Malformed; v++ {
		if seen[v.String()] || v.String() == "" || !token(v.String()) {
			t.Errorf("verdict %d is %q", v, v)
		}
		seen[v.String()] = true
		if want := v == Stale || v == Gap || v == WrongPrev; v.OutOfOrder() != want {
			t.Errorf("%v out of order: %v", v, !want)
		}
	}
	if Verdict(200).String() != "unknown_verdict" {
		t.Error("200 has a name")
	}
}
