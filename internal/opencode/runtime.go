package opencode

import (
	"context"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// endpoint is one life of the runtime: a restart makes a new one.
type endpoint struct {
	*client
	// started is when its process began; zero when that is not known (attach).
	started time.Time
}

// bornAfter says whether this runtime certainly began after t, so that nothing sent to
// an earlier one can still arrive and nothing an earlier one waited for is left.
func (e *endpoint) bornAfter(t time.Time) bool { return !e.started.IsZero() && e.started.After(t) }

// runtime is the state that the supervisor writes and everyone else reads.
type runtime struct {
	mu      sync.Mutex
	health  wire.ExecHealth
	ep      *endpoint // nil unless ready
	changed chan struct{}
}

func newRuntime(h wire.ExecHealth) *runtime {
	return &runtime{health: h, changed: make(chan struct{})}
}

// set enters a state. Fields of the health that belong to one life are cleared when ep
// is nil.
func (r *runtime) set(state, problem string, ep *endpoint, edit func(*wire.ExecHealth)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.health.State != state {
		r.health.Since = time.Now()
	}
	r.health.State, r.health.Problem, r.ep = state, problem, ep
	if ep == nil {
		r.health.PID, r.health.Address, r.health.Adopted = 0, "", false
	} else {
		r.health.Address = ep.base
	}
	if edit != nil {
		edit(&r.health)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// see returns the present state and a channel that closes when it changes.
func (r *runtime) see() (wire.ExecHealth, *endpoint, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.health, r.ep, r.changed
}

// ready waits for a runtime that serves.
func (r *runtime) ready(ctx context.Context) (*endpoint, error) {
	for {
		_, ep, changed := r.see()
		if ep != nil {
			return ep, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
