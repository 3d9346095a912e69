package keystore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
)

// Bytes is a Store of binary values: what the agent and pkg/surface keep their keys in. A keyring holds text only, so
// the values are base64 there and in files.
type Bytes struct{ Store }

// Get returns the value of name; ok is false when there is none.
func (b Bytes) Get(_ context.Context, name string) (value []byte, ok bool, err error) {
	text, err := b.Store.Get(name)
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	value, err = base64.StdEncoding.DecodeString(text.Reveal())
	if err != nil {
		return nil, false, fmt.Errorf("the keystore's entry %q is damaged", name)
	}
	return value, true, nil
}

// Set keeps value durably under name.
func (b Bytes) Set(_ context.Context, name string, value []byte) error {
	return b.Store.Set(name, Secret(base64.StdEncoding.EncodeToString(value)))
}

// Delete forgets name; that it is not there is no error.
func (b Bytes) Delete(_ context.Context, name string) error { return b.Store.Delete(name) }
