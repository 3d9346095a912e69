package seal

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/subtle"
	"fmt"

	"cowork.example.com/broker/pkg/proof"
)

// Surface holds the secrets of one pairing at a surface: Ssig and Skem. Each linking makes new ones. It prints as
// dots and is safe for concurrent use.
type Surface struct {
	hidden
	sign ed25519.PrivateKey
	priv [32]byte
	kem  hpke.PrivateKey
}

// NewSurface makes both keys.
func NewSurface() (*Surface, error) {
	_, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a signing key: %w", err)
	}
	kem, err := suiteKEM.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("making a sealing key: %w", err)
	}
	priv, err := kem.Bytes()
	if err != nil {
		return nil, fmt.Errorf("making a sealing key: %w", err)
	}
	return &Surface{sign: sign, priv: [32]byte(priv), kem: kem}, nil
}

// Ssig returns the public signing key.
func (s *Surface) Ssig() proof.SigKey { return proof.SigKeyOf(s.sign) }

// Skem returns the public sealing key.
func (s *Surface) Skem() proof.KemKey { return proof.KemKey(s.kem.PublicKey().Bytes()) }

// ID returns the surface's id in a pairing.
func (s *Surface) ID(pairing proof.PairingID) proof.SurfaceID {
	return proof.SurfaceOf(pairing, s.Ssig(), s.Skem())
}

// Signer returns the private signing key, for the Sign functions of proof.
func (s *Surface) Signer() ed25519.PrivateKey { return s.sign }

// Equal compares both keys in constant time.
func (s *Surface) Equal(o *Surface) bool {
	return subtle.ConstantTimeCompare(s.sign, o.sign)&subtle.ConstantTimeCompare(s.priv[:], o.priv[:]) == 1
}

// Export returns both keys as secret bytes for a keystore (0600).
func (s *Surface) Export() []byte {
	var e proof.Encoder
	return e.Byte(exportVersion).Field(s.sign.Seed()).Field(s.priv[:]).Bytes()
}

// LoadSurface reads an export.
func LoadSurface(exported []byte) (*Surface, error) {
	d := proof.NewDecoder(exported)
	version, seed, priv := d.Byte(), make([]byte, ed25519.SeedSize), [32]byte{}
	d.Fill(seed)
	d.Fill(priv[:])
	if d.Done() != nil || version != exportVersion {
		return nil, fmt.Errorf("%w: not the keys of a surface", proof.ErrForm)
	}
	kem, err := suiteKEM.NewPrivateKey(priv[:])
	if err != nil {
		return nil, fmt.Errorf("%w: not the keys of a surface", proof.ErrForm)
	}
	return &Surface{sign: ed25519.NewKeyFromSeed(seed), priv: priv, kem: kem}, nil
}
