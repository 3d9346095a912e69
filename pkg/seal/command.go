package seal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

// Command is what a surface sends. Payload is the JSON of the kind exactly as it is to arrive.
type Command struct {
	Kind    proof.Kind
	Payload []byte
	Iat     time.Time // by the desktop's clock, as the surface estimates it
	Exp     time.Time // at most the kind's Life after Iat
}

// SealCommand makes the envelope that comes next in chain, sealed to bundle and signed by Ssig. The caller stores it
// durably before it posts it, and repeats only these bytes.
func (s *Surface) SealCommand(bundle proof.Bundle, c Command, chain proof.Chain) ([]byte, error) {
	if len(c.Payload) > proof.MaxPayload {
		return nil, fmt.Errorf("%w: a payload has at most %d bytes", proof.ErrForm, proof.MaxPayload)
	}
	if !c.Kind.Valid() || c.Exp.Sub(c.Iat) > c.Kind.Life() || !c.Exp.After(c.Iat) {
		return nil, fmt.Errorf("%w: this kind lives at most %s", proof.ErrRefused, c.Kind.Life())
	}
	var salt [proof.SaltSize]byte
	rand.Read(salt[:]) // never fails
	h := proof.Header{
		Kind: c.Kind, Pairing: bundle.Pairing, Surface: s.ID(bundle.Pairing), Bundle: bundle.Number,
		Iat: c.Iat.UnixMilli(), Exp: c.Exp.UnixMilli(), Commit: Commitment(salt[:], c.Payload),
	}
	h.Seq, h.Prev = chain.Next()
	header := h.Encode()
	sealed, err := sealTo(bundle.Key, commandInfo(h), header, pad(salt[:], c.Payload))
	if err != nil {
		return nil, err
	}
	return proof.SignEnvelope(header, sealed, s.sign), nil
}

// Commitment returns SHA-256("odp/pt\0" ‖ salt ‖ payload), which a header carries.
func Commitment(salt, payload []byte) proof.Digest {
	return sha256.Sum256(proof.Label(proof.LabelPlaintext).Raw(salt).Raw(payload).Bytes())
}

func commandInfo(h proof.Header) []byte {
	return info(proof.LabelCommand, h.Pairing[:], h.Surface[:], binary.BigEndian.AppendUint64(nil, h.Bundle))
}

// OpenCommand opens an envelope: OK with the payload, or UnknownBundle, Unopenable or WrongCommitment. Whose it is
// and whether it may run is for Judge to say.
func (d *Desktop) OpenCommand(e proof.Envelope) ([]byte, proof.Verdict) {
	half := d.half(e.Header.Bundle)
	if half == nil {
		return nil, proof.UnknownBundle
	}
	sealed := e.Raw()[proof.HeaderSize : len(e.Raw())-len(e.Signature())]
	padded, err := openWith(half, commandInfo(e.Header), e.HeaderBytes(), sealed)
	if err != nil {
		return nil, proof.Unopenable
	}
	salt, payload, err := unpad(proof.SaltSize, padded)
	if err != nil {
		return nil, proof.Unopenable
	}
	if !Commitment(salt, payload).Equal(e.Header.Commit) {
		return nil, proof.WrongCommitment
	}
	return payload, proof.OK
}

// Case is what a desktop knows when an envelope of a surface arrives.
type Case struct {
	Grant   proof.Grant // of the surface that the header names, from the desktop's own table
	Revoked bool
	Chain   proof.Chain // where that surface's row stands
	Now     time.Time   // desktop's clock
	Last    time.Time   // the journal's newest time
	Broker  time.Time   // the broker's clock as of now; zero when unknown
}

// Judged is the outcome for one envelope.
type Judged struct {
	Verdict proof.Verdict
	Payload []byte      // when Verdict is OK
	Chain   proof.Chain // to be stored with the verdict: moved on unless the row was out of order or the signature wrong
}

// Judge decides about one envelope in the order of section 4: signature, order, revocation, grant and times, clock,
// seal, commitment. BadSignature and UnknownSurface are no verdicts on the surface's row and are not journalled as
// such; every other one is final. The policy comes after.
func (d *Desktop) Judge(e proof.Envelope, c Case) Judged {
	j := Judged{Chain: c.Chain}
	h := e.Header
	if h.Pairing != c.Grant.Pairing || h.Surface != c.Grant.Surface || h.Pairing != d.Pairing() {
		j.Verdict = proof.UnknownSurface
		return j
	}
	if e.Verify(c.Grant.Ssig) != nil {
		j.Verdict = proof.BadSignature
		return j
	}
	hash := e.Hash()
	if j.Verdict = c.Chain.Check(h, hash); j.Verdict != proof.OK {
		return j
	}
	j.Chain = c.Chain.Advance(h, hash)
	if j.Verdict = c.allowed(h); j.Verdict == proof.OK {
		j.Payload, j.Verdict = d.OpenCommand(e)
	}
	return j
}

func (c Case) allowed(h proof.Header) proof.Verdict {
	if c.Revoked {
		return proof.Revoked
	}
	if v := proof.JudgeClock(h.Kind, c.Now, c.Last, c.Broker); v != proof.OK {
		return v
	}
	return c.Grant.Judge(h, c.Now)
}

// JudgeStub decides about what stands in for an envelope that ended at the broker: its row moves on if it is next.
func JudgeStub(s proof.Stub, g proof.Grant, chain proof.Chain) Judged {
	j := Judged{Chain: chain}
	switch {
	case s.Header.Pairing != g.Pairing || s.Header.Surface != g.Surface:
		j.Verdict = proof.UnknownSurface
	case s.Verify(g.Ssig) != nil:
		j.Verdict = proof.BadSignature
	default:
		if j.Verdict = chain.Check(s.Header, s.Hash); j.Verdict == proof.OK {
			j.Chain = chain.Advance(s.Header, s.Hash)
		}
	}
	return j
}
