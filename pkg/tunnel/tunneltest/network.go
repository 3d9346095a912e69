// Package tunneltest runs tunnels in memory: a real http.Server, WebSocket and
// yamux over net.Pipe, in a synctest bubble, with a wire between the ends that
// can be cut, stalled, slowed down or made half-open. (A byte stream cannot be
// reordered, so there is no fault for that.)
package tunneltest

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Bubble is the only way into synctest for whatever uses a tunnel: yamux keeps
// timers in a package-wide pool, and one that crossed a bubble's wall would kill
// the process. It empties the pools on both sides; never call it in a parallel test.
func Bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	flush()
	defer flush()
	synctest.Test(t, f)
}

// flush empties every sync.Pool: one collection moves them to their victims, the second drops those.
func flush() {
	runtime.GC()
	runtime.GC()
}

// Network is one listener and the wires that were dialled to it. Use it inside one
// bubble, or outside of all; all methods may be called concurrently.
type Network struct {
	backlog chan net.Conn
	closed  chan struct{}
	once    sync.Once

	mu    sync.Mutex
	wires []*Wire
}

// NewNetwork makes an empty network.
func NewNetwork() *Network {
	return &Network{backlog: make(chan net.Conn), closed: make(chan struct{})}
}

type addr struct{}

func (addr) Network() string { return "memory" }
func (addr) String() string  { return "memory" }

// Addr is a name for logs.
func (n *Network) Addr() net.Addr { return addr{} }

// Accept is net.Listener's.
func (n *Network) Accept() (net.Conn, error) {
	select {
	case c := <-n.backlog:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and refuses dials; wires live on.
func (n *Network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// ErrRefused is what Dial returns when nothing listens.
var ErrRefused = errors.New("tunneltest: connection refused")

// Dial connects to the listener, whatever the address; it fits DialConfig.DialContext.
func (n *Network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, nearWire := net.Pipe()
	far, farWire := net.Pipe()
	w := newWire(nearWire, farWire)
	select {
	case n.backlog <- far:
	case <-n.closed:
		w.Cut()
		return nil, ErrRefused
	case <-ctx.Done():
		w.Cut()
		return nil, ctx.Err()
	}
	n.mu.Lock()
	n.wires = append(n.wires, w)
	n.mu.Unlock()
	return near, nil
}

// Last is the wire that was dialled last; nil before any.
func (n *Network) Last() *Wire {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.wires) == 0 {
		return nil
	}
	return n.wires[len(n.wires)-1]
}

// Cut cuts every wire.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.wires {
		w.Cut()
	}
}

// Wire carries bytes between two ends and obeys its faults, which hold for both
// directions and may be changed at any time.
type Wire struct {
	a, b net.Conn
	cut  chan struct{}
	once sync.Once

	mu     sync.Mutex
	change chan struct{} // closed at each change of a fault
	stall  bool
	lose   bool
	rate   int
	moved  int64
}

func newWire(a, b net.Conn) *Wire {
	w := &Wire{a: a, b: b, cut: make(chan struct{}), change: make(chan struct{})}
	go w.pump(a, b)
	go w.pump(b, a)
	return w
}

// Cut closes the wire: both ends see an error at once.
func (w *Wire) Cut() {
	w.once.Do(func() {
		close(w.cut)
		_ = w.a.Close()
		_ = w.b.Close()
	})
}

// Stall stops the wire: writes fill up and wait. It is how a full buffer looks.
func (w *Wire) Stall() { w.set(func() { w.stall = true }) }

// HalfOpen loses what is sent from now on, the end of either side too, and the senders
// do not notice. It is how a peer looks whose network went away.
func (w *Wire) HalfOpen() { w.set(func() { w.lose = true }) }

// Slow lets so many bytes a second through; 0 is no limit.
func (w *Wire) Slow(bytesPerSecond int) { w.set(func() { w.rate = bytesPerSecond }) }

// Heal takes all faults back; what was lost stays lost.
func (w *Wire) Heal() { w.set(func() { w.stall, w.lose, w.rate = false, false, 0 }) }

// Moved is how many bytes came through, both directions together.
func (w *Wire) Moved() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moved
}

func (w *Wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.change)
	w.change = make(chan struct{})
}

// pump moves bytes one way until an end closes; then it closes the other, unless
// the wire is half-open.
func (w *Wire) pump(to, from net.Conn) {
	u := newUnits(from)
	for {
		unit, err := u.next()
		if len(unit) > 0 && !w.carry(to, unit) {
			return
		}
		if err != nil {
			w.mu.Lock()
			lose := w.lose
			w.mu.Unlock()
			if !lose {
				w.Cut()
			}
			return
		}
	}
}

// carry takes one unit across, as the faults allow; false when the wire is cut.
func (w *Wire) carry(to net.Conn, p []byte) bool {
	lose, rate, ok := w.wait()
	if lose || !ok {
		return ok
	}
	if rate > 0 && !w.pause(time.Duration(len(p))*time.Second/time.Duration(rate)) {
		return false
	}
	n, err := to.Write(p)
	w.mu.Lock()
	w.moved += int64(n)
	w.mu.Unlock()
	if err != nil {
		w.Cut()
	}
	return err == nil
}

func (w *Wire) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.cut:
		return false
	}
}

// wait returns when the wire is not stalled, or cut.
func (w *Wire) wait() (lose bool, rate int, ok bool) {
	for {
		w.mu.Lock()
		stall, change := w.stall, w.change
		lose, rate = w.lose, w.rate
		w.mu.Unlock()
		if !stall {
			return lose, rate, true
		}
		select {
		case <-change:
		case <-w.cut:
			return false, 0, false
		}
	}
}
