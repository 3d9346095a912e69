package seal

import (
	"encoding/json"
	"testing"

	"cowork.example.com/broker/pkg/proof"
)

type linkingVector struct {
	Name      string     `json:"name"`
	Mode      proof.Mode `json:"mode"`
	Keys      keySteps   `json:"keys"`
	Pid       hx         `json:"pid"`
	S         hx         `json:"s,omitempty"`
	Letters   string     `json:"letters,omitempty"`
	Nameplate string     `json:"nameplate,omitempty"`
	Origin    string     `json:"origin"`
	Host      string     `json:"host"`
	Policy    string     `json:"policy"`
	Label     string     `json:"label"`
	Scope     string     `json:"scope"`
	NonceD    hx         `json:"nonce_d"`
	NonceS    hx         `json:"nonce_s"`
	Expires   int64      `json:"expires"`
	Serial    uint64     `json:"serial"`
	Steps     struct {
		Admit       hx        `json:"admit,omitempty"`
		AdmitSHA256 hx        `json:"admit_sha256,omitempty"`
		BundleD     hx        `json:"bundle_d"`
		BundleS     hx        `json:"bundle_s"`
		Commit      hx        `json:"commit"`
		MACKeyD     hx        `json:"mac_key_d,omitempty"`
		MACInputD   hx        `json:"mac_input_d,omitempty"`
		MACKeyS     hx        `json:"mac_key_s,omitempty"`
		MACInputS   hx        `json:"mac_input_s,omitempty"`
		T           hx        `json:"t"`
		TSHA256     hx        `json:"t_sha256"`
		Grant       hx        `json:"grant"`
		GrantInfo   hx        `json:"grant_info"`
		GrantHPKE   hpkeSteps `json:"grant_hpke"` // the aad is t_sha256
	} `json:"steps"`
	Messages struct {
		Open   json.RawMessage `json:"open"`
		Claim  json.RawMessage `json:"claim"`
		Offer  json.RawMessage `json:"offer"`
		Reveal json.RawMessage `json:"reveal"`
		Grant  json.RawMessage `json:"grant"`
		Finish json.RawMessage `json:"finish"`
	} `json:"messages"`
	Text         string `json:"text"` // the link, or the typed code
	Digits       string `json:"digits"`
	FinishDigits string `json:"finish_digits"`
}

func makeLinkings(t *testing.T) (out []linkingVector) {
	for _, c := range []struct {
		name  string
		mode  proof.Mode
		scope proof.Scope
	}{
		{"link, prompt", proof.ModeLink, proof.ScopePrompt},
		{"link, decide", proof.ModeLink, proof.ScopeDecide},
		{"code, prompt", proof.ModeCode, proof.ScopePrompt},
		{"code, decide", proof.ModeCode, proof.ScopeDecide},
	} {
		l := begin(t, c.mode, c.scope, c.scope)
		v := linkingVector{
			Name: c.name, Mode: c.mode, Keys: keysOf(l.d, l.from.keys), Pid: l.at.pid[:], Origin: origin, Host: "tower",
			Policy: "prompts yes", Label: "phone", Scope: c.scope.String(), NonceD: l.at.nonce[:], NonceS: l.from.nonce[:],
			Expires: l.open.Expires, Serial: 5, Text: l.at.Text("07"), Letters: string(l.at.letters),
		}
		if c.mode == proof.ModeCode {
			v.Nameplate = "07"
		}
		claim := must(l.from.Claim(start))(t)
		offer := must(l.at.Claim(claim.Bare(), start))(t)
		reveal, shown, err := l.from.Offer(offer, start)
		if err != nil {
			t.Fatal(err)
		}
		must(l.at.Reveal(reveal, start))(t)
		if c.mode == proof.ModeLink {
			v.fillLink(l)
		}
		linked := must(l.at.Digits(shown.Digits, v.Serial, start))(t)
		if needs := must(l.from.Grant(linked.Message, start))(t); needs {
			if err := l.from.FinishCode(linked.FinishCode, start); err != nil {
				t.Fatal(err)
			}
		}
		joined := must(l.from.Joined())(t)
		ts := transcriptDigest(l.at.t)
		v.Steps.BundleD, v.Steps.BundleS, v.Steps.Commit = l.at.card, l.from.card, claim.Commit[:]
		v.Steps.T, v.Steps.TSHA256, v.Steps.Grant = l.at.t[:], ts[:], linked.Signed
		v.Steps.GrantInfo = grantInfo(l.d.Pairing(), linked.Grant.Surface)
		v.Steps.GrantHPKE = hpkeByHand(t, l.from.keys.priv[:], linked.Message.Sealed[:proof.EncSize], v.Steps.GrantInfo)
		v.Digits, v.FinishDigits = shown.Digits, proof.FinishDigits(l.at.t, len(shown.Digits))
		for dst, m := range map[*json.RawMessage]any{
			&v.Messages.Open: l.open, &v.Messages.Claim: claim, &v.Messages.Offer: offer, &v.Messages.Reveal: reveal,
			&v.Messages.Grant: linked.Message, &v.Messages.Finish: joined.Finish,
		} {
			*dst = must(json.Marshal(m))(t)
		}
		out = append(out, v)
	}
	return out
}

func (v *linkingVector) fillLink(l linking) {
	s, admit := l.at.secret, l.at.secret.Admit()
	digest := admit.Digest()
	v.S, v.Steps.Admit, v.Steps.AdmitSHA256 = s.b[:], admit[:], digest[:]
	v.Steps.MACKeyD, v.Steps.MACKeyS = s.derive(infoMACDesktop), s.derive(infoMACSurface)
	v.Steps.MACInputD = proof.OfferInput(l.at.cfg.Mode, l.at.pid, proof.OwnVersions(), l.at.commit, l.at.card, l.at.nonce[:])
	v.Steps.MACInputS = proof.RevealInput(l.at.t)
}

func checkLinkings(t *testing.T) {
	for _, v := range readVector[linkingVector](t, "linking.json") {
		t.Run(v.Name, func(t *testing.T) {
			p := v.Keys.load(t)
			highest := must(proof.ParseScope(v.Scope))(t)
			digits := proof.DigitsFor(highest)
			cardD := proof.DesktopCard{
				Pairing: p.d.Pairing(), Dsig: p.d.Dsig(), Bundle: v.Keys.Bundle, Host: v.Host, Policy: v.Policy, Digits: digits,
				Versions: proof.OwnVersions(),
			}.Encode()
			cardS := proof.SurfaceCard{Ssig: p.s.Ssig(), Skem: p.s.Skem(), Label: v.Label, Scope: highest, Versions: proof.OwnVersions()}.Encode()
			commit := proof.Commit(cardS, v.NonceS)
			same(t, "bundle_d", cardD, v.Steps.BundleD)
			same(t, "bundle_s", cardS, v.Steps.BundleS)
			same(t, "commit", commit[:], v.Steps.Commit)
			T := proof.Transcript{
				Mode: v.Mode, Pid: proof.LinkID(v.Pid), VersionsD: proof.OwnVersions(), VersionsS: proof.OwnVersions(), Origin: v.Origin,
				Commit: commit, BundleD: cardD, NonceD: v.NonceD, BundleS: cardS, NonceS: v.NonceS,
			}.Sum()
			ts := transcriptDigest(T)
			same(t, "t", T[:], v.Steps.T)
			same(t, "t_sha256", ts[:], v.Steps.TSHA256)
			if proof.Digits(T, digits) != v.Digits || proof.FinishDigits(T, digits) != v.FinishDigits {
				t.Errorf("digits %s %s", proof.Digits(T, digits), proof.FinishDigits(T, digits))
			}
			checkLinkingMessages(t, v, p, T)
		})
	}
}

func checkLinkingMessages(t *testing.T, v linkingVector, p pair, T proof.Digest) {
	open := must(proof.ParseMessage[proof.Open](v.Messages.Open))(t)
	claim := must(proof.ParseMessage[proof.Claim](v.Messages.Claim))(t)
	offer := must(proof.ParseMessage[proof.Offer](v.Messages.Offer))(t)
	reveal := must(proof.ParseMessage[proof.Reveal](v.Messages.Reveal))(t)
	grant := must(proof.ParseMessage[proof.GrantMsg](v.Messages.Grant))(t)
	finish := must(proof.ParseMessage[proof.Finish](v.Messages.Finish))(t)
	again := proof.Open{Pid: proof.LinkID(v.Pid), Mode: v.Mode, Expires: v.Expires}
	if v.Mode == proof.ModeLink {
		_, pid, s, err := ParseLink(v.Text)
		if err != nil || pid != again.Pid {
			t.Fatalf("link: %v", err)
		}
		admit := s.Admit()
		digest := admit.Digest()
		again.AdmitDigest = &digest
		same(t, "s", s.b[:], v.S)
		same(t, "admit", admit[:], v.Steps.Admit)
		same(t, "admit of the claim", claim.Admit[:], v.Steps.Admit)
		same(t, "admit_sha256", digest[:], v.Steps.AdmitSHA256)
		same(t, "mac_key_d", s.derive(infoMACDesktop), v.Steps.MACKeyD)
		same(t, "mac_key_s", s.derive(infoMACSurface), v.Steps.MACKeyS)
		same(t, "mac_d", offer.MAC, s.OfferMAC(v.Steps.MACInputD))
		same(t, "mac_s", reveal.MAC, s.RevealMAC(v.Steps.MACInputS))
	} else {
		nameplate, letters, err := ParseCode(v.Text)
		if err != nil || nameplate != v.Nameplate || string(letters) != v.Letters || claim.Code != letters || claim.Nameplate != nameplate {
			t.Errorf("code: %v", err)
		}
		again.Code = letters
	}
	again.Sign(p.d.sign)
	same(t, "open", again.Sig, open.Sig)
	same(t, "link signature", proof.SignLink(p.s.sign, T), reveal.Sig)
	g, signed, err := p.s.OpenGrant(p.d.Dsig(), transcriptDigest(T), grant.Sealed)
	if err != nil || g.Serial != v.Serial {
		t.Fatalf("grant: %v", err)
	}
	same(t, "grant", signed, v.Steps.Grant)
	steps := hpkeByHand(t, v.Keys.SkemPriv, grant.Sealed[:proof.EncSize], v.Steps.GrantInfo)
	same(t, "grant key", steps.Key, v.Steps.GrantHPKE.Key)
	same(t, "grant by hand", steps.open(t, v.Steps.TSHA256, grant.Sealed[proof.EncSize:]), v.Steps.Grant)
	same(t, "grant again", g.Sign(p.d.sign), v.Steps.Grant)
	if err := finish.Verify(p.s.Ssig(), transcriptDigest(T)); err != nil {
		t.Errorf("finish: %v", err)
	}
}
