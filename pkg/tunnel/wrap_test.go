package tunnel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// record remembers each write, and may be told to wait or to fail.
type record struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
	gate   chan struct{}
	err    error
	closed chan struct{}
	once   sync.Once
}

func newRecord() *record { return &record{closed: make(chan struct{})} }

func (r *record) Write(p []byte) (int, error) {
	if r.gate != nil {
		select {
		case <-r.gate:
		case <-r.closed:
			return 0, net.ErrClosed
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	r.writes = append(r.writes, slices.Clone(p))
	return len(p), nil
}

func (r *record) Read([]byte) (int, error) { return 0, io.EOF }
func (r *record) Close() error             { r.once.Do(func() { close(r.closed) }); return nil }

func (r *record) all() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Join(r.writes, nil)
}

func (r *record) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.writes)
}

func muxHeader(typ byte, length int) []byte {
	h := make([]byte, muxHeaderSize)
	h[1] = typ
	binary.BigEndian.PutUint32(h[8:], uint32(length))
	return h
}

// A data header waits for its body; anything else goes at once.
func TestJoiner(t *testing.T) {
	r := newRecord()
	j := &joiner{ReadWriteCloser: r}
	body := bytes.Repeat([]byte("b"), 12) // as long as a header
	for _, p := range [][]byte{
		muxHeader(2, 0), muxHeader(0, 12), body, muxHeader(0, 0), muxHeader(1, 1<<20), muxHeader(0, 5), []byte("12345"),
	} {
		if n, err := j.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	want := [][]byte{
		muxHeader(2, 0), append(muxHeader(0, 12), body...), muxHeader(0, 0), muxHeader(1, 1<<20), append(muxHeader(0, 5), "12345"...),
	}
	if len(r.writes) != len(want) {
		t.Fatalf("%d writes, want %d", len(r.writes), len(want))
	}
	for i := range want {
		if !bytes.Equal(r.writes[i], want[i]) {
			t.Errorf("write %d: %q, want %q", i, r.writes[i], want[i])
		}
	}
}

func TestCoalescerGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecord()
		r.gate = make(chan struct{})
		w := newCoalescer(r)
		defer w.Close()
		_, _ = w.Write([]byte("first"))
		synctest.Wait() // it is on its way alone
		var want bytes.Buffer
		want.WriteString("first")
		for i := range 100 {
			b := bytes.Repeat([]byte{byte(i)}, 100)
			want.Write(b)
			if n, err := w.Write(b); n != 100 || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
		}
		close(r.gate)
		synctest.Wait()
		if r.count() != 2 || !bytes.Equal(r.all(), want.Bytes()) {
			t.Errorf("%d writes, %d bytes", r.count(), len(r.all()))
		}
	})
}

// It holds 64 KiB and not a byte more, beside what is being sent.
func TestCoalescerBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecord()
		r.gate = make(chan struct{})
		w := newCoalescer(r)
		_, _ = w.Write([]byte("x"))
		synctest.Wait()
		if n, err := w.Write(make([]byte, coalesceMax)); n != coalesceMax || err != nil {
			t.Fatalf("64 KiB: %d, %v", n, err)
		}
		done := make(chan error, 1)
		go func() { _, err := w.Write([]byte("y")); done <- err }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("one byte over did not wait: %v", err)
		default:
		}
		_ = w.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the waiting write: %v", err)
		}
		if _, err := w.Write([]byte("z")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// Close sends what is held, but does not wait for a stalled wire.
func TestCoalescerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecord()
		w := newCoalescer(r)
		_, _ = w.Write([]byte("last words"))
		_ = w.Close()
		if string(r.all()) != "last words" {
			t.Errorf("sent %q", r.all())
		}
		stalled := newRecord()
		stalled.gate = make(chan struct{})
		w = newCoalescer(stalled)
		_, _ = w.Write([]byte("never"))
		start := time.Now()
		_ = w.Close()
		_ = w.Close()
		if d := time.Since(start); d > 2*coalesceLast {
			t.Errorf("Close took %v", d)
		}
	})
}

func TestCoalescerError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecord()
		r.err = errors.New("broken")
		w := newCoalescer(r)
		_, _ = w.Write([]byte("x"))
		synctest.Wait()
		if _, err := w.Write([]byte("y")); !errors.Is(err, r.err) {
			t.Errorf("err = %v", err)
		}
		_ = w.Close()
	})
}
