package proof

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// While a surface is attached (section 5).
const (
	BeatEvery  = 15 * time.Second // the desktop signs a beat
	BeatStale  = 45 * time.Second // a surface without one marks its screen stale and disables Approve
	MaxBeat    = 5*prefix + 16 + 8 + 8 + 8 + 32 + signatureSize
	maxRequest = 1000 // open requests in one list
)

// Beat is a desktop's signed sign of life.
type Beat struct {
	Pairing  PairingID
	Time     int64 // Unix ms, desktop's clock
	Epoch    EpochID
	Seq      uint64 // last batch of the epoch, 0 for none
	Requests Digest // RequestsDigest of what is open
}

// Sign returns the signed encoding.
func (b Beat) Sign(dsig ed25519.PrivateKey) []byte {
	var e Encoder
	e.Field(b.Pairing[:]).Time(b.Time).Field(b.Epoch[:]).Uint(b.Seq).Field(b.Requests[:])
	return statement(LabelBeat, e.Bytes(), dsig)
}

// OpenBeat verifies a beat under dsig.
func OpenBeat(dsig SigKey, signed []byte) (Beat, error) {
	body, err := openStatement(LabelBeat, signed, dsig)
	if err != nil {
		return Beat{}, err
	}
	var b Beat
	d := NewDecoder(body)
	d.Fill(b.Pairing[:])
	b.Time = d.Time()
	d.Fill(b.Epoch[:])
	b.Seq = d.Uint()
	d.Fill(b.Requests[:])
	if err := d.Done(); err != nil {
		return Beat{}, err
	}
	if b.Pairing != PairingOf(dsig) {
		return Beat{}, fmt.Errorf("%w: the beat is of another pairing", ErrRefused)
	}
	return b, nil
}

// RequestsDigest is the digest of the open requests, in any order: SHA-256("odp/reqs\0" ‖ lp(each RequestDigest,
// ascending)). At most 1,000 count.
func RequestsDigest(open []Digest) Digest {
	sorted := slices.Clone(open)
	slices.SortFunc(sorted, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
	e := Label(LabelRequestList)
	for _, d := range sorted[:min(len(sorted), maxRequest)] {
		e.Field(d[:])
	}
	return sha256.Sum256(e.Bytes())
}
