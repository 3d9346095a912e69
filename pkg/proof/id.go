package proof

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"cowork.example.com/broker/pkg/wire"
)

// PairingID names a pairing: derived from Dsig, never chosen (section 0).
type PairingID [16]byte

// SurfaceID names a surface: derived from its pairing and both of its keys. A revoked one is never accepted again.
type SurfaceID [16]byte

// LinkID is the pid of one linking session: eight random bytes.
type LinkID [8]byte

// EpochID names an epoch of event keys: eight random bytes.
type EpochID [8]byte

// Digest is a SHA-256 sum: an envelope's hash, a commitment, a transcript.
type Digest [sha256.Size]byte

// PairingOf derives the id of the pairing whose desktop signs with dsig.
func PairingOf(dsig SigKey) PairingID {
	sum := sha256.Sum256(Label(LabelPairing).Raw(dsig[:]).Bytes())
	return PairingID(sum[:16])
}

// SurfaceOf derives the id of a surface.
func SurfaceOf(pairing PairingID, ssig SigKey, skem KemKey) SurfaceID {
	sum := sha256.Sum256(Label(LabelSurface).Raw(pairing[:]).Raw(ssig[:]).Raw(skem[:]).Bytes())
	return SurfaceID(sum[:16])
}

// ParsePairingID reads the base64url form.
func ParsePairingID(s string) (id PairingID, err error) { return id, id.UnmarshalText([]byte(s)) }

// ParseSurfaceID reads the base64url form.
func ParseSurfaceID(s string) (id SurfaceID, err error) { return id, id.UnmarshalText([]byte(s)) }

// ParseDigest reads the base64url form.
func ParseDigest(s string) (d Digest, err error) { return d, d.UnmarshalText([]byte(s)) }

// String returns the 22 characters of base64url.
func (id PairingID) String() string { return wire.Bytes(id[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (id PairingID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, strictly.
func (id *PairingID) UnmarshalText(text []byte) error { return fill(id[:], text) }

// IsZero reports whether the id is unset.
func (id PairingID) IsZero() bool { return id == PairingID{} }

// String returns the 22 characters of base64url.
func (id SurfaceID) String() string { return wire.Bytes(id[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (id SurfaceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, strictly.
func (id *SurfaceID) UnmarshalText(text []byte) error { return fill(id[:], text) }

// IsZero reports whether the id is unset.
func (id SurfaceID) IsZero() bool { return id == SurfaceID{} }

// String returns the 11 characters of base64url.
func (id LinkID) String() string { return wire.Bytes(id[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (id LinkID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, strictly.
func (id *LinkID) UnmarshalText(text []byte) error { return fill(id[:], text) }

// IsZero reports whether the id is unset.
func (id LinkID) IsZero() bool { return id == LinkID{} }

// String returns the 11 characters of base64url.
func (id EpochID) String() string { return wire.Bytes(id[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (id EpochID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, strictly.
func (id *EpochID) UnmarshalText(text []byte) error { return fill(id[:], text) }

// IsZero reports whether the id is unset.
func (id EpochID) IsZero() bool { return id == EpochID{} }

// String returns the 43 characters of base64url.
func (d Digest) String() string { return wire.Bytes(d[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, strictly.
func (d *Digest) UnmarshalText(text []byte) error { return fill(d[:], text) }

// IsZero reports whether the digest is unset.
func (d Digest) IsZero() bool { return d == Digest{} }

// Equal compares in constant time.
func (d Digest) Equal(o Digest) bool { return subtle.ConstantTimeCompare(d[:], o[:]) == 1 }

// fill decodes canonical base64url of exactly len(dst) bytes.
func fill(dst, text []byte) error {
	b, err := wire.ParseBytes(string(text))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	if len(b) != len(dst) {
		return fmt.Errorf("%w: %d bytes, want %d", ErrForm, len(b), len(dst))
	}
	copy(dst, b)
	return nil
}
