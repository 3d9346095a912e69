package seal

import (
	"crypto/sha256"
	"testing"

	"cowork.example.com/broker/pkg/proof"
)

type commandVector struct {
	Name    string     `json:"name"`
	Keys    keySteps   `json:"keys"`
	Kind    proof.Kind `json:"kind"`
	Payload string     `json:"payload"`
	Iat     int64      `json:"iat"`
	Exp     int64      `json:"exp"`
	Seq     uint64     `json:"seq"`
	Prev    hx         `json:"prev"`
	Salt    hx         `json:"salt"`
	Steps   struct {
		Commit    hx        `json:"commit"`
		Header    hx        `json:"header"`
		Plaintext hx        `json:"plaintext"`
		Info      hx        `json:"info"`
		HPKE      hpkeSteps `json:"hpke"`
		BodyHash  hx        `json:"body_hash"`
		SigInput  hx        `json:"sig_input"`
	} `json:"steps"`
	Envelope hx `json:"envelope"`
	Hash     hx `json:"hash"`
}

func makeCommands(t *testing.T) (out []commandVector) {
	p := newPair(t, proof.ScopeDecide)
	var chain proof.Chain
	payloads := []string{
		`{"project":"home","title":"First"}`, `{"sessionId":"ses_1","text":"Say \"hello\", naïve 🌍"}`,
		`{"sessionId":"ses_1","messageId":"msg_1"}`,
		`{"sessionId":"ses_1","request_id":"per_1","request_sha256":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","decision":"allow","shown_at":1764000000000}`,
		`{"sessionId":"ses_1","request_id":"que_1","request_sha256":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","decision":"answer","answers":[["yes"]],"shown_at":1764000000000}`,
		`{"sessionId":"ses_1","request_id":"que_1","request_sha256":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","decision":"reject","shown_at":1764000000000}`,
		`{}`, `{}`, `{"sessionId":"ses_1","limit":50}`, `{"surface":"AQAAAAAAAAAAAAAAAAAAAA"}`,
	}
	for i, kind := range proof.Kinds() {
		e := p.command(t, kind, payloads[i], chain)
		v := commandVector{
			Name: kind.String(), Keys: keysOf(p.d, p.s), Kind: kind, Payload: payloads[i], Iat: e.Header.Iat, Exp: e.Header.Exp,
			Seq: e.Header.Seq, Prev: e.Header.Prev[:], Envelope: e.Raw(),
		}
		h, body, hash := e.Header, e.BodyHash(), e.Hash()
		v.Steps.Info = commandInfo(h)
		v.Steps.HPKE = hpkeByHand(t, p.d.bundles[0].priv[:], e.Enc(), v.Steps.Info)
		v.Steps.Plaintext = v.Steps.HPKE.open(t, e.HeaderBytes(), e.Ciphertext())
		v.Salt = v.Steps.Plaintext[:proof.SaltSize]
		v.Steps.Commit, v.Steps.Header, v.Steps.BodyHash = h.Commit[:], e.HeaderBytes(), body[:]
		v.Steps.SigInput = append(append(hx(proof.LabelCommandSig), e.HeaderBytes()...), body[:]...)
		v.Hash = hash[:]
		out, chain = append(out, v), chain.Advance(h, hash)
	}
	return out
}

func checkCommands(t *testing.T) {
	cases := readVector[commandVector](t, "command.json")
	if len(cases) != len(proof.Kinds()) {
		t.Errorf("%d cases, of %d kinds", len(cases), len(proof.Kinds()))
	}
	var chain proof.Chain
	for _, v := range cases {
		t.Run(v.Name, func(t *testing.T) {
			p := v.Keys.load(t)
			h := proof.Header{
				Kind: v.Kind, Pairing: p.d.Pairing(), Surface: p.grant.Surface, Bundle: v.Keys.Number, Seq: v.Seq,
				Iat: v.Iat, Exp: v.Exp, Prev: proof.Digest(v.Prev), Commit: Commitment(v.Salt, []byte(v.Payload)),
			}
			same(t, "commit", h.Commit[:], v.Steps.Commit)
			same(t, "header", h.Encode(), v.Steps.Header)
			same(t, "plaintext", pad(v.Salt, []byte(v.Payload)), v.Steps.Plaintext)
			same(t, "info", commandInfo(h), v.Steps.Info)
			e := must(proof.ParseEnvelope(v.Envelope))(t)
			steps := hpkeByHand(t, v.Keys.DkemPriv, e.Enc(), v.Steps.Info)
			same(t, "dh", steps.DH, v.Steps.HPKE.DH)
			same(t, "shared secret", steps.SharedSecret, v.Steps.HPKE.SharedSecret)
			same(t, "key", steps.Key, v.Steps.HPKE.Key)
			same(t, "nonce", steps.BaseNonce, v.Steps.HPKE.BaseNonce)
			same(t, "opened", steps.open(t, e.HeaderBytes(), e.Ciphertext()), v.Steps.Plaintext)
			body := sha256.Sum256(append(e.Enc(), e.Ciphertext()...))
			same(t, "body hash", body[:], v.Steps.BodyHash)
			if err := p.s.Ssig().Verify(v.Steps.SigInput, e.Signature()); err != nil {
				t.Error(err)
			}
			again := proof.SignEnvelope(v.Steps.Header, v.Envelope[proof.HeaderSize:len(v.Envelope)-64], p.s.Signer())
			same(t, "envelope", again, v.Envelope)
			hash := sha256.Sum256(v.Envelope)
			same(t, "hash", hash[:], v.Hash)
			j := p.d.Judge(e, p.now(chain))
			if j.Verdict != proof.OK || string(j.Payload) != v.Payload {
				t.Errorf("%v %q", j.Verdict, j.Payload)
			}
			chain = j.Chain
		})
	}
}
