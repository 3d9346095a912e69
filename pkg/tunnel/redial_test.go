package tunnel_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/tunnel/tunneltest"
)

// runner is a Redialer under way, and what it said.
type runner struct {
	*tunnel.Redialer
	up     chan *tunnel.Link
	mu     sync.Mutex
	states []tunnel.State
}

// run starts a Redialer for desk and stops it with the test.
func run(t *testing.T, b *tunneltest.Broker, change func(*tunnel.RedialConfig)) *runner {
	t.Helper()
	r := &runner{up: make(chan *tunnel.Link, 64)}
	cfg := tunnel.RedialConfig{
		Dial:   b.DialConfig("desk"),
		OnLink: func(l *tunnel.Link) { l.Serve(tunneltest.Echo); r.up <- l },
		OnState: func(s tunnel.State) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.states = append(r.states, s)
		},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.Redialer, err = tunnel.NewRedialer(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if s := r.State(); s.Phase != tunnel.Stopped {
			t.Errorf("after Run: %v", s.Phase)
		}
	})
	return r
}

// phases is what the Redialer went through, without repeats.
func (r *runner) phases() []tunnel.Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	var p []tunnel.Phase
	for _, s := range r.states {
		p = append(p, s.Phase)
	}
	return slices.Compact(p)
}

func TestRedialComesBack(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		r := run(t, b, nil)
		for range 3 {
			l := <-r.up
			synctest.Wait()
			if r.Link() != l || r.State().Phase != tunnel.Connected {
				t.Fatalf("link %p, state %+v", r.Link(), r.State())
			}
			time.Sleep(31 * time.Second)
			cut := time.Now()
			b.Last().Cut()
			<-l.Done()
			synctest.Wait()
			if s := r.State(); s.Phase != tunnel.Waiting || s.LastErr == nil || s.NextTry.Sub(cut) > 500*time.Millisecond || r.Link() != nil {
				t.Errorf("state %+v, link %v", s, r.Link())
			}
		}
		<-r.up
		synctest.Wait()
		want := []tunnel.Phase{tunnel.Dialing, tunnel.Connected, tunnel.Waiting, tunnel.Dialing}
		if got := r.phases(); !slices.Equal(got[:4], want) {
			t.Errorf("phases %v", got)
		}
	})
}

// The header is asked for before every dial, because a nonce is good for one.
func TestRedialSignsAnew(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		var calls atomic.Int32
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{
			Authenticate: func(*http.Request) (tunnel.Peer, error) {
				return tunnel.Peer{}, &tunnel.HTTPError{Status: 401, Body: "nonce_used"}
			},
		})
		r := run(t, b, func(c *tunnel.RedialConfig) {
			c.Dial.Header = func(context.Context) (http.Header, error) {
				if calls.Add(1) == 1 {
					return nil, errors.New("no nonce to be had")
				}
				return http.Header{}, nil
			}
		})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		s := r.State()
		if n := int(calls.Load()); n < 10 || n != s.Attempts {
			t.Errorf("%d calls, %d attempts", n, s.Attempts)
		}
		var he *tunnel.HTTPError
		if !errors.As(s.LastErr, &he) || he.Status != 401 {
			t.Errorf("LastErr %v", s.LastErr)
		}
	})
}

// Delays are uniform in 0..min(60 s, 0.5 s × 2^n), and at least what the broker asked for.
func TestDelay(t *testing.T) {
	refused := func(status int, after time.Duration) error {
		return &tunnel.HTTPError{Status: status, RetryAfter: after}
	}
	drain := &tunnel.CloseError{Reason: tunnel.ReasonDrain, ComeBackIn: 4 * time.Second, Remote: true}
	for _, c := range []struct {
		failed   int
		err      error
		low, top time.Duration
	}{
		{0, nil, 0, 500 * time.Millisecond},
		{3, errors.New("x"), 0, 4 * time.Second},
		{6, nil, 0, 32 * time.Second},
		{7, nil, 0, 60 * time.Second},
		{1000, nil, 0, 60 * time.Second},
		{0, refused(429, 3*time.Second), 3 * time.Second, 6 * time.Second},
		{9, refused(503, 200*time.Second), 200 * time.Second, 210 * time.Second},
		{0, refused(403, 0), 60 * time.Second, 70 * time.Second},
		{0, drain, 4 * time.Second, 8 * time.Second},
		{0, &tunnel.CloseError{Reason: tunnel.ReasonConflict, Remote: true}, 60 * time.Second, 70 * time.Second},
	} {
		least, most := time.Hour, time.Duration(0)
		for range 3000 {
			d := tunnel.Delay(c.failed, c.err)
			least, most = min(least, d), max(most, d)
		}
		span := c.top - c.low
		if least < c.low || most >= c.top || least > c.low+span/50 || most < c.top-span/50 {
			t.Errorf("failed %d, %v: %v..%v, want about %v..%v", c.failed, c.err, least, most, c.low, c.top)
		}
	}
}

// Backoff grows while links are short, and starts again after one that lived 30 s.
func TestBackoffReset(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		r := run(t, b, nil)
		for i := range 8 {
			l := <-r.up
			if got := r.State().Attempts; got != i {
				t.Errorf("link %d: %d attempts", i, got)
			}
			time.Sleep(29 * time.Second)
			b.Last().Cut()
			<-l.Done()
		}
		l := <-r.up
		time.Sleep(30 * time.Second)
		b.Last().Cut()
		<-l.Done()
		synctest.Wait()
		if got := r.State().Attempts; got != 1 {
			t.Errorf("after a good link: %d attempts", got)
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		var last atomic.Int64
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{
			Authenticate: func(*http.Request) (tunnel.Peer, error) {
				now := time.Now().UnixNano()
				if gap := time.Duration(now - last.Swap(now)); gap < 90*time.Second {
					t.Errorf("came back after %v", gap)
				}
				return tunnel.Peer{}, &tunnel.HTTPError{Status: 429, RetryAfter: 90 * time.Second, Body: "slow"}
			},
		})
		r := run(t, b, nil)
		time.Sleep(20 * time.Minute)
		if n := r.State().Attempts; n < 10 {
			t.Errorf("only %d attempts", n)
		}
	})
}

// A drained agent comes back when it was told to, to the broker's next process.
func TestRedialAfterDrain(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		old := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		next := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		var at atomic.Pointer[tunneltest.Network]
		at.Store(old.Network)
		r := run(t, old, func(c *tunnel.RedialConfig) {
			c.Dial.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				return at.Load().Dial(ctx, network, addr)
			}
		})
		<-r.up
		at.Store(next.Network)
		start := time.Now()
		if err := old.Drain(t.Context(), 5*time.Second); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s := r.State()
		if d := s.NextTry.Sub(start); s.Phase != tunnel.Waiting || d < 5*time.Second || d > 10*time.Second+100*time.Millisecond {
			t.Errorf("state %+v, next try in %v", s, d)
		}
		<-r.up
		synctest.Wait() // the broker's end is up too
		if d := time.Since(start); next.Count() != 1 || d < 5*time.Second {
			t.Errorf("%d links at the next broker after %v", next.Count(), d)
		}
	})
}

// An agent that was replaced stays off until its owner acts, and then replaces in turn.
func TestReplacedStaysOff(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		r := run(t, b, nil)
		<-r.up
		second, err := b.Dial("desk")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		s := r.State()
		var ce *tunnel.CloseError
		if s.Phase != tunnel.Off || !errors.As(s.LastErr, &ce) || ce.Reason != tunnel.ReasonReplaced {
			t.Fatalf("state %+v", s)
		}
		if second.Err() != nil {
			t.Errorf("the newer link ended: %v", second.Err())
		}
		r.RetryNow()
		<-r.up
		wantReason(t, second, tunnel.ReasonReplaced, true)
	})
}

func TestGiveUp(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		r := run(t, b, func(c *tunnel.RedialConfig) {
			c.GiveUp = func(err error) bool {
				var ce *tunnel.CloseError
				return errors.As(err, &ce) && ce.Reason == "revoked"
			}
		})
		<-r.up
		synctest.Wait() // until the broker has it in its place too
		b.Disconnect("desk", "revoked")
		time.Sleep(time.Hour)
		if s := r.State(); s.Phase != tunnel.Off {
			t.Errorf("state %+v", s)
		}
	})
}

// RetryNow cuts a wait short, and on a live link finds a ghost within 2 s.
func TestRetryNow(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		r := run(t, b, nil)
		l := <-r.up
		r.RetryNow()
		time.Sleep(3 * time.Second)
		if l.Err() != nil {
			t.Fatalf("a healthy link ended: %v", l.Err())
		}
		time.Sleep(time.Minute)
		b.Last().HalfOpen()
		start := time.Now()
		r.RetryNow()
		<-l.Done()
		if d := time.Since(start); d < 2*time.Second || d > 2100*time.Millisecond || !errors.Is(l.Err(), tunnel.ErrKeepalive) {
			t.Errorf("the ghost ended after %v: %v", d, l.Err())
		}
		<-r.up
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("back after %v", d)
		}
		synctest.Wait()
		b.Disconnect("desk", tunnel.ReasonConflict) // a wait of a minute
		synctest.Wait()
		start = time.Now()
		r.RetryNow()
		<-r.up
		if d := time.Since(start); d > 0 {
			t.Errorf("retried after %v", d)
		}
	})
}

// When the wall clock jumped ahead the machine slept, and its link is probed at once.
func TestWake(t *testing.T) {
	for _, c := range []struct {
		name string
		jump time.Duration
		dead bool
	}{{"slept", time.Hour, true}, {"clock set a little", 9 * time.Second, false}, {"clock set back", -time.Hour, false}} {
		t.Run(c.name, func(t *testing.T) {
			tunneltest.Bubble(t, func(t *testing.T) {
				b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
				var ahead atomic.Int64
				r := run(t, b, func(c *tunnel.RedialConfig) {
					c.SetWall(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
				})
				l := <-r.up
				ahead.Store(int64(c.jump))
				b.Last().HalfOpen()
				time.Sleep(8 * time.Second) // one tick, and the probe
				if dead := l.Err() != nil; dead != c.dead {
					t.Errorf("link: %v", l.Err())
				}
			})
		})
	}
}

// When Run stops it says good-bye.
func TestRunStops(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		up := make(chan *tunnel.Link, 1)
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{OnLink: func(l *tunnel.Link) { up <- l }})
		r, err := tunnel.NewRedialer(tunnel.RedialConfig{Dial: b.DialConfig("desk")})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _ = r.Run(ctx); close(done) }()
		l := <-up
		synctest.Wait() // the agent's end is up too
		cancel()
		<-done
		wantReason(t, l, tunnel.ReasonGoingAway, true)
		if r.Link() != nil || r.State().Phase != tunnel.Stopped {
			t.Errorf("state %+v", r.State())
		}
	})
}
