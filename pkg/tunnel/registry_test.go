package tunnel_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/tunnel/tunneltest"
)

func wantReason(t *testing.T, l *tunnel.Link, reason string, remote bool) {
	t.Helper()
	<-l.Done()
	var ce *tunnel.CloseError
	if !errors.As(l.Err(), &ce) || ce.Reason != reason || ce.Remote != remote {
		t.Errorf("link ended with %v, want %s (remote %v)", l.Err(), reason, remote)
	}
}

func TestNewestWins(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		oldB, oldA := b.Connect("desk")
		other, _ := b.Connect("other")
		newB, newA := b.Connect("desk")
		wantReason(t, oldB, tunnel.ReasonReplaced, false)
		wantReason(t, oldA, tunnel.ReasonReplaced, true)
		if l, ok := b.Link("desk"); !ok || l != newB {
			t.Errorf("the registry has %p, want %p", l, newB)
		}
		if newB.Epoch() <= oldB.Epoch() || newA.Epoch() != newB.Epoch() {
			t.Errorf("epochs %d, then %d (agent %d)", oldB.Epoch(), newB.Epoch(), newA.Epoch())
		}
		if newB.Peer().ID != "desk" || newA.Peer().ID != "broker.test" {
			t.Errorf("peers %v %v", newB.Peer(), newA.Peer())
		}
		if other.Err() != nil || b.Count() != 2 || len(b.Links()) != 2 {
			t.Errorf("another peer: %v, count %d", other.Err(), b.Count())
		}
	})
}

// Two upgrades at once may end in the other order than they were admitted; the epoch decides.
func TestEpochDecides(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		var epoch atomic.Uint64
		epoch.Store(10)
		up := make(chan *tunnel.Link, 8)
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{
			Admit:  func(context.Context, tunnel.Peer) (uint64, error) { return epoch.Add(^uint64(0)), nil },
			OnLink: func(l *tunnel.Link) { up <- l },
		})
		first, err := b.Dial("desk")
		if err != nil {
			t.Fatal(err)
		}
		l := <-up
		second, err := b.Dial("desk")
		if err != nil {
			t.Fatal(err)
		}
		wantReason(t, second, tunnel.ReasonReplaced, true)
		if first.Err() != nil || l.Epoch() != 9 || len(up) != 0 {
			t.Errorf("first: %v, epoch %d, %d more links", first.Err(), l.Epoch(), len(up))
		}
	})
}

func TestConflictLocks(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		var conflicts, closed atomic.Int32
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{
			OnConflict: func(p tunnel.Peer) {
				if p.ID != "desk" {
					t.Errorf("conflict of %v", p)
				}
				conflicts.Add(1)
			},
			OnClose: func(*tunnel.Link) { closed.Add(1) },
		})
		b.Connect("desk")
		b.Connect("desk")
		last, lastA := b.Connect("desk")
		fourth, err := b.Dial("desk") // the third replacement
		if err != nil {
			t.Fatal(err)
		}
		wantReason(t, last, tunnel.ReasonConflict, false)
		wantReason(t, lastA, tunnel.ReasonConflict, true)
		wantReason(t, fourth, tunnel.ReasonConflict, true)
		for range 3 {
			_, err := b.Dial("desk")
			var he *tunnel.HTTPError
			if !errors.As(err, &he) || he.Status != 403 || he.Body != "identity_conflict" {
				t.Fatalf("locked: %v", err)
			}
		}
		b.Connect("other")
		time.Sleep(time.Hour) // it does not wear off
		if _, err := b.Dial("desk"); err == nil {
			t.Error("the lock wore off")
		}
		synctest.Wait()
		if conflicts.Load() != 1 || closed.Load() != 3 {
			t.Errorf("OnConflict %d times, OnClose %d times", conflicts.Load(), closed.Load())
		}
		if !b.Unlock("desk") || b.Unlock("desk") {
			t.Error("Unlock does not say whether the peer was locked")
		}
		b.Connect("desk")
	})
}

// Replacements that are further apart than a minute, or of a ghost, lock nothing.
func TestSlowReplacementsDoNotLock(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		b.Connect("desk")
		for range 10 {
			time.Sleep(30 * time.Second)
			b.Connect("desk")
		}
	})
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		broker, _ := b.Connect("desk")
		b.Last().HalfOpen()
		for !broker.Ghost() { // one keepalive unanswered
			time.Sleep(time.Second)
		}
		for range 3 { // in place of the ghost, and of two that lived
			b.Connect("desk")
		}
		synctest.Wait()
		if l, ok := b.Link("desk"); !ok || l.Err() != nil {
			t.Error("the replacement of a ghost counted")
		}
	})
}

func TestLock(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		broker, _ := b.Connect("desk")
		b.Lock("desk")
		wantReason(t, broker, tunnel.ReasonConflict, false)
		if _, err := b.Dial("desk"); err == nil {
			t.Error("a locked peer came in")
		}
		b.Unlock("desk")
		b.Connect("desk")
	})
}

// Disconnect takes less than a second even when nothing moves on the wire.
func TestDisconnect(t *testing.T) {
	for name, fault := range map[string]func(*tunneltest.Wire){
		"healthy": (*tunneltest.Wire).Heal, "stalled": (*tunneltest.Wire).Stall, "half-open": (*tunneltest.Wire).HalfOpen,
	} {
		t.Run(name, func(t *testing.T) {
			tunneltest.Bubble(t, func(t *testing.T) {
				b, broker, agent := pair(t)
				fault(b.Last())
				start := time.Now()
				if !b.Disconnect("desk", "revoked") {
					t.Fatal("no link")
				}
				if d := time.Since(start); d >= time.Second {
					t.Errorf("took %v", d)
				}
				wantReason(t, broker, "revoked", false)
				if _, err := broker.Call(t.Context(), tunnel.Command, nil); !errors.Is(err, tunnel.ErrClosed) {
					t.Errorf("the link still takes: %v", err)
				}
				if _, ok := b.Link("desk"); ok || b.Disconnect("desk", "revoked") {
					t.Error("still in the registry")
				}
				if name == "healthy" {
					wantReason(t, agent, "revoked", true)
				}
			})
		})
	}
}

// OnClose comes once a link, after OnLink has returned.
func TestHooksOrder(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		in, out := make(chan *tunnel.Link), make(chan *tunnel.Link, 1)
		gate := make(chan struct{})
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{
			OnLink:  func(l *tunnel.Link) { in <- l; <-gate },
			OnClose: func(l *tunnel.Link) { out <- l },
		})
		if _, err := b.Dial("desk"); err != nil {
			t.Fatal(err)
		}
		l := <-in
		b.Last().Cut()
		<-l.Done()
		synctest.Wait()
		if len(out) != 0 || b.Count() != 0 {
			t.Errorf("OnClose before OnLink returned, or the dead link is still there (%d)", b.Count())
		}
		close(gate)
		if got := <-out; got != l || l.Err() == nil {
			t.Errorf("OnClose(%p), err %v", got, got.Err())
		}
	})
}

func TestDrain(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		broker, agent := b.Connect("desk")
		idle, _ := b.Connect("idle")
		release := make(chan struct{})
		broker.Serve(func(_ context.Context, _ tunnel.Class, req []byte) ([]byte, error) {
			<-release
			return req, nil
		})
		agent.Serve(tunneltest.Echo)
		mustCall(t, broker, tunnel.Command, "leaves an open lane")
		got := make(chan string, 1)
		go func() { got <- mustCall(t, agent, tunnel.Events, "in flight") }()
		synctest.Wait()

		time.AfterFunc(2*time.Second, func() { close(release) })
		start, done := time.Now(), make(chan error, 1)
		go func() { done <- b.Drain(t.Context(), 7*time.Second) }()
		time.Sleep(time.Second)
		if idle.Err() == nil || broker.Err() != nil {
			t.Errorf("after 1 s: idle link %v, busy link %v", idle.Err(), broker.Err())
		}
		if _, err := broker.Call(t.Context(), tunnel.Command, nil); !errors.Is(err, tunnel.ErrDraining) {
			t.Errorf("a new call at the broker: %v", err)
		}
		if _, err := agent.Call(t.Context(), tunnel.Control, nil); !errors.Is(err, tunnel.ErrDraining) {
			t.Errorf("a new lane of the agent: %v", err)
		}
		_, err := b.Dial("late")
		var he *tunnel.HTTPError
		if !errors.As(err, &he) || he.Status != 503 || he.Body != "draining" || he.RetryAfter != 7*time.Second {
			t.Errorf("an upgrade: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Drain: %v", err)
		}
		if d := time.Since(start); d < 2*time.Second || d > 2500*time.Millisecond {
			t.Errorf("took %v", d)
		}
		if s := <-got; s != "in flight" {
			t.Errorf("the request in flight got %q", s)
		}
		wantReason(t, agent, tunnel.ReasonDrain, true)
		var ce *tunnel.CloseError
		if errors.As(agent.Err(), &ce); ce.ComeBackIn != 7*time.Second {
			t.Errorf("come back in %v", ce.ComeBackIn)
		}
	})
}

// Drain's patience is its context's.
func TestDrainCuts(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		broker, agent := b.Connect("desk")
		agent.Serve(tunneltest.Echo)
		hang := make(chan struct{})
		defer close(hang)
		broker.Serve(func(context.Context, tunnel.Class, []byte) ([]byte, error) { <-hang; return nil, nil })
		go func() { _, _ = agent.Call(t.Context(), tunnel.Events, nil) }()
		synctest.Wait()
		b.Last().Stall()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := b.Drain(ctx, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain: %v", err)
		}
		if d := time.Since(start); d > 4*time.Second {
			t.Errorf("took %v", d)
		}
	})
}
