package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/yamux"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/tunnel/tunneltest"
)

// serving is a pair whose agent gives each raw stream to h.
func serving(t *testing.T, h tunnel.StreamHandler) (b *tunneltest.Broker, broker, agent *tunnel.Link) {
	t.Helper()
	b = tunneltest.NewBroker(t, tunnel.ServerConfig{})
	broker, agent = b.Connect("desk")
	agent.ServeStreams(h)
	agent.Serve(tunneltest.Echo)
	broker.Serve(tunneltest.Echo)
	return b, broker, agent
}

func open(t *testing.T, l *tunnel.Link) *tunnel.Stream {
	t.Helper()
	s, err := l.Open(t.Context(), tunnel.Service)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A raw stream carries any bytes both ways, far above the window, and half-closes.
func TestRawStreamCopies(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := serving(t, func(_ context.Context, s *tunnel.Stream) { _, _ = io.Copy(s, s) })
		s := open(t, broker)
		if s.Class() != tunnel.Service {
			t.Errorf("class %v", s.Class())
		}
		sent := make([]byte, 3<<20+17)
		r := rand.NewChaCha8([32]byte{})
		_, _ = r.Read(sent)
		go func() {
			if _, err := s.Write(sent); err != nil {
				t.Errorf("write: %v", err)
			}
			_ = s.CloseWrite()
		}()
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
		}
		_ = s.Close()
		_ = s.Close()
		synctest.Wait()
		if a, b := agent.NumStreams(), broker.NumStreams(); a != 0 || b != 0 {
			t.Errorf("%d and %d streams stay", a, b)
		}
	})
}

func TestRawStreamRefused(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, _ := serving(t, func(_ context.Context, s *tunnel.Stream) {
			s.Refuse(&tunnel.CallError{Code: "no_such_service", Message: "printer"})
		})
		s := open(t, broker)
		defer s.Close()
		for range 2 {
			_, err := s.Read(make([]byte, 1))
			var ce *tunnel.CallError
			if !errors.As(err, &ce) || ce.Code != "no_such_service" || ce.Message != "printer" {
				t.Errorf("err = %v", err)
			}
		}
	})
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, _ := pair(t) // no stream handler
		s := open(t, broker)
		defer s.Close()
		_, err := s.Read(make([]byte, 1))
		var ce *tunnel.CallError
		if !errors.As(err, &ce) || ce.Code != tunnel.CodeNoServe {
			t.Errorf("err = %v", err)
		}
	})
}

// Close frees a blocked Read at once, and no read works after it.
func TestStreamCloseFreesRead(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, _ := serving(t, func(ctx context.Context, _ *tunnel.Stream) { <-ctx.Done() })
		s := open(t, broker)
		done := make(chan error, 1)
		go func() { _, err := s.Read(make([]byte, 1)); done <- err }()
		synctest.Wait()
		start := time.Now()
		_ = s.Close()
		if err := <-done; err == nil || time.Since(start) != 0 {
			t.Errorf("Read: %v after %v", err, time.Since(start))
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestStreamDeadlines(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, _ := serving(t, func(ctx context.Context, s *tunnel.Stream) {
			_, _ = s.Write([]byte("x")) // takes the stream, and never reads
			<-ctx.Done()
		})
		s := open(t, broker)
		defer s.Close()
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		for _, wait := range []time.Duration{time.Second, 10 * time.Minute} { // asked for, and without asking
			start := time.Now()
			if wait == time.Second {
				_ = s.SetReadDeadline(start.Add(wait))
			} else {
				_ = s.SetReadDeadline(time.Time{})
			}
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, yamux.ErrTimeout) || time.Since(start) != wait {
				t.Errorf("read: %v after %v, want %v", err, time.Since(start), wait)
			}
		}
		start := time.Now()
		_ = s.SetWriteDeadline(start.Add(time.Second))
		n, err := s.Write(make([]byte, 2<<20))
		if !errors.Is(err, yamux.ErrTimeout) || time.Since(start) != time.Second || n != 1<<20-headerLen {
			t.Errorf("write: %d, %v after %v", n, err, time.Since(start))
		}
	})
}

func TestOpenIsCapped(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, _ := serving(t, func(ctx context.Context, s *tunnel.Stream) { <-ctx.Done() })
		var all []*tunnel.Stream
		for range tunnel.MaxBrokerStreams {
			all = append(all, open(t, broker))
		}
		if _, err := broker.Open(t.Context(), tunnel.Service); !errors.Is(err, tunnel.ErrTooManyStreams) {
			t.Errorf("one more: %v", err)
		}
		_ = all[0].Close()
		open(t, broker)
	})
}

// A reader that stalls costs its own window and nothing else: other streams and lanes go on as before.
func TestStalledNeighbour(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, _ := serving(t, func(ctx context.Context, s *tunnel.Stream) {
			first := make([]byte, 1)
			if _, err := s.Read(first); err != nil || first[0] == 's' {
				<-ctx.Done() // stalls
				return
			}
			_, _ = io.Copy(io.Discard, s)
			_, _ = s.Write([]byte("."))
		})
		for range 20 {
			s := open(t, broker)
			go func() { _, _ = s.Write(bytes.Repeat([]byte("s"), 2<<20)) }()
		}
		synctest.Wait()
		start := time.Now()
		free := open(t, broker)
		if _, err := free.Write(bytes.Repeat([]byte("f"), 5<<20)); err != nil {
			t.Fatal(err)
		}
		_ = free.CloseWrite()
		if _, err := io.ReadAll(free); err != nil {
			t.Fatal(err)
		}
		mustCall(t, broker, tunnel.Command, "echo")
		if d := time.Since(start); d != 0 { // in a bubble only waiting takes time
			t.Errorf("neighbours of stalled streams took %v", d)
		}
	})
}

// Interactive frames do not wait for bulk: beside forty streams that fill a slow wire, an echo
// waits for the few pieces that are under way, not for one of each.
func TestInteractiveBeforeBulk(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b, broker, _ := serving(t, func(_ context.Context, s *tunnel.Stream) { _, _ = io.Copy(io.Discard, s) })
		mustCall(t, broker, tunnel.Command, "opens the lane")
		const rate = 1 << 20 // a piece takes 16 ms
		b.Last().Slow(rate)
		for range 40 {
			s := open(t, broker)
			go func() { _, _ = s.Write(make([]byte, 1<<20)) }()
		}
		time.Sleep(500 * time.Millisecond)
		for range 5 {
			start := time.Now()
			mustCall(t, broker, tunnel.Command, "echo")
			if d := time.Since(start); d > 150*time.Millisecond {
				t.Errorf("the echo took %v; forty pieces take %v", d, 40*(16<<10)*time.Second/rate)
			}
		}
	})
}
