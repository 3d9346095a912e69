package seal

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

// maxBundles bounds how many Dkem halves a desktop holds: one a day for five days, and room for recoveries.
const maxBundles = 32

// Desktop holds the secrets of one pairing at the desktop: Dsig, and the private halves of its numbered Dkem bundles.
// It prints as dots and is safe for concurrent use. After NewDesktop, Rotate and Recover the caller stores Export
// before it publishes anything.
type Desktop struct {
	hidden
	sign    ed25519.PrivateKey
	mu      sync.Mutex
	bundles []dkem // ascending by number, the newest last
}

// dkem is one bundle with its private half.
type dkem struct {
	proof.Bundle
	priv   [32]byte
	key    hpke.PrivateKey
	signed []byte
}

// NewDesktop makes Dsig and the first bundle.
func NewDesktop(now time.Time) (*Desktop, error) {
	_, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a signing key: %w", err)
	}
	d := &Desktop{sign: sign}
	if err := d.add(1, now); err != nil {
		return nil, err
	}
	return d, nil
}

// Dsig returns the public signing key.
func (d *Desktop) Dsig() proof.SigKey { return proof.SigKeyOf(d.sign) }

// Pairing returns the id that follows from Dsig.
func (d *Desktop) Pairing() proof.PairingID { return proof.PairingOf(d.Dsig()) }

// Signer returns the private signing key, for the Sign functions of proof.
func (d *Desktop) Signer() ed25519.PrivateKey { return d.sign }

// Equal compares the signing keys in constant time.
func (d *Desktop) Equal(o *Desktop) bool { return subtle.ConstantTimeCompare(d.sign, o.sign) == 1 }

// Bundle returns the newest signed bundle.
func (d *Desktop) Bundle() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bundles[len(d.bundles)-1].signed
}

// add makes the bundle of a number. The caller holds mu, or the only reference.
func (d *Desktop) add(number uint64, now time.Time) error {
	key, err := suiteKEM.GenerateKey()
	if err != nil {
		return fmt.Errorf("making a key bundle: %w", err)
	}
	priv, err := key.Bytes()
	if err != nil {
		return fmt.Errorf("making a key bundle: %w", err)
	}
	k, err := d.restore(number, [32]byte(priv), now.UnixMilli(), now.Add(proof.BundleLife).UnixMilli())
	if err != nil {
		return err
	}
	d.bundles = append(d.bundles, k)
	return nil
}

// restore rebuilds a bundle from what is stored of it; Ed25519 signs the same bytes to the same signature.
func (d *Desktop) restore(number uint64, priv [32]byte, issued, notAfter int64) (dkem, error) {
	key, err := suiteKEM.NewPrivateKey(priv[:])
	if err != nil {
		return dkem{}, fmt.Errorf("reading a key bundle: %w", err)
	}
	b := proof.Bundle{
		Pairing: d.Pairing(), Number: number, Key: proof.KemKey(key.PublicKey().Bytes()), Issued: issued, NotAfter: notAfter,
	}
	return dkem{Bundle: b, priv: priv, key: key, signed: b.Sign(d.sign)}, nil
}

// Rotate makes a new bundle when the newest is proof.BundleEvery old, and erases every private half whose bundle
// ended proof.BundleErase ago. It reports whether anything changed and is to be stored. A clock that went back
// changes nothing.
func (d *Desktop) Rotate(now time.Time) (changed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	newest := d.bundles[len(d.bundles)-1]
	if now.UnixMilli()-newest.Issued >= proof.BundleEvery.Milliseconds() {
		if err := d.add(newest.Number+1, now); err != nil {
			return false, err
		}
		changed = true
	}
	return d.erase(func(k dkem) bool { return now.UnixMilli() >= k.NotAfter+proof.BundleErase.Milliseconds() }) || changed, nil
}

// Recover is what `recover` does with the keys (section 6): a new bundle, and every older private half erased.
func (d *Desktop) Recover(now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	number := d.bundles[len(d.bundles)-1].Number + 1
	if err := d.add(number, now); err != nil {
		return err
	}
	d.erase(func(k dkem) bool { return k.Number < number })
	return nil
}

// erase forgets the private halves for which gone is true, but never the newest: it alone can still be published.
func (d *Desktop) erase(gone func(dkem) bool) (changed bool) {
	kept := make([]dkem, 0, len(d.bundles))
	for i := range d.bundles {
		if i < len(d.bundles)-1 && (gone(d.bundles[i]) || len(d.bundles)-i > maxBundles) {
			clear(d.bundles[i].priv[:])
			changed = true
			continue
		}
		kept = append(kept, d.bundles[i])
	}
	clear(d.bundles)
	d.bundles = kept
	return changed
}

// half returns the private half of a bundle, or nil when it is erased or never was.
func (d *Desktop) half(number uint64) hpke.PrivateKey {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range d.bundles {
		if k.Number == number {
			return k.key
		}
	}
	return nil
}

// exportVersion begins an export.
const exportVersion = 1

// Export returns everything as secret bytes for a keystore (0600).
func (d *Desktop) Export() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	var e proof.Encoder
	e.Byte(exportVersion).Field(d.sign.Seed()).Uint(uint64(len(d.bundles)))
	for _, k := range d.bundles {
		e.Uint(k.Number).Field(k.priv[:]).Time(k.Issued).Time(k.NotAfter)
	}
	return e.Bytes()
}

// LoadDesktop reads an export.
func LoadDesktop(exported []byte) (*Desktop, error) {
	dec := proof.NewDecoder(exported)
	version, seed := dec.Byte(), make([]byte, ed25519.SeedSize)
	dec.Fill(seed)
	n := dec.Uint()
	if version != exportVersion || n == 0 || n > maxBundles {
		return nil, fmt.Errorf("%w: not the keys of a desktop", proof.ErrForm)
	}
	d := &Desktop{sign: ed25519.NewKeyFromSeed(seed)}
	var last uint64
	for range n {
		var priv [32]byte
		number := dec.Uint()
		dec.Fill(priv[:])
		k, err := d.restore(number, priv, dec.Time(), dec.Time())
		if err != nil || number <= last {
			return nil, fmt.Errorf("%w: not the keys of a desktop", proof.ErrForm)
		}
		last, d.bundles = number, append(d.bundles, k)
	}
	if err := dec.Done(); err != nil {
		return nil, fmt.Errorf("%w: not the keys of a desktop", proof.ErrForm)
	}
	return d, nil
}
