package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// mirror is the journal's id and counter outside the journal: what shows that it was restored or copied
// (pairing-protocol.md section 6).
type mirror struct {
	ID      wire.Bytes `json:"id"`
	Counter uint64     `json:"counter"`
}

// Names in the keystore; keyrings fold letters, so ids are hexadecimal there.
func keysName(p proof.PairingID) string   { return fmt.Sprintf("keys-%x", p[:]) }
func mirrorName(p proof.PairingID) string { return fmt.Sprintf("journal-%x", p[:]) }

// identity is one pairing's keys with their copy in the keystore, which is always written first: what was published
// can be opened after any crash.
type identity struct {
	secrets Secrets
	keys    *seal.Desktop

	mu sync.Mutex // one change of the keys at a time
}

// openIdentity reads a pairing's keys. Keys of another pairing are refused: the keystore is another desktop's.
func openIdentity(ctx context.Context, s Secrets, pairing proof.PairingID) (*identity, error) {
	raw, ok, err := s.Get(ctx, keysName(pairing))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("the keystore has no keys for pairing %s; enrol this desktop again", pairing)
	}
	keys, err := seal.LoadDesktop(raw)
	if err != nil || keys.Pairing() != pairing {
		return nil, fmt.Errorf("the keystore's keys are not those of pairing %s; enrol this desktop again", pairing)
	}
	return &identity{secrets: s, keys: keys}, nil
}

func (i *identity) Keys() *seal.Desktop { return i.keys }

func (i *identity) Rotate(ctx context.Context, now time.Time) (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	before := string(i.keys.Bundle())
	changed, err := i.keys.Rotate(now)
	if err != nil || !changed {
		return false, err
	}
	return string(i.keys.Bundle()) != before, i.keep(ctx)
}

func (i *identity) ReplaceAll(ctx context.Context, now time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.keys.Recover(now); err != nil {
		return err
	}
	return i.keep(ctx)
}

func (i *identity) keep(ctx context.Context) error {
	return i.secrets.Set(ctx, keysName(i.keys.Pairing()), i.keys.Export())
}

func (i *identity) Mirror(ctx context.Context) (id journal.ID, counter uint64, ok bool, err error) {
	var m mirror
	if ok, err = load(ctx, i.secrets, mirrorName(i.keys.Pairing()), &m); err != nil || !ok {
		return id, 0, false, err
	}
	if len(m.ID) != len(id) {
		return id, 0, false, fmt.Errorf("the keystore's entry %q is damaged", mirrorName(i.keys.Pairing()))
	}
	return journal.ID(m.ID), m.Counter, true, nil
}

func (i *identity) SetMirror(ctx context.Context, id journal.ID, counter uint64) error {
	return store(ctx, i.secrets, mirrorName(i.keys.Pairing()), mirror{ID: id[:], Counter: counter})
}
