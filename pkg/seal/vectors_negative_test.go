package seal

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

// negativeVector is something that must be refused. Object says what Data (hex) or Text is; Want is the verdict of
// an envelope, "form" or "refused" for the rest.
type negativeVector struct {
	Name    string   `json:"name"`
	Object  string   `json:"object"` // envelope, surface_card, desktop_card, grant, claim, offer, link, code
	Data    hx       `json:"data,omitempty"`
	Text    string   `json:"text,omitempty"`
	Keys    keySteps `json:"keys"`
	Now     int64    `json:"now,omitempty"`      // envelope: the desktop's clock
	LastSeq uint64   `json:"last_seq,omitempty"` // envelope: where the row stands
	Last    hx       `json:"last_hash,omitempty"`
	Want    string   `json:"want"`
}

func makeNegatives(t *testing.T) (out []negativeVector) {
	p, q := newPair(t, proof.ScopeDecide), newPair(t, proof.ScopeDecide)
	keys := keysOf(p.d, p.s)
	first := p.command(t, proof.Prompt, `{"text":"1"}`, proof.Chain{})
	at := proof.Chain{}.Advance(first.Header, first.Hash())
	second := p.command(t, proof.Prompt, `{"text":"2"}`, at)
	envelope := func(name string, data []byte, chain proof.Chain, now time.Time, want proof.Verdict) {
		out = append(out, negativeVector{
			Name: name, Object: "envelope", Data: data, Keys: keys, Now: now.UnixMilli(), LastSeq: chain.Seq, Last: chain.Hash[:], Want: want.String(),
		})
	}
	flipped, cut := bytes.Clone(second.Raw()), second.Raw()
	flipped[66] ^= 1
	body := second.Raw()[proof.HeaderSize : len(cut)-64]
	envelope("flipped header bit", flipped, at, start, proof.BadSignature)
	envelope("wrong surface", q.command(t, proof.Prompt, "{}", at).Raw(), at, start, proof.UnknownSurface)
	envelope("re-signed by another key", proof.SignEnvelope(second.HeaderBytes(), body, q.s.Signer()), at, start, proof.BadSignature)
	envelope("replay", first.Raw(), at.Advance(second.Header, second.Hash()), start, proof.Stale)
	envelope("gap", second.Raw(), proof.Chain{}, start, proof.Gap)
	envelope("wrong prev", second.Raw(), proof.Chain{Seq: 1, Hash: proof.Digest{1}}, start, proof.WrongPrev)
	envelope("expired", second.Raw(), at, start.Add(25*time.Hour), proof.Expired)
	envelope("from the future", second.Raw(), at, start.Add(-6*time.Minute), proof.FromFuture)
	envelope("wrong commitment", wrongCommitment(t, p, at), at, start, proof.WrongCommitment)
	header := bytes.Clone(second.HeaderBytes())
	header[2] = byte(proof.RevokePairing)
	envelope("another kind in the header, re-signed by the surface", proof.SignEnvelope(header, body, p.s.Signer()), at, start, proof.Unopenable)
	enc := append(make([]byte, proof.EncSize), body[proof.EncSize:]...)
	envelope("small-order point as enc", proof.SignEnvelope(second.HeaderBytes(), enc, p.s.Signer()), at, start, proof.Unopenable)
	header = bytes.Clone(second.HeaderBytes())
	header[42] = 99
	envelope("unknown bundle", proof.SignEnvelope(header, body, p.s.Signer()), at, start, proof.UnknownBundle)

	form := func(name, object string, data []byte, text, want string) {
		out = append(out, negativeVector{Name: name, Object: object, Data: data, Text: text, Keys: keys, Want: want})
	}
	form("version 2", "envelope", append([]byte{2}, second.Raw()[1:]...), "", "form")
	form("trailing byte", "envelope", append(bytes.Clone(second.Raw()), 0), "", "form")
	card := proof.SurfaceCard{Ssig: p.s.Ssig(), Skem: p.s.Skem(), Label: "phone", Scope: proof.ScopePrompt, Versions: proof.OwnVersions()}
	weakKem, weakSig, long, tag := card, card, card, card
	weakKem.Skem, weakSig.Ssig, long.Label, tag.Label = proof.KemKey{1}, proof.SigKey{1}, strings.Repeat("a", 41), "<b>"
	form("small-order Skem", "surface_card", weakKem.Encode(), "", "refused")
	form("small-order Ssig", "surface_card", weakSig.Encode(), "", "refused")
	form("over-long label", "surface_card", long.Encode(), "", "form")
	form("label with a tag", "surface_card", tag.Encode(), "", "form")
	form("trailing byte", "surface_card", append(card.Encode(), 0), "", "form")
	form("a grant of another desktop", "grant", p.grant.Sign(q.d.sign), "", "signature")
	commit := proof.Digest{1}.String()
	form("wrong mode: a link's parts in code mode", "claim", nil, `{"mode":"code","pid":"AQAAAAAAAAA","admit":"`+commit+`","commit":"`+commit+`"}`, "form")
	form("non-canonical base64url", "claim", nil, `{"mode":"code","commit":"`+commit[:42]+`B"}`, "form")
	form("padded base64url", "claim", nil, `{"mode":"code","commit":"`+commit+`="}`, "form")
	form("unknown field", "claim", nil, `{"mode":"code","commit":"`+commit+`","x":1}`, "form")
	form("link of another version", "link", nil, strings.Replace(FormatLink(origin, proof.LinkID{1}, NewLinkSecret()), "#1.", "#2.", 1), "form")
	form("code with a vowel", "code", nil, "07-BCDF-GHJA", "form")
	return out
}

func wrongCommitment(t *testing.T, p pair, at proof.Chain) []byte {
	b := p.bundle(t)
	h := proof.Header{
		Kind: proof.Prompt, Pairing: b.Pairing, Surface: p.grant.Surface, Bundle: b.Number, Seq: 2, Prev: at.Hash,
		Iat: start.UnixMilli(), Exp: start.Add(time.Hour).UnixMilli(), Commit: Commitment(make([]byte, proof.SaltSize), []byte("shown")),
	}
	sealed := must(sealTo(b.Key, commandInfo(h), h.Encode(), pad(make([]byte, proof.SaltSize), []byte("meant"))))(t)
	return proof.SignEnvelope(h.Encode(), sealed, p.s.Signer())
}

func checkNegatives(t *testing.T) {
	cases := readVector[negativeVector](t, "negative.json")
	if len(cases) < 20 {
		t.Errorf("%d negative cases", len(cases))
	}
	for _, v := range cases {
		t.Run(v.Object+" "+v.Name, func(t *testing.T) {
			p := v.Keys.load(t)
			if got := v.outcome(p); got != v.Want {
				t.Errorf("%s, want %s", got, v.Want)
			}
		})
	}
}

func (v negativeVector) outcome(p pair) string {
	var err error
	switch v.Object {
	case "envelope":
		e, formErr := proof.ParseEnvelope(v.Data)
		if formErr == nil {
			now := time.UnixMilli(v.Now)
			return p.d.Judge(e, Case{Grant: p.grant, Chain: proof.Chain{Seq: v.LastSeq, Hash: proof.Digest(v.Last)}, Now: now, Broker: now}).Verdict.String()
		}
		err = formErr
	case "surface_card":
		_, err = proof.ParseSurfaceCard(v.Data)
	case "grant":
		_, err = proof.OpenGrant(p.d.Dsig(), v.Data)
	case "claim":
		_, err = proof.ParseMessage[proof.Claim](json.RawMessage(v.Text))
	case "link":
		_, _, _, err = ParseLink(v.Text)
	case "code":
		_, _, err = ParseCode(v.Text)
	}
	return outcomeOf(err)
}
