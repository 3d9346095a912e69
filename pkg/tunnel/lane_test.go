package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/tunnel/tunneltest"
)

// pair is a connected link whose ends both echo.
func pair(t *testing.T) (b *tunneltest.Broker, broker, agent *tunnel.Link) {
	t.Helper()
	b = tunneltest.NewBroker(t, tunnel.ServerConfig{})
	broker, agent = b.Connect("desk")
	broker.Serve(tunneltest.Echo)
	agent.Serve(tunneltest.Echo)
	return b, broker, agent
}

func mustCall(t *testing.T, l *tunnel.Link, c tunnel.Class, req string) string {
	t.Helper()
	got, err := l.Call(t.Context(), c, []byte(req))
	if err != nil {
		t.Fatalf("Call(%v, %q): %v", c, req, err)
	}
	return string(got)
}

func TestCallBothWays(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := pair(t)
		for _, c := range []tunnel.Class{tunnel.Control, tunnel.Command} {
			if got := mustCall(t, broker, c, "down"); got != "down" {
				t.Errorf("broker %v: got %q", c, got)
			}
		}
		for _, c := range []tunnel.Class{tunnel.Control, tunnel.Events} {
			if got := mustCall(t, agent, c, "up"); got != "up" {
				t.Errorf("agent %v: got %q", c, got)
			}
		}
		if got := mustCall(t, agent, tunnel.Control, ""); got != "" {
			t.Errorf("empty request: got %q", got)
		}
	})
}

func TestCallRefusesClass(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := pair(t)
		for l, classes := range map[*tunnel.Link][]tunnel.Class{
			agent:  {0, tunnel.Command, tunnel.Service, 5},
			broker: {0, tunnel.Events, 5},
		} {
			for _, c := range classes {
				if _, err := l.Call(t.Context(), c, nil); !errors.Is(err, tunnel.ErrClass) {
					t.Errorf("Call(%d): %v", c, err)
				}
				if _, err := l.Open(t.Context(), c); !errors.Is(err, tunnel.ErrClass) {
					t.Errorf("Open(%d): %v", c, err)
				}
			}
		}
	})
}

// Requests are handled in the order of the calls, and all are in flight before the first is answered.
func TestLaneOrderAndPipelining(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		broker, agent := b.Connect("desk")
		broker.Serve(tunneltest.Echo)
		var mu sync.Mutex
		var seen []string
		gate := make(chan struct{})
		agent.Serve(func(_ context.Context, _ tunnel.Class, req []byte) ([]byte, error) {
			<-gate
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, string(req))
			return req, nil
		})
		const n = tunnel.MaxInFlight
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				want := fmt.Sprintf("req %d", i)
				if got := mustCall(t, broker, tunnel.Command, want); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
			synctest.Wait() // so that the calls are made in order
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := broker.Call(short, tunnel.Command, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one more than MaxInFlight: %v", err)
		}
		close(gate)
		wg.Wait()
		for i, s := range seen {
			if want := fmt.Sprintf("req %d", i); s != want {
				t.Fatalf("handled %q at %d", s, i)
			}
		}
		if len(seen) != n {
			t.Errorf("handled %d, want %d", len(seen), n)
		}
	})
}

func TestCallErrors(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		broker, agent := b.Connect("desk")
		agent.Serve(tunneltest.Echo)
		long := string(bytes.Repeat([]byte("x"), 300))
		broker.Serve(func(ctx context.Context, _ tunnel.Class, req []byte) ([]byte, error) {
			switch string(req) {
			case "refuse":
				return nil, fmt.Errorf("wrapped: %w", &tunnel.CallError{Code: "stale.lease", Message: "lease ended\n" + long})
			case "secret":
				return nil, errors.New("password=hunter2")
			case "panic":
				panic("boom")
			case "late":
				<-ctx.Done()
				return nil, ctx.Err()
			case "huge":
				return make([]byte, tunnel.MaxFrame+1), nil
			case "badcode":
				return nil, &tunnel.CallError{Code: "No Token"}
			}
			return req, nil
		})
		for _, c := range []struct{ req, code string }{
			{"refuse", "stale.lease"},
			{"secret", tunnel.CodeInternal},
			{"panic", tunnel.CodeInternal},
			{"huge", tunnel.CodeTooLarge},
			{"badcode", tunnel.CodeInternal},
		} {
			_, err := agent.Call(t.Context(), tunnel.Control, []byte(c.req))
			var ce *tunnel.CallError
			if !errors.As(err, &ce) || ce.Code != c.code {
				t.Errorf("%s: %v", c.req, err)
				continue
			}
			if c.req == "refuse" && (len(ce.Message) != 256 || ce.Message[:12] != "lease ended?") {
				t.Errorf("message not bounded: %d %q", len(ce.Message), ce.Message[:12])
			}
			if c.req != "refuse" && ce.Message != "" {
				t.Errorf("%s: message %q leaves the handler", c.req, ce.Message)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := agent.Call(ctx, tunnel.Control, []byte("late"))
		var ce *tunnel.CallError
		if !errors.Is(err, context.DeadlineExceeded) && !(errors.As(err, &ce) && ce.Code == tunnel.CodeDeadline) {
			t.Errorf("late: %v", err)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("the deadline came after %v", d)
		}
		if got := mustCall(t, agent, tunnel.Control, "still"); got != "still" {
			t.Errorf("the lane did not survive: %q", got)
		}
	})
}

func TestFrameLimit(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := pair(t)
		full := bytes.Repeat([]byte("ab"), tunnel.MaxFrame/2)
		for _, l := range []*tunnel.Link{broker, agent} {
			got, err := l.Call(t.Context(), tunnel.Control, full)
			if err != nil || !bytes.Equal(got, full) {
				t.Fatalf("MaxFrame: %d bytes, %v", len(got), err)
			}
			if _, err := l.Call(t.Context(), tunnel.Control, append(full, 'c')); !errors.Is(err, tunnel.ErrFrameTooLarge) {
				t.Errorf("one byte over: %v", err)
			}
		}
	})
}

// A lane is closed after 5 s of quiet, so that an idle link has no open stream, and the next call opens another.
func TestLaneQuietClose(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := pair(t)
		for range 3 {
			mustCall(t, agent, tunnel.Control, "x")
			time.Sleep(4900 * time.Millisecond)
			synctest.Wait()
			if a, b := agent.NumStreams(), broker.NumStreams(); a != 1 || b != 1 {
				t.Fatalf("after 4.9 s: %d and %d streams, want 1", a, b)
			}
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			if a, b := agent.NumStreams(), broker.NumStreams(); a != 0 || b != 0 {
				t.Fatalf("after 5.1 s: %d and %d streams, want none", a, b)
			}
		}
	})
}

// A reply that is 5 s late ends the lane; what waits behind it is told that nothing is known.
func TestOverdueReplyEndsLane(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		broker, agent := b.Connect("desk")
		broker.Serve(tunneltest.Echo)
		hang := make(chan struct{})
		agent.Serve(func(_ context.Context, _ tunnel.Class, req []byte) ([]byte, error) {
			if string(req) == "hang" { // and does not look at its context
				<-hang
			}
			return req, nil
		})
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := broker.Call(ctx, tunnel.Command, []byte("hang")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("hang: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			_, err := broker.Call(t.Context(), tunnel.Command, []byte("behind"))
			if !errors.Is(err, tunnel.ErrLane) || time.Since(start) != 7*time.Second {
				t.Errorf("behind: %v after %v", err, time.Since(start))
			}
		})
		wg.Wait()
		if got := mustCall(t, broker, tunnel.Control, "other"); got != "other" {
			t.Errorf("another class: %q", got)
		}
		close(hang)
		if got := mustCall(t, broker, tunnel.Command, "again"); got != "again" {
			t.Errorf("the next lane: %q", got)
		}
	})
}

// A call whose caller gave up before it was sent is not sent.
func TestAbandonedCallIsNotSent(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, _ := pair(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 3 * tunnel.MaxInFlight { // no place in the lane is lost
			if _, err := broker.Call(ctx, tunnel.Command, nil); !errors.Is(err, context.Canceled) {
				t.Fatalf("err = %v", err)
			}
		}
		if got := mustCall(t, broker, tunnel.Command, "on"); got != "on" {
			t.Errorf("got %q", got)
		}
	})
}

func TestCallsFailWhenLinkEnds(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		broker, agent := b.Connect("desk")
		broker.Serve(tunneltest.Echo)
		agent.Serve(func(ctx context.Context, _ tunnel.Class, _ []byte) ([]byte, error) {
			<-ctx.Done() // ends with the link
			return nil, ctx.Err()
		})
		time.AfterFunc(time.Second, b.Last().Cut)
		_, err := broker.Call(t.Context(), tunnel.Command, nil)
		if !errors.Is(err, tunnel.ErrClosed) && !errors.Is(err, tunnel.ErrLane) {
			t.Errorf("in flight: %v", err)
		}
		<-broker.Done()
		if _, err := broker.Call(t.Context(), tunnel.Command, nil); !errors.Is(err, tunnel.ErrClosed) {
			t.Errorf("afterwards: %v", err)
		}
	})
}
