package proof

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"fmt"

	"cowork.example.com/broker/pkg/wire"
)

// SigKey is an Ed25519 public key (Dsig, Ssig, or the broker's).
type SigKey [ed25519.PublicKeySize]byte

// KemKey is an X25519 public key (Dkem or Skem).
type KemKey [32]byte

// Signature is an Ed25519 signature.
type Signature [ed25519.SignatureSize]byte

// SigKeyOf returns the public half of a signing key.
func SigKeyOf(key ed25519.PrivateKey) SigKey { return SigKey(key[ed25519.SeedSize:]) }

// String returns the 43 characters of base64url.
func (k SigKey) String() string { return wire.Bytes(k[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (k SigKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, strictly; a point of small order is refused.
func (k *SigKey) UnmarshalText(text []byte) error {
	if err := fill(k[:], text); err != nil {
		return err
	}
	return k.Check()
}

// Check refuses the points of small order, under which one signature verifies for many messages.
func (k SigKey) Check() error {
	sign := k[31] & 0x80
	k[31] &^= 0x80
	for _, weak := range smallOrder {
		if k == weak {
			return fmt.Errorf("%w: an Ed25519 key of small order (sign bit %d)", ErrRefused, sign>>7)
		}
	}
	return nil
}

// Verify reports whether sig is by this key over input, which starts with its label.
func (k SigKey) Verify(input []byte, sig []byte) error {
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(k[:], input, sig) {
		return ErrSignature
	}
	return nil
}

// String returns the 43 characters of base64url.
func (k KemKey) String() string { return wire.Bytes(k[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (k KemKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, strictly; a point of small order is refused.
func (k *KemKey) UnmarshalText(text []byte) error {
	if err := fill(k[:], text); err != nil {
		return err
	}
	return k.Check()
}

// Check refuses the points of small order: any exchange with them gives zero, which crypto/ecdh reports.
func (k KemKey) Check() error {
	pub, err := ecdh.X25519().NewPublicKey(k[:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	if _, err := probe.ECDH(pub); err != nil {
		return fmt.Errorf("%w: an X25519 key of small order", ErrRefused)
	}
	return nil
}

// probe is no secret: any scalar shows whether a point has small order.
var probe = func() *ecdh.PrivateKey {
	key, err := ecdh.X25519().NewPrivateKey([]byte("a public scalar to test points.."))
	if err != nil {
		panic(err) // 32 constant bytes are always a scalar
	}
	return key
}()

// smallOrder lists the encodings of Ed25519's eight points of small order with the sign bit cleared, the
// non-canonical ones (y = p, y = p + 1) included.
var smallOrder = [...]SigKey{
	{},
	{0x01},
	{
		0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
	},
	{
		0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
	},
	nearP(0xec), nearP(0xed), nearP(0xee),
}

// nearP is the little-endian encoding of 2^255 - 256 + low: p-1, p and p+1 for low 0xec, 0xed and 0xee.
func nearP(low byte) (k SigKey) {
	for i := range k {
		k[i] = 0xff
	}
	k[0], k[31] = low, 0x7f
	return k
}
