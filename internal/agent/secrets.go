package agent

import (
	"context"
	"encoding/json"
	"fmt"
)

// Secrets keeps private keys at rest: the OS keyring or a 0600 file (internal/keystore). All methods are durable when
// they return, and safe for concurrent use.
type Secrets interface {
	// Get returns the value kept under name; ok is false when there is none.
	Get(ctx context.Context, name string) (value []byte, ok bool, err error)
	// Set keeps value under name, replacing what was there.
	Set(ctx context.Context, name string, value []byte) error
	// Delete forgets name; unknown names are no error.
	Delete(ctx context.Context, name string) error
}

// load reads a JSON secret into v.
func load(ctx context.Context, s Secrets, name string, v any) (bool, error) {
	raw, ok, err := s.Get(ctx, name)
	if err != nil || !ok {
		return false, err
	}
	if json.Unmarshal(raw, v) != nil {
		return false, fmt.Errorf("the keystore's entry %q is damaged", name) // never the value
	}
	return true, nil
}

// store writes v as a JSON secret.
func store(ctx context.Context, s Secrets, name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.Set(ctx, name, raw)
}
