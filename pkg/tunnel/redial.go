package tunnel

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Times of coming back (SPEC section 8).
const (
	backoffFirst = 500 * time.Millisecond
	backoffMax   = 60 * time.Second
	goodLife     = 30 * time.Second // of a link, after which backoff starts again
	spreadMax    = 10 * time.Second // added to what the broker asked for
	probeTime    = 2 * time.Second
)

// RedialConfig is what a Redialer keeps up.
type RedialConfig struct {
	// Dial says how.
	Dial DialConfig
	// OnLink has each new link, in a goroutine of its own; it should call Serve at once,
	// and must return soon after the link has ended: the next dial waits for it.
	OnLink func(*Link)
	// OnState, if set, is called after each change of State, one call at a time; it must not block.
	OnState func(State)
	// GiveUp, if set, says that after this error only RetryNow dials again. A link
	// that was replaced never comes back by itself.
	GiveUp func(error) bool

	wall func() time.Time // of wake detection; nil is time.Now
}

// Phase is what a Redialer is doing.
type Phase uint8

// The phases.
const (
	Stopped   Phase = iota // Run has not begun, or has ended
	Dialing                // an upgrade is under way
	Connected              // Link is live
	Waiting                // for NextTry
	Off                    // until RetryNow
)

func (p Phase) String() string {
	return [...]string{"stopped", "dialing", "connected", "waiting", "off"}[p]
}

// State is a snapshot of a Redialer, for a status page.
type State struct {
	Phase    Phase
	Since    time.Time     // when the phase began
	LastErr  error         // of the last dial, or the end of the last link; nil before any
	NextTry  time.Time     // with Waiting
	Attempts int           // failed tries since a link last lived 30 s
	RTT      time.Duration // with Connected: measured at its start, 0 until then
}

// Redialer keeps one link to a broker up (SPEC section 8). Its methods may be
// called concurrently.
type Redialer struct {
	cfg    RedialConfig
	dialer *dialer
	retry  chan struct{}

	mu    sync.Mutex
	state State
	link  *Link
}

// NewRedialer checks the configuration; Run starts it.
func NewRedialer(cfg RedialConfig) (*Redialer, error) {
	d, err := newDialer(cfg.Dial)
	if err != nil {
		return nil, err
	}
	if cfg.wall == nil {
		cfg.wall = time.Now
	}
	return &Redialer{cfg: cfg, dialer: d, retry: make(chan struct{}, 1)}, nil
}

// Run dials, and dials again, until ctx ends; it closes the link with
// going_away and returns nil then. Call it once.
func (r *Redialer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { r.watchWake(ctx) })
	defer wg.Wait()
	for failed := 0; ctx.Err() == nil; {
		lived, err := r.once(ctx, failed)
		if ctx.Err() != nil {
			break
		}
		if lived >= goodLife {
			failed = 0
		}
		r.pause(ctx, failed, err)
		failed++
	}
	r.set(State{Phase: Stopped, LastErr: r.State().LastErr})
	return nil
}

// RetryNow dials at once when waiting or off, and when connected probes the link
// with a deadline of 2 s. For SIGHUP, and for an owner's "retry now".
func (r *Redialer) RetryNow() {
	select {
	case r.retry <- struct{}{}:
	default:
	}
}

// Link is the live link, or nil.
func (r *Redialer) Link() *Link {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link
}

// State is what a status page shows.
func (r *Redialer) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// set changes the state; only Run's goroutine calls it.
func (r *Redialer) set(s State) {
	s.Since = time.Now()
	r.publish(s)
}

func (r *Redialer) publish(s State) {
	r.mu.Lock()
	r.state = s
	r.mu.Unlock()
	if r.cfg.OnState != nil {
		r.cfg.OnState(s)
	}
}

// once dials once and holds the link until it ends; it returns how long it lived.
func (r *Redialer) once(ctx context.Context, failed int) (time.Duration, error) {
	r.set(State{Phase: Dialing, LastErr: r.State().LastErr, Attempts: failed})
	l, err := r.dialer.dial(ctx)
	if err != nil {
		return 0, err
	}
	r.setLink(l)
	defer r.setLink(nil)
	r.set(State{Phase: Connected, LastErr: r.State().LastErr, Attempts: failed})
	r.hold(ctx, l)
	return time.Since(l.Since()), l.Err()
}

func (r *Redialer) setLink(l *Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.link = l
}

// hold gives the link to its user and waits for its end.
func (r *Redialer) hold(ctx context.Context, l *Link) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if r.cfg.OnLink != nil {
		wg.Go(func() { r.cfg.OnLink(l) })
	}
	rtt := make(chan time.Duration, 1)
	wg.Go(func() {
		if d, err := l.Ping(l.ctx); err == nil {
			rtt <- d
		}
	})
	for {
		select {
		case <-l.Done():
			return
		case d := <-rtt:
			s := r.State()
			s.RTT = d
			r.publish(s)
		case <-r.retry:
			r.probe(ctx, l)
		case <-ctx.Done():
			l.Close(ReasonGoingAway)
			return
		}
	}
}

// probe pings l and ends it when there is no answer: after a sleep it is a ghost.
func (r *Redialer) probe(ctx context.Context, l *Link) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if _, err := l.Ping(ctx); errors.Is(err, context.DeadlineExceeded) {
		l.end(ErrKeepalive)
	}
}

// pause waits before the next dial.
func (r *Redialer) pause(ctx context.Context, failed int, err error) {
	if r.off(err) {
		r.set(State{Phase: Off, LastErr: err, Attempts: failed + 1})
		select {
		case <-r.retry:
		case <-ctx.Done():
		}
		return
	}
	d := delay(failed, err)
	r.set(State{Phase: Waiting, LastErr: err, NextTry: time.Now().Add(d), Attempts: failed + 1})
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.retry:
	case <-ctx.Done():
	}
}

// off says whether only RetryNow dials again after err.
func (r *Redialer) off(err error) bool {
	var ce *CloseError
	if errors.As(err, &ce) && ce.Remote && ce.Reason == ReasonReplaced {
		return true
	}
	return r.cfg.GiveUp != nil && r.cfg.GiveUp(err)
}

// delay is how long to wait before the next try, after failed tries and err.
func delay(failed int, err error) time.Duration {
	most := backoffMax
	if failed < 7 { // 0.5 s × 2^7 is above the most
		most = min(backoffMax, backoffFirst<<failed)
	}
	if asked := asked(err); asked > 0 {
		return asked + rand.N(min(asked, spreadMax))
	}
	return rand.N(most)
}

// asked is how long the broker wants to be left alone. What it forbids is asked
// for again, but no more than about once a minute.
func asked(err error) time.Duration {
	var ce *CloseError
	var he *HTTPError
	switch {
	case errors.As(err, &ce) && ce.Remote && ce.Reason == ReasonDrain:
		return ce.ComeBackIn
	case errors.As(err, &ce) && ce.Remote && ce.Reason == ReasonConflict:
		return backoffMax
	case errors.As(err, &he) && he.RetryAfter > 0:
		return he.RetryAfter
	case errors.As(err, &he) && he.Status == http.StatusForbidden:
		return backoffMax
	}
	return 0
}
