package proof

import (
	"bytes"
	"encoding/json"
	"testing"
)

// Each fuzzer holds that a decoder does not panic, and that what it takes has one encoding only.

func FuzzHeader(f *testing.F) {
	f.Add(testHeader().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseHeader(b); err == nil && !bytes.Equal(h.Encode(), b) {
			t.Errorf("%x comes back as %x", b, h.Encode())
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	f.Add(testEnvelope(testHeader()))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEnvelope(b)
		if err != nil {
			return
		}
		whole := append(append(append(bytes.Clone(e.HeaderBytes()), e.Enc()...), e.Ciphertext()...), e.Signature()...)
		if !bytes.Equal(whole, b) {
			t.Error("the parts are not the whole")
		}
		if _, err := ParseStub(e.HeaderBytes(), b[:32], b[:32], e.Signature()); err != nil {
			t.Error(err)
		}
	})
}

func FuzzDesktopCard(f *testing.F) {
	f.Add(testDesktopCard().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseDesktopCard(b); err == nil && !bytes.Equal(c.Encode(), b) {
			t.Error("two encodings")
		}
	})
}

func FuzzSurfaceCard(f *testing.F) {
	f.Add(testSurfaceCard().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseSurfaceCard(b); err == nil && !bytes.Equal(c.Encode(), b) {
			t.Error("two encodings")
		}
	})
}

// FuzzSigned signs whatever body comes, so that the decoders behind the signature are reached.
func FuzzSigned(f *testing.F) {
	for _, form := range signedForms {
		f.Add(form.bytes[:len(form.bytes)-signatureSize])
	}
	key := SigKeyOf(dsig)
	f.Fuzz(func(t *testing.T, body []byte) {
		if b, err := OpenBundle(key, statement(LabelBundle, body, dsig)); err == nil && !bytes.Equal(b.Sign(dsig)[:len(body)], body) {
			t.Error("bundle: two encodings")
		}
		if g, err := OpenGrant(key, statement(LabelGrant, body, dsig)); err == nil && !bytes.Equal(g.Sign(dsig)[:len(body)], body) {
			t.Error("grant: two encodings")
		}
		if b, err := OpenBeat(key, statement(LabelBeat, body, dsig)); err == nil && !bytes.Equal(b.Sign(dsig)[:len(body)], body) {
			t.Error("beat: two encodings")
		}
	})
}

func FuzzSealedHeaders(f *testing.F) {
	f.Add(ResultHeader{Command: "cmd_1", State: "completed", Time: 1}.Encode())
	f.Add(EpochHeader{Epoch: EpochID{1}}.Encode())
	f.Add(BatchHeader{Key: KeyView, Seq: 1, Class: ClassText, Size: 1}.Encode())
	f.Add(BatchHeader{Key: KeyDecide, Seq: 1, Class: ClassRequestOpen, Reference: Reference{1}, Size: 1}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseResultHeader(b); err == nil && !bytes.Equal(h.Encode(), b) {
			t.Error("result: two encodings")
		}
		if h, err := parseEpochHeader(b); err == nil && !bytes.Equal(h.Encode(), b) {
			t.Error("epoch: two encodings")
		}
		if h, err := parseBatchHeader(b); err == nil && !bytes.Equal(h.Encode(), b) {
			t.Error("batch: two encodings")
		}
		_, _, _, _ = splitSealed(b, 1<<16)
	})
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte(`{"mode":"code","nameplate":"07","code":"BCDFGHJK","commit":"` + Digest{1}.String() + `"}`))
	f.Add([]byte(`{"pid":"AQAAAAAAAAA","sealed":"AAAA"}`))
	f.Add([]byte(`{"pid":"AQAAAAAAAAA","mode":"code","code":"BCDFGHJK","expires":1,"sig":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		again[Open](t, b)
		again[Claim](t, b)
		again[Offer](t, b)
		again[Reveal](t, b)
		again[GrantMsg](t, b)
		again[Finish](t, b)
	})
}

func again[M Message](t *testing.T, b []byte) {
	m, err := ParseMessage[M](b)
	if err != nil {
		return
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseMessage[M](raw); err != nil {
		t.Errorf("%s: %v", raw, err)
	}
}

func FuzzText(f *testing.F) {
	f.Add("https://b.example.com:444/x", "Anna's phone")
	f.Fuzz(func(t *testing.T, url, label string) {
		if o, err := Origin(url); err == nil {
			if again, err := Origin(o); err != nil || again != o {
				t.Errorf("%q becomes %q and then %q (%v)", url, o, again, err)
			}
		}
		if c := CleanLabel(label); CheckLabel(c) != nil {
			t.Errorf("%q", c)
		}
		if l, err := ParseLetters(label, 8); err == nil && l.Check(8) != nil {
			t.Errorf("%q", string(l))
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add(Token{Expires: 1}.Sign(dsig))
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := OpenToken(SigKeyOf(dsig), s, now); err == nil && tok.Sign(dsig) != s {
			t.Error("two encodings")
		}
	})
}
