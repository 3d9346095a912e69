package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// Stream is one raw stream (SPEC section 5). It is a net.Conn for one reader
// and one writer at a time; Close and the deadlines may be set concurrently.
type Stream struct {
	l     *Link
	y     *yamux.Stream
	class Class
	mine  bool // raw and opened here: the peer's header comes before its bytes
	lane  bool // each piece gets writeTime for the peer's window
	buf   [headerSize]byte

	answered  bool  // the first header of the other direction was read, or written
	answerErr error // what it said
	answer    sync.Mutex
	eof       atomic.Bool

	mu       sync.Mutex // guards what follows
	readEnd  time.Time  // zero: streamIdle from each Read
	writeEnd time.Time
	trying   bool // tryWrite has set the write deadline
	closed   bool
	idle     bool       // a served lane between two frames
	reading  sync.Mutex // held by Read; yamux reads are not reentrant
}

func newStream(l *Link, y *yamux.Stream, c Class) *Stream { return &Stream{l: l, y: y, class: c} }

// Open opens a raw stream and returns without waiting for the peer, whose
// refusal is then the error (a *[CallError]) of the first Read. The caller must Close it.
func (l *Link) Open(ctx context.Context, class Class) (*Stream, error) {
	if !l.side.mayOpen(class) {
		return nil, ErrClass
	}
	if !l.countOpen() {
		return nil, ErrTooManyStreams
	}
	y, err := l.openWithin(ctx)
	if err != nil {
		l.uncountOpen()
		return nil, err
	}
	s := newStream(l, y, class)
	s.mine = true
	header{class: class, kind: kindRaw}.put(s.buf[:])
	if _, err := s.y.Write(s.buf[:]); err != nil {
		_ = s.Close()
		return nil, l.check(err)
	}
	return s, nil
}

func (l *Link) countOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened >= l.side.other().maxAccepted() {
		return false
	}
	l.opened++
	return true
}

func (l *Link) uncountOpen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened--
}

// Class is the class the stream was opened with.
func (s *Stream) Class() Class { return s.class }

// Read reads from the stream. Without a deadline of its own it fails after 10 min of silence.
func (s *Stream) Read(p []byte) (int, error) {
	if s.isClosed() { // before the lock, which whoever throws the rest away may hold
		return 0, net.ErrClosed
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	if !s.armRead() {
		return 0, net.ErrClosed
	}
	if s.mine {
		if err := s.readAnswer(); err != nil {
			return 0, err
		}
	}
	n, err := s.y.Read(p)
	if errors.Is(err, io.EOF) {
		s.eof.Store(true)
	}
	return n, s.l.check(err)
}

// armRead sets the deadline of the next read; false when the stream is closed.
func (s *Stream) armRead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readEnd.IsZero() && !s.closed {
		_ = s.y.SetReadDeadline(time.Now().Add(streamIdle))
	}
	return !s.closed
}

// readAnswer reads the header with which the peer took or refused the stream.
func (s *Stream) readAnswer() error {
	if s.answered {
		return s.answerErr
	}
	s.answered = true
	s.answerErr = s.parseAnswer()
	return s.answerErr
}

func (s *Stream) parseAnswer() error {
	if _, err := io.ReadFull(s.y, s.buf[:]); err != nil {
		return s.l.check(unexpected(err))
	}
	h, err := parseHeader(s.buf[:])
	if err != nil {
		return err
	}
	switch h.kind {
	case kindRaw:
		return nil
	case kindError:
		return s.readRefusal(h)
	}
	return errBadFrame
}

// readRefusal reads the body of an error and returns what it says.
func (s *Stream) readRefusal(h header) error {
	body, err := readBody(s.y, h.length)
	if err != nil {
		return err
	}
	e, err := parseError(h, body)
	if err != nil {
		return err
	}
	return e
}

// accept answers a stream of the peer's, before our first byte.
func (s *Stream) accept() error {
	s.answer.Lock()
	defer s.answer.Unlock()
	if s.mine || s.answered {
		return s.answerErr
	}
	s.answered = true
	var b [headerSize]byte
	header{class: s.class, kind: kindRaw}.put(b[:])
	_, s.answerErr = s.y.Write(b[:])
	return s.answerErr
}

// Refuse answers a stream of the peer's with an error instead of bytes, and closes it.
// It does nothing after the first Write.
func (s *Stream) Refuse(e *CallError) {
	s.answer.Lock()
	if !s.mine && !s.answered {
		s.answered, s.answerErr = true, e
		_, _ = s.y.Write(errorFrame(s.class, 0, e))
	}
	s.answer.Unlock()
	_ = s.Close()
}

// Write writes all of p in pieces (SPEC section 3).
func (s *Stream) Write(p []byte) (int, error) {
	if err := s.accept(); err != nil {
		return 0, s.l.check(err)
	}
	return s.write(p)
}

func (s *Stream) write(p []byte) (int, error) {
	write, piece := s.y.Write, interactivePiece
	if s.class.bulk() {
		write, piece = s.writeBulk, bulkPiece
	}
	total := 0
	for total < len(p) {
		if s.lane {
			_ = s.SetWriteDeadline(time.Now().Add(writeTime))
		}
		n, err := write(p[total:min(total+piece, len(p))])
		total += n
		if err != nil {
			return total, s.l.check(err)
		}
	}
	return total, nil
}

// writeBulk writes some of p in one of the link's places for bulk pieces. A place is
// never held while waiting for the peer's window: then one byte waits outside for it.
func (s *Stream) writeBulk(p []byte) (int, error) {
	places := s.l.bulkPlaces()
	select {
	case places <- struct{}{}:
	case <-s.l.ctx.Done():
		return 0, s.l.gone()
	}
	n, err := s.tryWrite(p)
	<-places
	if !errors.Is(err, yamux.ErrTimeout) {
		return n, err
	}
	m, err := s.y.Write(p[n : n+1])
	return n + m, err
}

// tryWrite writes as much of p as the peer's window has room for. yamux looks
// at the write deadline only when there is none, so one in the past makes it try.
func (s *Stream) tryWrite(p []byte) (int, error) {
	s.mu.Lock()
	s.trying = true
	_ = s.y.SetWriteDeadline(time.Unix(1, 0))
	s.mu.Unlock()
	n, err := s.y.Write(p)
	s.mu.Lock()
	s.trying = false
	_ = s.y.SetWriteDeadline(s.writeEnd)
	s.mu.Unlock()
	return n, err
}

// CloseWrite says that no more will be written; reads go on for at most 30 s.
func (s *Stream) CloseWrite() error {
	if err := s.accept(); err != nil {
		return s.l.check(err)
	}
	return s.y.Close()
}

// Close ends both directions; what the peer still sends is thrown away.
func (s *Stream) Close() error {
	if !s.shut() {
		return nil
	}
	_ = s.accept()
	_ = s.y.Close()
	if s.mine {
		s.l.uncountOpen()
	}
	if !s.eof.Load() {
		go func() {
			s.reading.Lock() // until a blocked Read has left
			defer s.reading.Unlock()
			s.l.drop(s.y)
		}()
	}
	return nil
}

// shut marks the stream closed and frees a blocked Read; false when it was.
func (s *Stream) shut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.closed
	s.closed = true
	_ = s.y.SetReadDeadline(time.Unix(1, 0))
	return !was
}

func (s *Stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Shrink gives back the receive buffer of a stream that stays open but idle.
func (s *Stream) Shrink() { s.y.Shrink() }

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline replaces the deadline of 10 min from each Read; zero brings that back.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readEnd = t
	if s.closed {
		return net.ErrClosed
	}
	return s.y.SetReadDeadline(t)
}

// SetWriteDeadline bounds waiting for the peer's window; zero is no bound.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeEnd = t
	if s.trying {
		return nil
	}
	return s.y.SetWriteDeadline(t)
}

// LocalAddr is the address of the link's own end.
func (s *Stream) LocalAddr() net.Addr { return s.l.conn.bottom.LocalAddr() }

// RemoteAddr is the address of the link's far end, or of a proxy before it.
func (s *Stream) RemoteAddr() net.Addr { return s.l.conn.bottom.RemoteAddr() }
