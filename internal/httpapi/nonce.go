package httpapi

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

const (
	// maxSpent bounds the nonces remembered as used; above it signing in is refused until some have expired.
	maxSpent = 200_000

	nonceSize = proof.NonceSize // time 8 ‖ random 8 ‖ mac 16
	nonceHead = 16
)

// nonces gives out nonces that cost no memory until they were used with a valid signature: each carries its time and
// a MAC under a key that lives as long as the process. Asking for one says nothing about whether an id exists.
type nonces struct {
	key  [32]byte
	most int // remembered: maxSpent

	mu         sync.Mutex
	spent, old map[uint64]struct{} // random parts; old are those of the life before
	turned     time.Time           // when spent was begun
}

func newNonces() *nonces {
	n := &nonces{most: maxSpent, spent: map[uint64]struct{}{}}
	_, _ = rand.Read(n.key[:]) // crypto/rand never fails
	return n
}

// issue makes a nonce for one purpose and subject (an id).
func (n *nonces) issue(purpose, subject string, now time.Time) []byte {
	nonce := binary.BigEndian.AppendUint64(make([]byte, 0, nonceSize), uint64(now.UnixMilli()))
	nonce = append(nonce, make([]byte, 8)...)
	_, _ = rand.Read(nonce[8:])
	return append(nonce, n.mac(purpose, subject, nonce)...)
}

func (n *nonces) mac(purpose, subject string, head []byte) []byte {
	m := hmac.New(sha256.New, n.key[:])
	m.Write([]byte(purpose + "\x00" + subject + "\x00"))
	m.Write(head)
	return m.Sum(nil)[:nonceSize-nonceHead]
}

// valid says whether a nonce was issued for this and is not too old.
func (n *nonces) valid(purpose, subject string, nonce []byte, now time.Time) bool {
	if len(nonce) != nonceSize || !hmac.Equal(nonce[nonceHead:], n.mac(purpose, subject, nonce[:nonceHead])) {
		return false
	}
	age := now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(nonce))))
	return age >= 0 && age <= proof.NonceLife
}

// spend marks a valid nonce as used; false when it was already, or when too many are remembered. What was used more
// than a life ago is dropped with its whole map, so that a busy minute leaves no memory behind.
func (n *nonces) spend(nonce []byte, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if age := now.Sub(n.turned); age > proof.NonceLife || age < 0 {
		n.old, n.spent, n.turned = n.spent, map[uint64]struct{}{}, now
		if age > 2*proof.NonceLife {
			n.old = nil
		}
	}
	id := binary.BigEndian.Uint64(nonce[8:])
	_, used := n.spent[id]
	_, before := n.old[id]
	if used || before || len(n.spent)+len(n.old) >= n.most {
		return false
	}
	n.spent[id] = struct{}{}
	return true
}
