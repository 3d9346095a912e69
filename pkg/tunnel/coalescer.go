package tunnel

import (
	"net"
	"sync"
	"time"
)

const (
	coalesceMax  = 64 << 10               // bytes held before Write waits
	coalesceLast = 250 * time.Millisecond // for what is held when Close comes
)

// coalescer gathers writes: Write appends to a bounded buffer and returns, one
// goroutine sends what has gathered. It is for the agent alone, because the WebSocket library
// masks in steps of 4 KiB and each step would be a system call and a TLS record of its own.
// With no load a write goes out at once; there is no timer.
type coalescer struct {
	net.Conn
	mu       sync.Mutex
	notEmpty sync.Cond
	notFull  sync.Cond
	buf      []byte
	err      error
	closed   bool
	flushed  chan struct{} // closed when the goroutine ends
}

func newCoalescer(c net.Conn) *coalescer {
	w := &coalescer{Conn: c, flushed: make(chan struct{})}
	w.notEmpty.L, w.notFull.L = &w.mu, &w.mu
	go w.flush()
	return w
}

func (w *coalescer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	total := 0
	for total < len(p) {
		for len(w.buf) >= coalesceMax && w.err == nil && !w.closed {
			w.notFull.Wait()
		}
		if w.err != nil {
			return total, w.err
		}
		if w.closed {
			return total, net.ErrClosed
		}
		n := min(len(p)-total, coalesceMax-len(w.buf))
		w.buf = append(w.buf, p[total:total+n]...)
		total += n
		w.notEmpty.Signal()
	}
	return total, nil
}

// flush owns one buffer while Write fills the other.
func (w *coalescer) flush() {
	defer close(w.flushed)
	var mine []byte
	for {
		w.mu.Lock()
		for len(w.buf) == 0 && !w.closed {
			w.notEmpty.Wait()
		}
		mine, w.buf = w.buf, mine[:0]
		w.mu.Unlock()
		if len(mine) == 0 {
			return
		}
		_, err := w.Conn.Write(mine)
		w.mu.Lock()
		w.err = err
		w.notFull.Broadcast()
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Close sends what is held for at most coalesceLast, then closes the connection.
func (w *coalescer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.notEmpty.Broadcast()
	w.notFull.Broadcast()
	w.mu.Unlock()
	t := time.NewTimer(coalesceLast)
	defer t.Stop()
	select {
	case <-w.flushed:
	case <-t.C:
	}
	return w.Conn.Close()
}
