package proof

import (
	"crypto/ed25519"
	"time"
)

// EpochLife is how long one epoch's keys are used.
const EpochLife = 24 * time.Hour

// maxEpochBox bounds the sealed keys of one surface: enc, two keys, an id and a tag.
const maxEpochBox = EncSize + 8 + 32 + 32 + TagSize

// EpochHeader announces an epoch to one surface: aad of the box with its keys.
type EpochHeader struct {
	Pairing  PairingID
	Surface  SurfaceID
	Epoch    EpochID
	Previous EpochID // zero for the very first
	Decide   bool    // the box has the decide key too
	Issued   int64   // Unix ms, desktop's clock
}

// Encode returns the header's bytes.
func (h EpochHeader) Encode() []byte {
	var e Encoder
	var decide byte
	if h.Decide {
		decide = 1
	}
	e.Field(h.Pairing[:]).Field(h.Surface[:]).Field(h.Epoch[:]).Field(h.Previous[:])
	return e.Byte(decide).Time(h.Issued).Bytes()
}

func parseEpochHeader(b []byte) (h EpochHeader, err error) {
	d := NewDecoder(b)
	d.Fill(h.Pairing[:])
	d.Fill(h.Surface[:])
	d.Fill(h.Epoch[:])
	d.Fill(h.Previous[:])
	decide := d.Byte()
	h.Decide, h.Issued = decide == 1, d.Time()
	d.check(decide <= 1 && !h.Epoch.IsZero(), "an epoch has an id and says 0 or 1")
	return h, d.Done()
}

// EpochBox is a signed announcement with the keys sealed to one surface, taken apart.
type EpochBox struct {
	Header EpochHeader
	Sealed []byte // enc ‖ ct
	header []byte
}

// HeaderBytes returns the header as signed: the aad.
func (b EpochBox) HeaderBytes() []byte { return b.header }

// SignEpochBox returns lp(header) ‖ lp(sealed) ‖ signature.
func SignEpochBox(header, sealed []byte, dsig ed25519.PrivateKey) []byte {
	return sealedStatement(LabelEpoch, header, sealed, dsig)
}

// OpenEpochBox verifies a box under dsig; the keys stay sealed.
func OpenEpochBox(dsig SigKey, signed []byte) (EpochBox, error) {
	header, sealed, sig, err := splitSealed(signed, maxEpochBox)
	if err != nil {
		return EpochBox{}, err
	}
	if err := dsig.Verify(sealedInput(LabelEpoch, header, sealed), sig); err != nil {
		return EpochBox{}, err
	}
	h, err := parseEpochHeader(header)
	if err != nil {
		return EpochBox{}, err
	}
	return EpochBox{Header: h, Sealed: sealed, header: header}, nil
}
