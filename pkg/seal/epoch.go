package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// epochKeySize is AES-256.
const epochKeySize = 32

// Epoch is a desktop's current pair of event keys. It lives in memory only: each start of the agent, each new or
// revoked surface and each proof.EpochLife begin another one. It prints as dots and is safe for concurrent use.
type Epoch struct {
	hidden
	pairing  proof.PairingID
	id, prev proof.EpochID
	issued   time.Time
	keys     epochKeys
	view     cipher.AEAD
	decide   cipher.AEAD

	mu  sync.Mutex
	seq uint64 // last one taken; one row for both keys, and the nonce
}

// epochKeys are the two secrets of an epoch; decide is zero for a surface without that scope.
type epochKeys struct {
	hidden
	view, decide [epochKeySize]byte
}

// NewEpoch begins an epoch after prev (zero for the very first).
func NewEpoch(pairing proof.PairingID, prev proof.EpochID, now time.Time) *Epoch {
	e := &Epoch{pairing: pairing, prev: prev, issued: now}
	rand.Read(e.id[:]) // never fails
	rand.Read(e.keys.view[:])
	rand.Read(e.keys.decide[:])
	e.view, e.decide = gcm(e.keys.view), gcm(e.keys.decide)
	return e
}

func gcm(key [epochKeySize]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 32 bytes are always a key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES always has GCM
	}
	return aead
}

// ID returns the epoch's id.
func (e *Epoch) ID() proof.EpochID { return e.id }

// Seq returns the last seq taken, 0 for none.
func (e *Epoch) Seq() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seq
}

// Over reports whether the epoch is to be followed by another one because of its age.
func (e *Epoch) Over(now time.Time) bool { return now.Sub(e.issued) >= proof.EpochLife }

// Box announces the epoch to the surface of g, with the keys that its scopes allow, sealed to it and signed.
func (e *Epoch) Box(d *Desktop, g proof.Grant) ([]byte, error) {
	h := proof.EpochHeader{
		Pairing: e.pairing, Surface: g.Surface, Epoch: e.id, Previous: e.prev,
		Decide: g.Scopes.Has(proof.ScopeDecide), Issued: e.issued.UnixMilli(),
	}
	plaintext := append(append(make([]byte, 0, 8+2*epochKeySize), e.id[:]...), e.keys.view[:]...)
	if h.Decide {
		plaintext = append(plaintext, e.keys.decide[:]...)
	}
	header := h.Encode()
	sealed, err := sealTo(g.Skem, epochInfo(h), header, plaintext)
	if err != nil {
		return nil, err
	}
	return proof.SignEpochBox(header, sealed, d.sign), nil
}

func epochInfo(h proof.EpochHeader) []byte { return info(proof.LabelEpoch, h.Pairing[:], h.Surface[:]) }

// Events is one batch to be sealed.
type Events struct {
	Key       proof.EpochKey
	Class     proof.Class
	Reference proof.Reference // of the request, for the two request classes
	Body      []byte          // JSON array of events
	Time      time.Time       // desktop's clock
}

// MaxEvents is the longest body of one batch whose signed form has at most wire.MaxBatchBytes.
const MaxEvents = wire.MaxBatchBytes - 1024

// Seal takes the next seq, then seals and signs one batch. The caller stores the bytes and repeats them as they are:
// a seq is never used for other bytes, also when something fails after it was taken.
func (e *Epoch) Seal(d *Desktop, ev Events) (signed []byte, seq uint64, err error) {
	if len(ev.Body) > MaxEvents {
		return nil, 0, fmt.Errorf("%w: a batch has at most %d bytes of events", proof.ErrForm, MaxEvents)
	}
	if !ev.Class.Valid() || ev.Class.IsRequest() == ev.Reference.IsZero() {
		return nil, 0, fmt.Errorf("%w: a request has a reference, and nothing else has one", proof.ErrForm)
	}
	aead := e.view
	if ev.Key == proof.KeyDecide {
		aead = e.decide
	} else if ev.Key != proof.KeyView {
		return nil, 0, fmt.Errorf("%w: no such key", proof.ErrForm)
	}
	if seq = e.take(); seq > proof.MaxNumber {
		return nil, 0, fmt.Errorf("%w: the epoch is used up", proof.ErrRefused)
	}
	plaintext := pad(nil, ev.Body)
	header := proof.BatchHeader{
		Pairing: e.pairing, Epoch: e.id, Key: ev.Key, Seq: seq, Class: ev.Class, Reference: ev.Reference,
		Size: len(plaintext) + proof.TagSize, Time: ev.Time.UnixMilli(),
	}.Encode()
	nonce := counterNonce(seq)
	sealed := aead.Seal(nil, nonce[:], plaintext, header)
	return proof.SignBatch(header, sealed, d.sign), seq, nil
}

func (e *Epoch) take() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	return e.seq
}

// counterNonce is the 96-bit counter: seq, big-endian.
func counterNonce(seq uint64) (n [12]byte) {
	binary.BigEndian.PutUint64(n[4:], seq)
	return n
}

// EpochKeys is what a surface has of an epoch. It prints as dots and is safe for concurrent use.
type EpochKeys struct {
	hidden
	Header proof.EpochHeader
	view   cipher.AEAD
	decide cipher.AEAD // nil without the decide scope
}

// OpenEpoch verifies an announcement under dsig and opens the keys.
func (s *Surface) OpenEpoch(dsig proof.SigKey, signed []byte) (*EpochKeys, error) {
	box, err := proof.OpenEpochBox(dsig, signed)
	if err != nil {
		return nil, err
	}
	h := box.Header
	if h.Pairing != proof.PairingOf(dsig) || h.Surface != s.ID(h.Pairing) {
		return nil, fmt.Errorf("%w: the epoch is announced to another surface", proof.ErrRefused)
	}
	plaintext, err := openWith(s.kem, epochInfo(h), box.HeaderBytes(), box.Sealed)
	if err != nil {
		return nil, err
	}
	want := 8 + epochKeySize
	if h.Decide {
		want += epochKeySize
	}
	if len(plaintext) != want || proof.EpochID(plaintext[:8]) != h.Epoch {
		return nil, fmt.Errorf("%w: the box has not what it announces", proof.ErrForm)
	}
	keys := &EpochKeys{Header: h, view: gcm([epochKeySize]byte(plaintext[8:]))}
	if h.Decide {
		keys.decide = gcm([epochKeySize]byte(plaintext[8+epochKeySize:]))
	}
	return keys, nil
}

// ErrNoKey: the batch is sealed under the decide key, and this surface has not that scope.
var ErrNoKey = fmt.Errorf("%w: this surface has no key for it", proof.ErrRefused)

// Open verifies a batch under dsig and opens its events. With ErrNoKey the header is valid all the same: its seq
// counts.
func (k *EpochKeys) Open(dsig proof.SigKey, signed []byte) (proof.BatchHeader, []byte, error) {
	b, err := proof.OpenBatch(dsig, signed)
	if err != nil {
		return proof.BatchHeader{}, nil, err
	}
	h := b.Header
	if h.Pairing != k.Header.Pairing || h.Epoch != k.Header.Epoch {
		return proof.BatchHeader{}, nil, fmt.Errorf("%w: the batch is of another epoch", proof.ErrRefused)
	}
	aead := k.view
	if h.Key == proof.KeyDecide {
		aead = k.decide
	}
	if aead == nil {
		return h, nil, ErrNoKey
	}
	nonce := counterNonce(h.Seq)
	plaintext, err := aead.Open(nil, nonce[:], b.Sealed, b.HeaderBytes())
	if err != nil {
		return proof.BatchHeader{}, nil, ErrOpen
	}
	_, body, err := unpad(0, plaintext)
	return h, body, err
}
