package proof

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"cowork.example.com/broker/pkg/wire"
)

// Class is what the broker sees of a batch's content.
type Class byte

// The classes (section 5).
const (
	ClassText          Class = 1
	ClassRequestOpen   Class = 2
	ClassRequestClosed Class = 3
	ClassTurnEnded     Class = 4
	ClassOther         Class = 5
)

var classNames = [...]string{
	ClassText: "text", ClassRequestOpen: "request.open", ClassRequestClosed: "request.closed",
	ClassTurnEnded: "turn.ended", ClassOther: "other",
}

// Valid reports whether c is one of the five.
func (c Class) Valid() bool { return c > 0 && int(c) < len(classNames) }

// String returns the name, or class(N).
func (c Class) String() string {
	if !c.Valid() {
		return fmt.Sprintf("class(%d)", byte(c))
	}
	return classNames[c]
}

// IsRequest reports whether a batch of this class concerns one request and so has a reference.
func (c Class) IsRequest() bool { return c == ClassRequestOpen || c == ClassRequestClosed }

// EpochKey says which of an epoch's two keys sealed a batch.
type EpochKey byte

// The keys of an epoch.
const (
	KeyView   EpochKey = 1 // every surface has it
	KeyDecide EpochKey = 2 // surfaces with the decide scope: full text of requests
)

// Reference is a random name of a request towards the broker: the same in its open and closed batches.
type Reference [16]byte

// String returns base64url.
func (r Reference) String() string { return wire.Bytes(r[:]).String() }

// IsZero reports whether there is none.
func (r Reference) IsZero() bool { return r == Reference{} }

// BatchHeader is the readable part of a batch of events: aad of the seal, signed by the desktop.
type BatchHeader struct {
	Pairing   PairingID
	Epoch     EpochID
	Key       EpochKey
	Seq       uint64 // of the epoch, from 1, over both keys: also the nonce, and what shows a gap
	Class     Class
	Reference Reference // of the request; zero for other classes
	Size      int       // bytes of ciphertext
	Time      int64     // Unix ms, desktop's clock
}

// Encode returns the header's bytes.
func (h BatchHeader) Encode() []byte {
	var e Encoder
	e.Field(h.Pairing[:]).Field(h.Epoch[:]).Byte(byte(h.Key)).Uint(h.Seq).Byte(byte(h.Class))
	if h.Class.IsRequest() {
		e.Field(h.Reference[:])
	} else {
		e.Field(nil)
	}
	return e.Uint(uint64(h.Size)).Time(h.Time).Bytes()
}

func parseBatchHeader(b []byte) (h BatchHeader, err error) {
	d := NewDecoder(b)
	d.Fill(h.Pairing[:])
	d.Fill(h.Epoch[:])
	h.Key, h.Seq, h.Class = EpochKey(d.Byte()), d.Uint(), Class(d.Byte())
	if h.Class.IsRequest() {
		d.Fill(h.Reference[:])
		d.check(!h.Reference.IsZero(), "a request has a reference")
	} else {
		d.check(len(d.Field(0)) == 0, "only a request has a reference")
	}
	h.Size, h.Time = int(d.Uint()), d.Time()
	d.check(h.Key == KeyView || h.Key == KeyDecide, "no such key")
	d.check(h.Class.Valid() && h.Seq > 0, "no such class, or seq 0")
	return h, d.Done()
}

// Batch is one signed, sealed batch taken apart.
type Batch struct {
	Header BatchHeader
	Sealed []byte // ciphertext
	header []byte
}

// HeaderBytes returns the header as signed: the aad.
func (b Batch) HeaderBytes() []byte { return b.header }

// SignBatch returns lp(header) ‖ lp(sealed) ‖ signature.
func SignBatch(header, sealed []byte, dsig ed25519.PrivateKey) []byte {
	return sealedStatement(LabelBatch, header, sealed, dsig)
}

// OpenBatch verifies a batch of at most wire.MaxBatchBytes under dsig; the events stay sealed.
func OpenBatch(dsig SigKey, signed []byte) (Batch, error) {
	if len(signed) > wire.MaxBatchBytes {
		return Batch{}, fmt.Errorf("%w: a batch has at most %d bytes", ErrForm, wire.MaxBatchBytes)
	}
	header, sealed, sig, err := splitSealed(signed, wire.MaxBatchBytes)
	if err != nil {
		return Batch{}, err
	}
	if err := dsig.Verify(sealedInput(LabelBatch, header, sealed), sig); err != nil {
		return Batch{}, err
	}
	h, err := parseBatchHeader(header)
	if err != nil {
		return Batch{}, err
	}
	if h.Size != len(sealed) {
		return Batch{}, fmt.Errorf("%w: the batch states %d bytes and has %d", ErrForm, h.Size, len(sealed))
	}
	return Batch{Header: h, Sealed: sealed, header: header}, nil
}

// RequestDigest is what an approval or answer names: SHA-256("odp/req\0" ‖ lp(pairing, request)) over the request's
// bytes as the desktop published them.
func RequestDigest(pairing PairingID, request []byte) Digest {
	return sha256.Sum256(Label(LabelRequest).Field(pairing[:]).Field(request).Bytes())
}
