package sqlite

import (
	"sync"

	"cowork.example.com/broker/internal/mailbox"
)

// waker is the in-process mailbox.Waker: one process owns the file, so nobody else has anything to hint at.
type waker struct {
	mu   sync.Mutex
	subs map[mailbox.PairingID]map[chan struct{}]struct{}
	log  map[chan struct{}]struct{}
}

func newWaker() *waker {
	return &waker{subs: map[mailbox.PairingID]map[chan struct{}]struct{}{}, log: map[chan struct{}]struct{}{}}
}

// Wake implements mailbox.Waker.
func (w *waker) Wake(p mailbox.PairingID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hint(w.subs[p])
}

// Subscribe implements mailbox.Waker.
func (w *waker) Subscribe(p mailbox.PairingID) (<-chan struct{}, func()) {
	hints := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.subs[p] == nil {
		w.subs[p] = map[chan struct{}]struct{}{}
	}
	w.subs[p][hints] = struct{}{}
	return hints, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.subs[p], hints)
		if len(w.subs[p]) == 0 {
			delete(w.subs, p)
		}
	}
}

func (w *waker) subscribeLog() (<-chan struct{}, func()) {
	hints := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log[hints] = struct{}{}
	return hints, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.log, hints)
	}
}

func (w *waker) wakeLog() {
	w.mu.Lock()
	defer w.mu.Unlock()
	hint(w.log)
}

// hint leaves a hint with everyone who has none.
func hint(subs map[chan struct{}]struct{}) {
	for c := range subs {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
