package tunnel

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"time"

	"github.com/hashicorp/yamux"
)

// drainSilence is how long a draining link waits for one more request of a lane.
const drainSilence = 100 * time.Millisecond

// shrinkAbove is the size of a frame after which a lane gives its buffer back.
const shrinkAbove = 64 << 10

// serveLane answers the requests of one lane in order, from its first header
// on (SPEC section 5). It returns as serveStream does.
func (l *Link) serveLane(s *Stream, h header) error {
	turn := l.turn(s.class)
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-l.ctx.Done():
		return nil
	}
	l.setServing(s.class, s)
	defer l.setServing(s.class, nil)
	for id := uint64(1); ; id++ {
		if h.kind != kindRequest || h.class != s.class || h.id != id {
			return errBadFrame
		}
		if err := l.serveRequest(s, h); err != nil {
			return s.ended(err)
		}
		var err error
		if h, err = s.readHeader(laneSilence); err != nil {
			return s.ended(err)
		}
	}
}

// serveRequest reads one request's body, has it handled and writes the answer.
func (l *Link) serveRequest(s *Stream, h header) error {
	body, err := s.readFrameBody(h.length)
	if err != nil {
		return err
	}
	out := l.handle(h, body)
	if l.ctx.Err() != nil {
		return l.ctx.Err()
	}
	_, err = s.write(out)
	return err
}

// handle calls the handler and makes the frame that answers.
func (l *Link) handle(h header, body []byte) []byte {
	ctx, cancel := context.WithTimeout(l.ctx, h.wait())
	defer cancel()
	reply, err := l.callHandler(ctx, h.class, body)
	if err == nil && len(reply) > MaxFrame {
		err = errTooLarge
	}
	if err == nil {
		return frame(header{class: h.class, kind: kindReply, id: h.id}, reply)
	}
	var ce *CallError
	switch {
	case errors.As(err, &ce):
	case errors.Is(err, context.DeadlineExceeded):
		ce = &CallError{Code: CodeDeadline}
	default:
		ce = &CallError{Code: CodeInternal}
		l.log.Warn("tunnel: a handler failed", "class", h.class.String(), "peer", l.peer.ID, "err", err)
	}
	return errorFrame(h.class, h.id, ce)
}

// callHandler keeps a handler's panic to its one request.
func (l *Link) callHandler(ctx context.Context, c Class, body []byte) (reply []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("tunnel: a handler panicked", "class", c.String(), "panic", p, "stack", string(debug.Stack()))
			reply, err = nil, &CallError{Code: CodeInternal}
		}
	}()
	l.mu.Lock()
	h := l.handler
	l.mu.Unlock()
	return h(ctx, c, body)
}

// setServing remembers which lane is handled in class c, so that a drain can hurry it.
func (l *Link) setServing(c Class, s *Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serving[c] = s
}

// readHeader waits for the next header; less than a whole one is a fault.
func (s *Stream) readHeader(wait time.Duration) (header, error) {
	s.setIdle(true, wait)
	n, err := io.ReadFull(s.y, s.buf[:1])
	s.setIdle(false, laneSilence)
	if err != nil {
		return header{}, err
	}
	if _, err = io.ReadFull(s.y, s.buf[n:]); err != nil {
		return header{}, unexpected(err)
	}
	return parseHeader(s.buf[:])
}

// readFrameBody reads the rest of a frame, and gives a large buffer back.
func (s *Stream) readFrameBody(n uint32) ([]byte, error) {
	body, err := readBody(&patient{y: s.y, end: time.Now().Add(frameTime)}, n)
	if n > shrinkAbove {
		s.y.Shrink()
	}
	return body, err
}

// patient reads a body from a slow peer: it waits laneSilence for each next byte,
// and until end for the last.
type patient struct {
	y   *yamux.Stream
	end time.Time
}

func (p *patient) Read(b []byte) (int, error) {
	t := time.Now().Add(laneSilence)
	if t.After(p.end) {
		t = p.end
	}
	_ = p.y.SetReadDeadline(t)
	return p.y.Read(b)
}

// setIdle sets the read deadline, and whether the lane is between two frames.
func (s *Stream) setIdle(idle bool, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = idle
	if idle && s.l.leaving.Load() {
		wait = drainSilence
	}
	_ = s.y.SetReadDeadline(time.Now().Add(wait))
}

// hurry closes the lane soon if it is between two frames.
func (s *Stream) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle {
		_ = s.y.SetReadDeadline(time.Now().Add(drainSilence))
	}
}

// ended sorts out why reading or writing a stream ended: nil when it is over
// and only has to be closed, else what the peer should be told.
func (s *Stream) ended(err error) error {
	err = s.l.check(err)
	var ce *CallError
	switch {
	case errors.As(err, &ce):
		return ce
	case errors.Is(err, yamux.ErrTimeout) && s.l.leaving.Load():
		return &CallError{Code: ReasonDrain}
	case errors.Is(err, yamux.ErrTimeout):
		return &CallError{Code: CodeSilent}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errBadFrame
	}
	_ = s.y.Close()
	return nil
}
