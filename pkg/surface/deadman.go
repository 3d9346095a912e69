package surface

import (
	"sync"
	"time"
)

// deadman calls back when it was not told in time that something lives.
type deadman struct {
	mu    sync.Mutex
	timer *time.Timer
	after time.Duration
}

func newDeadman(after time.Duration, dead func()) *deadman {
	return &deadman{timer: time.AfterFunc(after, dead), after: after}
}

func (d *deadman) alive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer.Reset(d.after)
}

func (d *deadman) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer.Stop()
}
