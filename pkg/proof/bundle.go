package proof

import (
	"crypto/ed25519"
	"fmt"
	"time"
)

// Life of a bundle (section 1).
const (
	BundleEvery = 24 * time.Hour                 // a new one is published this often
	BundleLife  = 72 * time.Hour                 // notAfter = issued + BundleLife
	BundleErase = 24*time.Hour + 10*time.Minute  // the private half goes at notAfter + BundleErase
	BundleSize  = 16 + 8 + 32 + 8 + 8 + 5*prefix // without the signature
)

// Bundle is one numbered Dkem of a desktop, valid from Issued to NotAfter by the desktop's clock.
type Bundle struct {
	Pairing  PairingID
	Number   uint64
	Key      KemKey
	Issued   int64 // Unix ms
	NotAfter int64 // Unix ms
}

// Sign returns the signed encoding.
func (b Bundle) Sign(dsig ed25519.PrivateKey) []byte {
	var e Encoder
	e.Field(b.Pairing[:]).Uint(b.Number).Field(b.Key[:]).Time(b.Issued).Time(b.NotAfter)
	return statement(LabelBundle, e.Bytes(), dsig)
}

// OpenBundle verifies a signed bundle under dsig. It must name the pairing of dsig, live at most BundleLife, and its
// key must not be of small order. Whether it is still valid is for Fresh to say.
func OpenBundle(dsig SigKey, signed []byte) (Bundle, error) {
	var b Bundle
	body, err := openStatement(LabelBundle, signed, dsig)
	if err != nil {
		return b, err
	}
	d := NewDecoder(body)
	d.Fill(b.Pairing[:])
	b.Number = d.Uint()
	d.Fill(b.Key[:])
	b.Issued, b.NotAfter = d.Time(), d.Time()
	d.check(b.Number > 0, "bundle numbers start at 1")
	d.check(b.NotAfter > b.Issued && b.NotAfter-b.Issued <= BundleLife.Milliseconds(), "a bundle lives at most 72 h")
	if err := d.Done(); err != nil {
		return Bundle{}, err
	}
	if b.Pairing != PairingOf(dsig) {
		return Bundle{}, fmt.Errorf("%w: the bundle is of another pairing", ErrRefused)
	}
	return b, b.Key.Check()
}

// Fresh is the sender's rule: refuse a number below the highest seen, and any bundle after its NotAfter, which means
// that the desktop has been asleep too long. now is by the sender's estimate of the desktop's clock.
func (b Bundle) Fresh(highest uint64, now time.Time) error {
	if b.Number < highest {
		return fmt.Errorf("%w: bundle %d is older than %d, which was seen before", ErrRefused, b.Number, highest)
	}
	if now.UnixMilli() > b.NotAfter {
		return fmt.Errorf("%w: the desktop has been asleep too long; its key ended at %s", ErrRefused,
			time.UnixMilli(b.NotAfter).UTC().Format(time.RFC3339))
	}
	return nil
}
