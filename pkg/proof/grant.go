package proof

import (
	"crypto/ed25519"
	"fmt"
	"time"
)

// GrantLife is how long a grant lives; it is renewed by use under a higher serial.
const GrantLife = 90 * 24 * time.Hour

// Grant is what a desktop signs for a surface: its keys, scopes and end. The desktop's own table decides; broker and
// surface keep the highest serial that they saw.
type Grant struct {
	Pairing    PairingID
	Surface    SurfaceID
	Ssig       SigKey
	Skem       KemKey
	Scopes     Scopes
	Serial     uint64 // per pairing, rising
	Issued     int64  // Unix ms, desktop's clock
	NotAfter   int64  // Unix ms, desktop's clock
	Transcript Digest // SHA-256(T) of the linking
}

// MaxGrant is the largest signed grant.
const MaxGrant = 9*prefix + 16 + 16 + 32 + 32 + 3 + 8 + 8 + 8 + 32 + signatureSize

// Sign returns the signed encoding: what the broker keeps, and what is sealed to the surface.
func (g Grant) Sign(dsig ed25519.PrivateKey) []byte {
	var e Encoder
	e.Field(g.Pairing[:]).Field(g.Surface[:]).Field(g.Ssig[:]).Field(g.Skem[:]).Field(g.Scopes.encode())
	e.Uint(g.Serial).Time(g.Issued).Time(g.NotAfter).Field(g.Transcript[:])
	return statement(LabelGrant, e.Bytes(), dsig)
}

// OpenGrant verifies a signed grant under dsig: right pairing, surface id derived from its keys, a life of at most
// GrantLife. Whether it is over or revoked is for the caller's table and Valid.
func OpenGrant(dsig SigKey, signed []byte) (Grant, error) {
	body, err := openStatement(LabelGrant, signed, dsig)
	if err != nil {
		return Grant{}, err
	}
	var g Grant
	d := NewDecoder(body)
	d.Fill(g.Pairing[:])
	d.Fill(g.Surface[:])
	d.Fill(g.Ssig[:])
	d.Fill(g.Skem[:])
	g.Scopes = d.scopes()
	g.Serial, g.Issued, g.NotAfter = d.Uint(), d.Time(), d.Time()
	d.Fill(g.Transcript[:])
	d.check(g.Serial > 0, "grant serials start at 1")
	d.check(g.NotAfter > g.Issued && g.NotAfter-g.Issued <= GrantLife.Milliseconds(), "a grant lives at most 90 days")
	if err := d.Done(); err != nil {
		return Grant{}, err
	}
	if g.Pairing != PairingOf(dsig) || g.Surface != SurfaceOf(g.Pairing, g.Ssig, g.Skem) {
		return Grant{}, fmt.Errorf("%w: the grant's ids are not those of its keys", ErrRefused)
	}
	return g, nil
}

// Valid reports whether the grant's end has not come.
func (g Grant) Valid(now time.Time) bool { return now.UnixMilli() < g.NotAfter }
