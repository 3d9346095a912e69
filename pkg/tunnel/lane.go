package tunnel

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// lane is our lane of one class (SPEC section 5). A goroutine reads the replies for as
// long as the lane lives, another writes while there is something to write. A lane
// ends by itself when quiet, and its link then makes another.
type lane struct {
	l     *Link
	class Class
	place chan struct{} // one for each request in flight
	over  chan struct{} // closed at the end

	mu      sync.Mutex
	s       *Stream // nil until opened
	queue   []*call // to be written
	writing bool    // there is a writer
	sent    []*call // written, in order
	live    int     // queued, being written and sent
	quiet   time.Time
	ended   bool
	id      uint64
}

// lane returns the live lane of class.
func (l *Link) lane(class Class) (*lane, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Err() != nil {
		return nil, l.gone()
	}
	if l.leaving.Load() {
		return nil, ErrDraining
	}
	if l.lanes[class] == nil {
		ln := &lane{
			l: l, class: class,
			place: make(chan struct{}, MaxInFlight), over: make(chan struct{}),
		}
		l.lanes[class] = ln
	}
	return l.lanes[class], nil
}

// add queues c, and starts a writer when there is none; false when the lane has ended.
func (ln *lane) add(c *call) bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.ended {
		return false
	}
	ln.live++
	ln.queue = append(ln.queue, c)
	if !ln.writing {
		ln.writing = true
		go ln.run()
	}
	return true
}

// run writes what is queued, and opens the stream and starts the reader before that if need be.
func (ln *lane) run() {
	s, err := ln.stream()
	for err == nil {
		c := ln.take()
		if c == nil {
			return
		}
		err = ln.write(s, c)
	}
	ln.end(err)
}

// stream is the lane's stream, opened when first needed. Only the writer calls it.
func (ln *lane) stream() (*Stream, error) {
	ln.mu.Lock()
	s := ln.s
	ln.mu.Unlock()
	if s != nil {
		return s, nil
	}
	y, err := ln.l.openStream()
	if err != nil {
		return nil, err
	}
	s = newStream(ln.l, y, ln.class)
	s.lane = true
	ln.mu.Lock()
	ln.s = s
	ln.mu.Unlock()
	go ln.read(s)
	return s, nil
}

// take is the next call to write; nil when there is none, which ends the writer.
func (ln *lane) take() *call {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if len(ln.queue) == 0 {
		ln.writing, ln.queue = false, nil
		return nil
	}
	c := ln.queue[0]
	ln.queue[0] = nil
	ln.queue = ln.queue[1:]
	return c
}

// write sends one request, unless its caller has given up already.
func (ln *lane) write(s *Stream, c *call) error {
	left := time.Until(c.until).Milliseconds()
	if c.ctx.Err() != nil || left <= 0 {
		ln.forget(c)
		return nil
	}
	ln.push(s, c, uint32(left))
	_, err := s.write(c.frame)
	return err
}

// push puts c among the sent, with its id and what is left of its time.
func (ln *lane) push(s *Stream, c *call, left uint32) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.id++
	binary.BigEndian.PutUint64(c.frame[8:], ln.id)
	binary.BigEndian.PutUint32(c.frame[16:], left)
	ln.sent = append(ln.sent, c)
	ln.arm(s)
}

// forget drops a queued call that was never sent.
func (ln *lane) forget(c *call) {
	c.finish(nil, c.ctx.Err())
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.leave()
}

// leave counts one call out; mu is held.
func (ln *lane) leave() {
	ln.live--
	<-ln.place
	if ln.live == 0 {
		ln.quiet = time.Now()
	}
}

// arm sets when the reader should look up: at the latest time of the first
// reply, or at the end of the quiet; mu is held.
func (ln *lane) arm(s *Stream) {
	if ln.ended {
		return // end has set a deadline in the past
	}
	t := time.Now().Add(laneQuiet)
	switch {
	case len(ln.sent) > 0:
		t = ln.sent[0].until.Add(replyGrace)
	case ln.live == 0 && ln.l.leaving.Load():
		t = time.Now()
	case ln.live == 0:
		t = ln.quiet.Add(laneQuiet)
	}
	_ = s.y.SetReadDeadline(t)
}

// read gives each reply to its call, until the lane is quiet or broken; then it
// closes the stream.
func (ln *lane) read(s *Stream) {
	defer ln.l.drop(s.y)
	for {
		h, err := ln.next(s)
		if err == nil {
			err = ln.deliver(s, h)
		}
		if err != nil {
			ln.end(err)
			return
		}
	}
}

// errQuiet ends a lane that nothing is in flight on.
var errQuiet = errors.New("tunnel: quiet")

// next waits for a header. The deadline that ends the wait is set by arm.
func (ln *lane) next(s *Stream) (header, error) {
	for {
		ln.mu.Lock()
		ln.arm(s)
		ln.mu.Unlock()
		_, err := io.ReadFull(s.y, s.buf[:1])
		if err == nil {
			break
		}
		if !errors.Is(err, yamux.ErrTimeout) {
			return header{}, err
		}
		if err := ln.lookUp(); err != nil {
			return header{}, err
		}
	}
	_ = s.y.SetReadDeadline(time.Now().Add(laneSilence))
	if _, err := io.ReadFull(s.y, s.buf[1:]); err != nil {
		return header{}, unexpected(err)
	}
	return parseHeader(s.buf[:])
}

// lookUp says whether the lane should end: a reply is overdue, or it is quiet.
func (ln *lane) lookUp() error {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.ended {
		return errQuiet
	}
	now := time.Now()
	if len(ln.sent) > 0 {
		if now.Before(ln.sent[0].until.Add(replyGrace)) {
			return nil
		}
		return ErrLane
	}
	if ln.live == 0 && (ln.l.leaving.Load() || now.Sub(ln.quiet) >= laneQuiet) {
		ln.ended = true // from here on add refuses
		return errQuiet
	}
	return nil
}

// deliver reads the body that h announces and finishes the call it belongs to.
func (ln *lane) deliver(s *Stream, h header) error {
	body, err := s.readFrameBody(h.length)
	if err != nil {
		return err
	}
	var refusal *CallError
	if h.kind == kindError {
		if refusal, err = parseError(h, body); err != nil {
			return err
		}
		if h.id == 0 {
			return refusal
		}
	} else if h.kind != kindReply {
		return errBadFrame
	}
	c, err := ln.pop(h)
	if err != nil {
		return err
	}
	if refusal != nil {
		c.finish(nil, refusal)
	} else {
		c.finish(body, nil)
	}
	return nil
}

// pop takes the oldest call, which h must answer.
func (ln *lane) pop(h header) (*call, error) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if h.class != ln.class || len(ln.sent) == 0 || h.id != ln.id-uint64(len(ln.sent))+1 {
		return nil, errBadFrame
	}
	c := ln.sent[0]
	ln.sent[0] = nil
	ln.sent = ln.sent[1:]
	ln.leave()
	return c, nil
}

// end takes the lane off its link, fails what is in flight and wakes the reader.
func (ln *lane) end(err error) {
	calls := ln.detach()
	err = ln.blame(err)
	for _, c := range calls {
		c.finish(nil, err)
	}
}

// detach marks the lane ended and returns what was in flight.
func (ln *lane) detach() []*call {
	ln.l.mu.Lock()
	if ln.l.lanes[ln.class] == ln {
		ln.l.lanes[ln.class] = nil
	}
	ln.l.mu.Unlock()
	ln.mu.Lock()
	defer ln.mu.Unlock()
	select {
	case <-ln.over:
		return nil
	default:
	}
	ln.ended = true
	close(ln.over)
	calls := append(ln.sent, ln.queue...)
	ln.sent, ln.queue = nil, nil
	if ln.s != nil {
		_ = ln.s.y.SetReadDeadline(time.Unix(1, 0))
	}
	return calls
}

// hurry closes the lane now if it is quiet.
func (ln *lane) hurry() {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.s != nil {
		ln.arm(ln.s)
	}
}

// blame is what the calls in flight get: the peer's word for its reset, or ErrLane.
func (ln *lane) blame(err error) error {
	err = ln.l.check(err)
	var ce *CallError
	if errors.Is(err, ErrDraining) || errors.Is(err, ErrClosed) || errors.As(err, &ce) && ce != errBadFrame && ce != errTooLarge {
		return err
	}
	return ErrLane
}
