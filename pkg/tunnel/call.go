package tunnel

import (
	"context"
	"time"
)

// call is one request of ours, from Call until its reply has come or its lane has ended.
type call struct {
	ctx   context.Context
	frame []byte    // header and request
	until time.Time // deadline
	reply chan result
}

type result struct {
	body []byte
	err  error
}

func (c *call) finish(body []byte, err error) { c.reply <- result{body, err} }

// Call sends req on the lane of class and waits for its reply (SPEC section 5).
// Calls of one class are handled by the peer in the order in which they were
// made, and many may wait at once. A *[CallError] is the peer's answer.
// [ErrLane] and [ErrClosed] leave it unknown whether the peer handled req, and
// so does the end of ctx: a request once sent is not called back. req may be
// reused after Call returned. Without a deadline in ctx it is 60 s.
func (l *Link) Call(ctx context.Context, class Class, req []byte) ([]byte, error) {
	if !l.side.mayOpen(class) {
		return nil, ErrClass
	}
	if len(req) > MaxFrame {
		return nil, ErrFrameTooLarge
	}
	limit := callTime
	if _, ok := ctx.Deadline(); ok {
		limit = maxDeadline
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := &call{ctx: ctx, reply: make(chan result, 1)}
	c.until, _ = ctx.Deadline()
	c.frame = frame(header{class: class, kind: kindRequest}, req)
	if err := l.enqueue(ctx, class, c); err != nil {
		return nil, err
	}
	select {
	case r := <-c.reply:
		return r.body, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.ctx.Done():
		return nil, l.gone()
	}
}

// enqueue gives c to the lane of class, and makes the lane when there is none.
func (l *Link) enqueue(ctx context.Context, class Class, c *call) error {
	for {
		ln, err := l.lane(class)
		if err != nil {
			return err
		}
		select {
		case ln.place <- struct{}{}:
		case <-ln.over:
			continue
		case <-ctx.Done():
			return ctx.Err()
		}
		if ln.add(c) {
			return nil
		}
	}
}
