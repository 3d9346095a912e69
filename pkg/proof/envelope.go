package proof

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"cowork.example.com/broker/pkg/wire"
)

// What this build speaks: version and suite of an envelope. Suite 1 is HPKE base with DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256, AES-256-GCM, and Ed25519.
const (
	Version = 1
	Suite   = 1
)

// Sizes of an envelope (section 4): header ‖ enc ‖ ct ‖ sig.
const (
	HeaderSize  = 3 + 16 + 16 + 4*8 + 32 + 32 // 131
	EncSize     = 32                          // HPKE's encapsulated key
	TagSize     = 16                          // AES-GCM's tag
	PadBlock    = 256                         // plaintexts are padded to a multiple of this
	SaltSize    = 32
	LengthSize  = 4
	minEnvelope = HeaderSize + EncSize + PadBlock + TagSize + signatureSize

	// MaxPayload is the longest payload whose envelope has at most wire.MaxEnvelopeBytes.
	MaxPayload = (wire.MaxEnvelopeBytes-HeaderSize-EncSize-TagSize-signatureSize)/PadBlock*PadBlock - SaltSize - LengthSize
)

// Header is the part of an envelope that everyone can read: 131 bytes, aad of the seal and covered by the signature.
type Header struct {
	Kind    Kind
	Pairing PairingID
	Surface SurfaceID
	Bundle  uint64 // number of the Dkem bundle it is sealed to
	Seq     uint64 // of this surface, from 1
	Iat     int64  // issued at, Unix ms by the desktop's clock
	Exp     int64  // not to be started after, Unix ms by the desktop's clock
	Prev    Digest // hash of this surface's envelope before; zero for the first
	Commit  Digest // SHA-256("odp/pt\0" ‖ salt ‖ payload)
}

// Encode returns the 131 bytes.
func (h Header) Encode() []byte {
	b := append(make([]byte, 0, HeaderSize), Version, Suite, byte(h.Kind))
	b = append(b, h.Pairing[:]...)
	b = append(b, h.Surface[:]...)
	for _, n := range [...]uint64{h.Bundle, h.Seq, uint64(h.Iat), uint64(h.Exp)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, h.Prev[:]...)
	return append(b, h.Commit[:]...)
}

// ParseHeader reads 131 bytes. Version, suite and kind must be known, numbers at most MaxNumber, seq and bundle at
// least 1, exp after iat.
func ParseHeader(b []byte) (Header, error) {
	var h Header
	if len(b) != HeaderSize {
		return h, fmt.Errorf("%w: a header has %d bytes", ErrForm, HeaderSize)
	}
	if b[0] != Version || b[1] != Suite {
		return h, fmt.Errorf("%w: version %d, suite %d; this end speaks %d, %d", ErrForm, b[0], b[1], Version, Suite)
	}
	h.Kind = Kind(b[2])
	copy(h.Pairing[:], b[3:])
	copy(h.Surface[:], b[19:])
	n := func(at int) uint64 { return binary.BigEndian.Uint64(b[at:]) }
	h.Bundle, h.Seq = n(35), n(43)
	iat, exp := n(51), n(59)
	copy(h.Prev[:], b[67:])
	copy(h.Commit[:], b[99:])
	if max(h.Bundle, h.Seq, iat, exp) > MaxNumber || h.Bundle == 0 || h.Seq == 0 || exp <= iat {
		return Header{}, fmt.Errorf("%w: a number of the header is out of range", ErrForm)
	}
	h.Iat, h.Exp = int64(iat), int64(exp)
	if !h.Kind.Valid() {
		return Header{}, fmt.Errorf("%w: no such kind", ErrForm)
	}
	return h, nil
}

// Envelope is one signed, sealed command, taken apart. Its slices alias what was parsed.
type Envelope struct {
	Header Header
	raw    []byte
}

// SignEnvelope puts header and sealed (enc ‖ ct) together and signs over
// "odp/cmd-sig\0" ‖ header ‖ SHA-256(enc ‖ ct).
func SignEnvelope(header, sealed []byte, ssig ed25519.PrivateKey) []byte {
	sum := sha256.Sum256(sealed)
	raw := make([]byte, 0, len(header)+len(sealed)+signatureSize)
	raw = append(append(raw, header...), sealed...)
	return append(raw, ed25519.Sign(ssig, commandInput(header, sum))...)
}

func commandInput(header []byte, body Digest) []byte {
	return Label(LabelCommandSig).Raw(header).Raw(body[:]).Bytes()
}

// ParseEnvelope takes an envelope apart. It looks at form and size only: at most wire.MaxEnvelopeBytes, ciphertext a
// multiple of PadBlock and a tag.
func ParseEnvelope(raw []byte) (Envelope, error) {
	if len(raw) < minEnvelope || len(raw) > wire.MaxEnvelopeBytes {
		return Envelope{}, fmt.Errorf("%w: an envelope has %d to %d bytes", ErrForm, minEnvelope, wire.MaxEnvelopeBytes)
	}
	if (len(raw)-HeaderSize-EncSize-TagSize-signatureSize)%PadBlock != 0 {
		return Envelope{}, fmt.Errorf("%w: the plaintext is not padded to %d bytes", ErrForm, PadBlock)
	}
	h, err := ParseHeader(raw[:HeaderSize])
	if err != nil {
		return Envelope{}, err
	}
	return Envelope{Header: h, raw: raw}, nil
}

// Raw returns the whole envelope.
func (e Envelope) Raw() []byte { return e.raw }

// HeaderBytes returns the header as it was signed.
func (e Envelope) HeaderBytes() []byte { return e.raw[:HeaderSize] }

// Enc returns HPKE's encapsulated key.
func (e Envelope) Enc() []byte { return e.raw[HeaderSize : HeaderSize+EncSize] }

// Ciphertext returns what HPKE sealed.
func (e Envelope) Ciphertext() []byte { return e.raw[HeaderSize+EncSize : len(e.raw)-signatureSize] }

// Signature returns the last 64 bytes.
func (e Envelope) Signature() []byte { return e.raw[len(e.raw)-signatureSize:] }

// Hash is SHA-256 of the whole envelope: the next one's prev, and the idempotency key.
func (e Envelope) Hash() Digest { return sha256.Sum256(e.raw) }

// BodyHash is SHA-256(enc ‖ ct).
func (e Envelope) BodyHash() Digest {
	return sha256.Sum256(e.raw[HeaderSize : len(e.raw)-signatureSize])
}

// Verify checks the signature by the surface's key, without opening anything.
func (e Envelope) Verify(ssig SigKey) error {
	return ssig.Verify(commandInput(e.HeaderBytes(), e.BodyHash()), e.Signature())
}

// Stub returns what stands in for this envelope when it ended at the broker.
func (e Envelope) Stub() Stub {
	return Stub{Header: e.Header, Hash: e.Hash(), BodyHash: e.BodyHash(), Sig: Signature(e.Signature()), raw: e.HeaderBytes()}
}

// Stub is delivered in place of an envelope that ended at the broker, so that prev closes. Its Hash is the broker's
// word until the surface's next envelope names it as prev.
type Stub struct {
	Header   Header
	Hash     Digest // of the whole envelope
	BodyHash Digest
	Sig      Signature
	raw      []byte
}

// ParseStub reads the four parts as the tunnel carries them.
func ParseStub(header, hash, bodyHash, sig []byte) (Stub, error) {
	h, err := ParseHeader(header)
	if err != nil {
		return Stub{}, err
	}
	s := Stub{Header: h, raw: header}
	if len(hash) != len(s.Hash) || len(bodyHash) != len(s.BodyHash) || len(sig) != len(s.Sig) {
		return Stub{}, fmt.Errorf("%w: a stub has two hashes of 32 bytes and a signature of 64", ErrForm)
	}
	copy(s.Hash[:], hash)
	copy(s.BodyHash[:], bodyHash)
	copy(s.Sig[:], sig)
	return s, nil
}

// HeaderBytes returns the header as it was signed.
func (s Stub) HeaderBytes() []byte { return s.raw }

// Verify checks the signature by the surface's key.
func (s Stub) Verify(ssig SigKey) error {
	return ssig.Verify(commandInput(s.raw, s.BodyHash), s.Sig[:])
}
