package httpapi

import (
	"context"
	"sync"

	"cowork.example.com/broker/pkg/proof"
)

// bell wakes calls that wait for a linking session to move.
type bell struct {
	mu      sync.Mutex
	waiting map[proof.LinkID]map[chan struct{}]struct{}
}

func newBell() *bell { return &bell{waiting: map[proof.LinkID]map[chan struct{}]struct{}{}} }

// listen returns a channel that ring closes nothing of but fills; end must be called.
func (b *bell) listen(pid proof.LinkID) (hint <-chan struct{}, end func()) {
	c := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting[pid] == nil {
		b.waiting[pid] = map[chan struct{}]struct{}{}
	}
	b.waiting[pid][c] = struct{}{}
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if delete(b.waiting[pid], c); len(b.waiting[pid]) == 0 {
			delete(b.waiting, pid)
		}
	}
}

func (b *bell) ring(pid proof.LinkID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.waiting[pid] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// LinkMoved wakes the claimer that waits for this session. Whoever moves one outside of this package calls it.
func (s *Server) LinkMoved(pid proof.LinkID) { s.bell.ring(pid) }

// wait waits for a hint; it returns false when ctx has ended.
func wait(ctx context.Context, hint <-chan struct{}) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case <-hint:
		return true
	case <-ctx.Done():
		return false
	}
}
