package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// Link is one live tunnel, at either end. All methods may be called concurrently.
//
// An idle link costs its broker four goroutines: the WebSocket library's timeout
// loop, yamux's two loops, and the accept loop below.
type Link struct {
	linkConfig
	since   time.Time
	conn    *conn
	sess    *yamux.Session
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
	cause   atomic.Pointer[error] // set once, by end
	leaving atomic.Bool           // draining: nothing new begins

	introduced chan struct{} // closed when OnLink has returned; nil for a link that lost; server.mu

	mu        sync.Mutex
	served    chan struct{} // closed by Serve
	handler   Handler
	streams   StreamHandler
	lanes     [numClasses]*lane         // ours
	turns     [numClasses]chan struct{} // held by the peer's lane of that class
	accepted  int                       // streams the peer opened and we serve
	opened    int                       // raw streams of ours
	lingering int                       // streams we reset and the peer did not close yet
	serving   [numClasses]*Stream       // the lanes that have the turn
	bulk      chan struct{}             // a place for each bulk piece in the send queue

	beat beat
}

// linkConfig is what a link is told at its start.
type linkConfig struct {
	side   side
	peer   Peer
	epoch  uint64
	log    *slog.Logger
	budget *budget     // shared by the links of a server
	onEnd  func(*Link) // if not nil, called once, after done is closed
}

// newLink puts yamux on a fresh WebSocket and starts the accept loop.
func newLink(c *conn, mux *yamux.Config, cfg linkConfig) (*Link, error) {
	start := yamux.Server
	if cfg.side == agentSide {
		start = yamux.Client
	}
	sess, err := start(&joiner{ReadWriteCloser: c}, mux)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("tunnel: yamux: %w", err)
	}
	l := &Link{
		linkConfig: cfg, since: time.Now(), conn: c, sess: sess,
		done: make(chan struct{}), served: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	go l.run()
	return l, nil
}

// Peer is who is at the other end.
func (l *Link) Peer() Peer { return l.peer }

// Epoch is the fencing epoch that Admit gave.
func (l *Link) Epoch() uint64 { return l.epoch }

// Since is when the link came up.
func (l *Link) Since() time.Time { return l.since }

// Done is closed when the link has ended.
func (l *Link) Done() <-chan struct{} { return l.done }

// Err is nil while the link lives, then why it ended; a *[CloseError] when on purpose.
func (l *Link) Err() error {
	if p := l.cause.Load(); p != nil {
		return *p
	}
	return nil
}

// Close ends the link with a reason token ([a-z0-9_], at most 32 bytes; anything
// else is sent as "closed"). It returns within a second, when the link has ended.
// Closing twice is safe; the first reason stays.
func (l *Link) Close(reason string) {
	if !token(reason) {
		reason = "closed"
	}
	l.end(&CloseError{Reason: reason})
	<-l.done
}

// Serve answers the lanes that the peer opens with h, from now on; it does not
// block. Call it once, at once: streams that come before it wait 5 s and are then refused.
func (l *Link) Serve(h Handler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handler != nil {
		panic("tunnel: Serve called twice")
	}
	l.handler = h
	close(l.served)
}

// ServeStreams gives the raw streams that the peer opens to h. Call it before Serve.
func (l *Link) ServeStreams(h StreamHandler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams = h
}

// Ping measures one round trip. It does not end the link when ctx ends first.
func (l *Link) Ping(ctx context.Context) (time.Duration, error) {
	type answer struct {
		rtt time.Duration
		err error
	}
	c := make(chan answer, 1)
	go func() { // yamux's own limit is writeTime
		rtt, err := l.sess.Ping()
		c <- answer{rtt, l.check(err)}
	}()
	select {
	case a := <-c:
		return a.rtt, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-l.ctx.Done():
		return 0, l.gone()
	}
}

// run is the accept loop; it never waits for a stream it accepted.
func (l *Link) run() {
	for {
		y, err := l.sess.AcceptStream()
		if err != nil {
			l.end(l.sessionError(err))
			break
		}
		l.accept(y)
	}
	_ = l.sess.Close() // when another goroutine ends the link, wait for it
	close(l.done)
	if l.onEnd != nil {
		l.onEnd(l)
	}
}

// end closes the link for cause; only the first call does something. It does
// not wait for the accept loop.
func (l *Link) end(cause error) {
	if !l.cause.CompareAndSwap(nil, &cause) {
		return
	}
	l.cancel()
	var ce *CloseError
	if errors.As(cause, &ce) && !ce.Remote {
		l.conn.bye(closeFrame(ce))
	}
	_ = l.conn.Close()
	_ = l.sess.Close()
}

// sessionError says why yamux's session ended by itself.
func (l *Link) sessionError(err error) error {
	if ce := l.conn.peer.Load(); ce != nil {
		return ce
	}
	if errors.Is(err, yamux.ErrConnectionWriteTimeout) {
		return ErrWriteTimeout
	}
	return fmt.Errorf("tunnel: the connection broke: %w", err)
}

// check passes a yamux error on, and ends the link at a write timeout: yamux
// leaves the frame in its queue and the peer waiting for the rest.
func (l *Link) check(err error) error {
	switch {
	case errors.Is(err, yamux.ErrConnectionWriteTimeout):
		l.end(ErrWriteTimeout)
		return ErrWriteTimeout
	case errors.Is(err, yamux.ErrSessionShutdown):
		return l.gone()
	}
	return err
}

// gone is the error of a call on a link that has ended.
func (l *Link) gone() error {
	if cause := l.Err(); cause != nil {
		return fmt.Errorf("%w: %w", ErrClosed, cause)
	}
	return ErrClosed
}

// openStream opens a yamux stream. It may wait writeTime for a stalled wire, and
// longer for a peer that leaves many streams unaccepted; see openWithin.
func (l *Link) openStream() (*yamux.Stream, error) {
	if l.leaving.Load() {
		return nil, ErrDraining
	}
	y, err := l.sess.OpenStream()
	if errors.Is(err, yamux.ErrRemoteGoAway) {
		return nil, ErrDraining
	}
	return y, l.check(err)
}

// openWithin is openStream for a caller who may give up.
func (l *Link) openWithin(ctx context.Context) (*yamux.Stream, error) {
	type result struct {
		y   *yamux.Stream
		err error
	}
	c := make(chan result, 1)
	go func() {
		y, err := l.openStream()
		c <- result{y, err}
	}()
	select {
	case r := <-c:
		return r.y, r.err
	case <-ctx.Done():
		go func() {
			if r := <-c; r.err == nil {
				l.drop(r.y)
			}
		}()
		return nil, ctx.Err()
	}
}

// bulkPlaces is the semaphore of SPEC section 3, made when first needed.
func (l *Link) bulkPlaces() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bulk == nil {
		l.bulk = make(chan struct{}, bulkInFlight)
	}
	return l.bulk
}

// turn is held by the one lane of the peer's that is handled in class c.
func (l *Link) turn(c Class) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turns[c] == nil {
		l.turns[c] = make(chan struct{}, 1)
	}
	return l.turns[c]
}

// budget caps the accepted streams of several links together; each may hold a window.
type budget struct {
	used atomic.Int64
	max  int64
}

func (b *budget) take() bool {
	if b.used.Add(1) > b.max {
		b.used.Add(-1)
		return false
	}
	return true
}

func (b *budget) give() { b.used.Add(-1) }
