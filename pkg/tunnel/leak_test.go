package tunnel_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/tunnel/tunneltest"
)

// settled waits until the number of goroutines has not changed for a while, and returns it.
func settled() int {
	n, since := runtime.NumGoroutine(), time.Now()
	for start := since; time.Since(since) < 300*time.Millisecond && time.Since(start) < 10*time.Second; {
		time.Sleep(10 * time.Millisecond)
		if now := runtime.NumGoroutine(); now != n {
			n, since = now, time.Now()
		}
	}
	return n
}

// plainBroker is a broker on a loopback port, without TLS.
func plainBroker(t *testing.T, cfg tunnel.ServerConfig) (*tunnel.Server, tunnel.DialConfig) {
	t.Helper()
	epoch := uint64(0)
	cfg.Authenticate = func(r *http.Request) (tunnel.Peer, error) {
		return tunnel.Peer{ID: r.Header.Get(tunneltest.PeerHeader)}, nil
	}
	cfg.Admit = func(context.Context, tunnel.Peer) (uint64, error) { epoch++; return epoch, nil }
	s := tunnel.NewServer(cfg)
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return s, tunnel.DialConfig{
		URL: "ws" + strings.TrimPrefix(srv.URL, "http"), Proxy: "direct",
		Header: func(context.Context) (http.Header, error) { return http.Header{tunneltest.PeerHeader: {"desk"}}, nil },
	}
}

// After many cycles of connect, call and disconnect no goroutine is left, whichever side ends it.
func TestNoLeak(t *testing.T) {
	up := make(chan *tunnel.Link, 1)
	_, cfg := plainBroker(t, tunnel.ServerConfig{OnLink: func(l *tunnel.Link) {
		l.Serve(tunneltest.Echo)
		up <- l
	}})
	cycle := func(i int) {
		l, err := tunnel.Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.Serve(tunneltest.Echo)
		far := <-up
		mustCall(t, l, tunnel.Events, "x")
		mustCall(t, far, tunnel.Command, "y")
		if i%2 == 0 {
			l.Close("bye")
		} else {
			far.Close("bye")
		}
		<-l.Done()
		<-far.Done()
	}
	cycle(0)
	base := settled()
	for i := range 50 {
		cycle(i)
	}
	if n := settled(); n > base {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before\n%s", n, base, buf[:runtime.Stack(buf, true)])
	}
}

// An idle link costs its broker at most four goroutines. Both ends are here: the agent's are
// known from a link whose broker end is counted away.
func TestIdleLinkGoroutines(t *testing.T) {
	const n = 50
	up := make(chan *tunnel.Link, n)
	s, cfg := plainBroker(t, tunnel.ServerConfig{OnLink: func(l *tunnel.Link) { l.Serve(tunneltest.Echo); up <- l }})
	ids := make(chan string, 1)
	cfg.Header = func(context.Context) (http.Header, error) { return http.Header{tunneltest.PeerHeader: {<-ids}}, nil }
	var all []*tunnel.Link
	for i := range n {
		ids <- "desk" + string(rune('A'+i))
		l, err := tunnel.Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
		<-up
	}
	settled()
	stacks := make([]byte, 8<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	agent, broker := 0, 0
	for g := range strings.SplitSeq(string(stacks), "\n\n") {
		switch {
		case strings.Contains(g, "tunnel.(*dialer)"), strings.Contains(g, "coalescer"), strings.Contains(g, "keepAlive"):
			agent++
		case strings.Contains(g, "yamux"), strings.Contains(g, "timeoutLoop"), strings.Contains(g, "(*Link).run"):
			broker++ // of both ends, which have the same four
		case strings.Contains(g, "net/http.(*conn).serve"):
			t.Errorf("a handler stayed:\n%s", g)
		}
	}
	if broker != 2*4*n {
		t.Errorf("%d goroutines for %d links, both ends: want 4 an end", broker, n)
	}
	if s.Count() != n || agent != 2*n {
		t.Errorf("%d links, %d goroutines that only agents have", s.Count(), agent)
	}
	for _, l := range all {
		l.Close("done")
	}
}

// Only one file knows the WebSocket library, so that replacing it is one change (ADR 0002).
func TestOneImporter(t *testing.T) {
	var importers []string
	err := filepath.WalkDir(".", func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".go" {
			return err
		}
		src, err := os.ReadFile(p)
		if strings.Contains(string(src), "\"nhooyr.io/"+"websocket\"") {
			importers = append(importers, p)
		}
		return err
	})
	if err != nil || len(importers) != 1 || importers[0] != "websocket.go" {
		t.Errorf("imported by %v, %v", importers, err)
	}
}
