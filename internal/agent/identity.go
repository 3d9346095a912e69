package agent

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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
	change  sync.Mutex // one change of the keys at a time
	keys    atomic.Pointer[seal.Desktop]
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
	i := &identity{secrets: s}
	i.keys.Store(keys)
	return i, nil
}

func (i *identity) Keys() *seal.Desktop { return i.keys.Load() }

func (i *identity) Rotate(ctx context.Context, now time.Time) (rotated bool, err error) {
	before := string(i.Keys().Bundle())
	err = i.edit(ctx, func(keys *seal.Desktop) (bool, error) { return keys.Rotate(now) })
	return err == nil && string(i.Keys().Bundle()) != before, err
}

func (i *identity) ReplaceAll(ctx context.Context, now time.Time) error {
	return i.edit(ctx, func(keys *seal.Desktop) (bool, error) { return true, keys.Recover(now) })
}

// edit changes a copy of the keys, which is used once it is in the keystore. A change that cannot be kept has not
// happened.
func (i *identity) edit(ctx context.Context, change func(*seal.Desktop) (changed bool, err error)) error {
	i.change.Lock()
	defer i.change.Unlock()
	next, err := seal.LoadDesktop(i.Keys().Export())
	if err != nil {
		return err
	}
	changed, err := change(next)
	if err != nil || !changed {
		return err
	}
	if err := i.secrets.Set(ctx, keysName(next.Pairing()), next.Export()); err != nil {
		return err
	}
	i.keys.Store(next)
	return nil
}

func (i *identity) Mirror(ctx context.Context) (id journal.ID, counter uint64, ok bool, err error) {
	var m mirror
	if ok, err = load(ctx, i.secrets, mirrorName(i.Keys().Pairing()), &m); err != nil || !ok {
		return id, 0, false, err
	}
	if len(m.ID) != len(id) {
		return id, 0, false, fmt.Errorf("the keystore's entry %q is damaged", mirrorName(i.Keys().Pairing()))
	}
	return journal.ID(m.ID), m.Counter, true, nil
}

func (i *identity) SetMirror(ctx context.Context, id journal.ID, counter uint64) error {
	return store(ctx, i.secrets, mirrorName(i.Keys().Pairing()), mirror{ID: id[:], Counter: counter})
}
