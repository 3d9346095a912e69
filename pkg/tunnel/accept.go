package tunnel

import (
	"errors"
	"io"
	"time"

	"github.com/hashicorp/yamux"
)

// lingerTime is how long a reset stream may stay open at the peer.
const lingerTime = 30 * time.Second

// accept takes or refuses a stream of the peer's, and returns at once.
func (l *Link) accept(y *yamux.Stream) {
	if !l.admit() {
		go l.reset(y, &CallError{Code: CodeStreams})
		return
	}
	go func() {
		err := l.serveStream(y)
		l.release()
		if err != nil {
			l.reset(y, asCallError(err))
		}
	}()
}

// admit counts a stream in (SPEC section 3).
func (l *Link) admit() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accepted >= l.side.maxAccepted() || !l.budget.take() {
		return false
	}
	l.accepted++
	return true
}

func (l *Link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted--
	l.budget.give()
}

// serveStream reads the first header and serves what it announces. A nil error
// means that the stream is closed; any other is what it is reset with.
func (l *Link) serveStream(y *yamux.Stream) error {
	s := newStream(l, y, 0)
	h, err := s.readHeader(headerTime)
	if err != nil {
		return s.ended(err)
	}
	if !l.side.other().mayOpen(h.class) {
		return &CallError{Code: CodeClass}
	}
	if !l.waitServed() {
		return &CallError{Code: CodeNoServe}
	}
	s.class = h.class
	switch h.kind {
	case kindRequest:
		s.lane = true
		return l.serveLane(s, h)
	case kindRaw:
		return l.serveRaw(s)
	}
	return errBadFrame
}

// waitServed waits for Serve, for a while.
func (l *Link) waitServed() bool {
	t := time.NewTimer(serveWait)
	defer t.Stop()
	select {
	case <-l.served:
		return true
	case <-l.ctx.Done():
	case <-t.C:
	}
	return false
}

// serveRaw runs the stream handler; the stream is its own from then on.
func (l *Link) serveRaw(s *Stream) error {
	l.mu.Lock()
	h := l.streams
	l.mu.Unlock()
	if h == nil {
		return &CallError{Code: CodeNoServe}
	}
	defer func() { _ = s.Close() }()
	h(l.ctx, s)
	return nil
}

// reset tells the peer why, closes the stream and throws away what still comes:
// yamux has no reset of its own, and would buffer a window of it.
func (l *Link) reset(y *yamux.Stream, e *CallError) {
	if !l.startLinger() {
		return
	}
	defer l.stopLinger()
	_ = y.SetWriteDeadline(time.Now().Add(headerTime))
	_, err := y.Write(errorFrame(0, 0, e))
	_ = l.check(err)
	l.drop(y)
}

// startLinger counts a reset stream; too many end the link.
func (l *Link) startLinger() bool {
	l.mu.Lock()
	l.lingering++
	flood := l.lingering > maxLingering
	l.mu.Unlock()
	if flood {
		l.end(&CloseError{Reason: ReasonFlood})
	}
	return !flood
}

func (l *Link) stopLinger() {
	l.mu.Lock()
	l.lingering--
	l.mu.Unlock()
}

// drop closes a stream for good: it sends the end of our side, and reads and
// forgets the peer's until that ends too.
func (l *Link) drop(y *yamux.Stream) {
	_ = y.Close()
	_ = y.SetReadDeadline(time.Now().Add(lingerTime))
	if n, _ := io.Copy(io.Discard, io.LimitReader(y, maxLingerData)); n == maxLingerData {
		l.end(&CloseError{Reason: ReasonFlood})
	}
}

// asCallError is what the peer is told about a fault of its stream.
func asCallError(err error) *CallError {
	var ce *CallError
	if errors.As(err, &ce) {
		return ce
	}
	return &CallError{Code: CodeBadFrame}
}
