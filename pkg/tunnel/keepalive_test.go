package tunnel_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/tunnel/tunneltest"
)

// An idle link stays up for hours on a few bytes each 20 s, in both directions of a proxy's view.
func TestKeepaliveKeepsIdleLink(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b, broker, agent := pair(t)
		w := b.Last()
		synctest.Wait()
		last := w.Moved()
		for range 120 {
			time.Sleep(25 * time.Second) // no cut-off of 30 s sees silence
			synctest.Wait()
			now := w.Moved()
			if n := now - last; n < 20 || n > 200 {
				t.Fatalf("%d bytes in 25 s", n)
			}
			last = now
		}
		if broker.Err() != nil || agent.Err() != nil {
			t.Errorf("ended: %v, %v", broker.Err(), agent.Err())
		}
	})
}

// Two unanswered pings end the link at both ends, and the registry forgets it.
func TestKeepaliveEndsHalfOpenLink(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b, broker, agent := pair(t)
		time.Sleep(5 * time.Minute)
		b.Last().HalfOpen()
		start := time.Now()
		for _, l := range []*tunnel.Link{broker, agent} {
			<-l.Done()
			if d := time.Since(start); d < 30*time.Second || d > 70*time.Second {
				t.Errorf("ended after %v", d)
			}
			if !errors.Is(l.Err(), tunnel.ErrKeepalive) {
				t.Errorf("err = %v", l.Err())
			}
		}
		if b.Count() != 0 {
			t.Error("still in the registry")
		}
	})
}

// A link that is slow but alive is not ended, even when a transfer keeps it full for minutes.
func TestKeepaliveSparesBusyLink(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b, broker, agent := pair(t)
		b.Last().Slow(32 << 10)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if _, err := broker.Call(ctx, tunnel.Command, make([]byte, tunnel.MaxFrame)); err != nil {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if d := time.Since(start); d < time.Minute {
			t.Fatalf("the transfer took only %v", d)
		}
		if broker.Err() != nil || agent.Err() != nil {
			t.Errorf("ended: %v, %v", broker.Err(), agent.Err())
		}
	})
}

// A write that waits 30 s for a stalled wire ends the link: yamux would leave the peer waiting.
func TestWriteTimeoutIsFatal(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b, broker, _ := pair(t)
		mustCall(t, broker, tunnel.Command, "x")
		b.Last().Stall()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		_, err := broker.Call(ctx, tunnel.Command, make([]byte, tunnel.MaxFrame))
		if err == nil {
			t.Fatal("a stalled wire carried it")
		}
		<-broker.Done()
		if d := time.Since(start); d > 50*time.Second {
			t.Errorf("ended after %v", d)
		}
		if !errors.Is(broker.Err(), tunnel.ErrWriteTimeout) && !errors.Is(broker.Err(), tunnel.ErrKeepalive) {
			t.Errorf("err = %v", broker.Err())
		}
	})
}

func TestPing(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b, broker, agent := pair(t)
		for _, l := range []*tunnel.Link{broker, agent} {
			if rtt, err := l.Ping(t.Context()); err != nil || rtt != 0 {
				t.Errorf("ping: %v %v", rtt, err)
			}
		}
		b.Last().Stall()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := broker.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stalled: %v", err)
		}
		if broker.Err() != nil {
			t.Errorf("a ping without answer ended the link: %v", broker.Err())
		}
		b.Last().Cut()
		<-agent.Done()
		if _, err := agent.Ping(t.Context()); !errors.Is(err, tunnel.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestCloseTwiceAndReason(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := pair(t)
		agent.Close("No Token!")
		agent.Close("second")
		wantReason(t, agent, "closed", false)
		wantReason(t, broker, "closed", true)
	})
}
