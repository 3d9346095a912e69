package seal

import (
	"bytes"
	"testing"

	"cowork.example.com/broker/pkg/proof"
)

func FuzzParseLink(f *testing.F) {
	f.Add(FormatLink(origin, proof.LinkID{1}, NewLinkSecret()))
	f.Fuzz(func(t *testing.T, s string) {
		page, pid, secret, err := ParseLink(s)
		if err != nil {
			return
		}
		if again, p, sec, err := ParseLink(FormatLink(page, pid, secret)); err != nil || again != page || p != pid || !sec.Equal(secret) {
			t.Errorf("%q comes back as another one (%v)", s, err)
		}
	})
}

func FuzzParseCode(f *testing.F) {
	f.Add("07-BCDF-GHJK")
	f.Fuzz(func(t *testing.T, s string) {
		if n, l, err := ParseCode(s); err == nil {
			if n2, l2, err := ParseCode(FormatCode(n, l)); err != nil || n != n2 || l != l2 {
				t.Errorf("%q comes back as another one", s)
			}
		}
	})
}

func FuzzUnpad(f *testing.F) {
	f.Add(pad(make([]byte, 32), []byte("payload")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if head, payload, err := unpad(32, b); err == nil && !bytes.Equal(pad(head, payload), b) {
			t.Error("two paddings of one payload")
		}
	})
}

func FuzzLoad(f *testing.F) {
	p := newPair(f, proof.ScopePrompt)
	f.Add(p.d.Export())
	f.Add(p.s.Export())
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := LoadDesktop(b); err == nil && !bytes.Equal(d.Export(), b) {
			t.Error("two exports of one desktop")
		}
		if s, err := LoadSurface(b); err == nil && !bytes.Equal(s.Export(), b) {
			t.Error("two exports of one surface")
		}
	})
}

// FuzzJudge gives a desktop any envelope that its surface signed.
func FuzzJudge(f *testing.F) {
	p := newPair(f, proof.ScopePrompt)
	good := p.command(f, proof.Prompt, "x", proof.Chain{})
	f.Add(good.HeaderBytes(), good.Raw()[proof.HeaderSize:len(good.Raw())-64])
	f.Fuzz(func(t *testing.T, header, sealed []byte) {
		e, err := proof.ParseEnvelope(proof.SignEnvelope(header, sealed, p.s.Signer()))
		if err != nil {
			return
		}
		j := p.d.Judge(e, p.now(proof.Chain{}))
		if j.Verdict == proof.OK && !bytes.Equal(e.Raw()[:len(e.Raw())-64], good.Raw()[:len(good.Raw())-64]) {
			t.Error("an envelope that nobody sealed opens")
		}
	})
}

func FuzzOpenSealed(f *testing.F) {
	p := newPair(f, proof.ScopeDecide)
	signed, _ := p.d.SealResult(p.s.Skem(), proof.ResultHeader{Pairing: p.d.Pairing(), Surface: p.grant.Surface, Command: "c", State: "s"}, nil)
	box, _ := NewEpoch(p.d.Pairing(), proof.EpochID{}, start).Box(p.d, p.grant)
	_, grant, _ := p.d.SealGrant(p.grant)
	f.Add(signed)
	f.Add(box)
	f.Add(grant)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := p.s.OpenResult(p.d.Dsig(), b); err == nil && !bytes.Equal(b, signed) {
			t.Error("a result that nobody signed opens")
		}
		if _, err := p.s.OpenEpoch(p.d.Dsig(), b); err == nil && !bytes.Equal(b, box) {
			t.Error("an epoch that nobody signed opens")
		}
		if _, _, err := p.s.OpenGrant(p.d.Dsig(), p.grant.Transcript, b); err == nil && !bytes.Equal(b, grant) {
			t.Error("a grant that nobody sealed opens")
		}
	})
}
