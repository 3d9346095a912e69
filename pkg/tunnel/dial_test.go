package tunnel_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/tunnel/tunneltest"
)

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// realBroker is a broker behind TLS on a loopback port.
type realBroker struct {
	*tunnel.Server
	http  *httptest.Server
	alpn  atomic.Value // of the last upgrade
	reuse atomic.Int32 // upgrades on a resumed TLS session
}

func newRealBroker(t *testing.T) *realBroker {
	t.Helper()
	b := &realBroker{}
	var epoch atomic.Uint64
	b.Server = tunnel.NewServer(tunnel.ServerConfig{
		Authenticate: func(r *http.Request) (tunnel.Peer, error) {
			if r.TLS != nil {
				b.alpn.Store(r.TLS.NegotiatedProtocol)
				if r.TLS.DidResume {
					b.reuse.Add(1)
				}
			}
			return tunnel.Peer{ID: r.Header.Get(tunneltest.PeerHeader)}, nil
		},
		Admit:  func(context.Context, tunnel.Peer) (uint64, error) { return epoch.Add(1), nil },
		OnLink: func(l *tunnel.Link) { l.Serve(tunneltest.Echo) },
	})
	b.http = httptest.NewUnstartedServer(b.Server)
	b.http.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	b.http.EnableHTTP2 = true
	b.http.Config.ErrorLog = log.New(io.Discard, "", 0)
	b.http.StartTLS()
	t.Cleanup(func() {
		for _, l := range b.Links() {
			l.Close("test_over")
		}
		b.http.Close()
	})
	return b
}

func (b *realBroker) config(change func(*tunnel.DialConfig)) tunnel.DialConfig {
	cfg := tunnel.DialConfig{
		URL: "wss" + strings.TrimPrefix(b.http.URL, "https"), Proxy: "direct", ExtraCA: pemOf(b.http.Certificate()),
		Header: func(context.Context) (http.Header, error) { return http.Header{tunneltest.PeerHeader: {"desk"}}, nil },
	}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

// works dials, carries one large frame each way and closes.
func works(t *testing.T, cfg tunnel.DialConfig) {
	t.Helper()
	l, err := tunnel.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close("done")
	req := strings.Repeat("0123456789abcdef", 40<<10)
	got, err := l.Call(t.Context(), tunnel.Events, []byte(req))
	if err != nil || string(got) != req {
		t.Errorf("echo of %d bytes: %d bytes, %v", len(req), len(got), err)
	}
}

func TestDialTLS(t *testing.T) {
	b := newRealBroker(t)
	works(t, b.config(nil))
	if b.alpn.Load() != "http/1.1" {
		t.Errorf("ALPN %v", b.alpn.Load())
	}
	pin := tunnel.Pin(b.http.Certificate())
	works(t, b.config(func(c *tunnel.DialConfig) { c.Pins = []string{"old", pin} }))
	for name, c := range map[string]struct {
		cfg  tunnel.DialConfig
		want string
	}{
		"unknown CA":  {b.config(func(c *tunnel.DialConfig) { c.ExtraCA = nil }), "certificate signed by unknown authority"},
		"wrong pin":   {b.config(func(c *tunnel.DialConfig) { c.Pins = []string{"x" + pin[1:]} }), "not the pinned one"},
		"no PEM":      {b.config(func(c *tunnel.DialConfig) { c.ExtraCA = []byte("hello") }), "no certificate found"},
		"not a ws":    {b.config(func(c *tunnel.DialConfig) { c.URL = "https://127.0.0.1/" }), "must be a ws:// or wss:// URL"},
		"a password":  {b.config(func(c *tunnel.DialConfig) { c.URL = "wss://u:hunter2@127.0.0.1/" }), "must not hold a password"},
		"wrong proxy": {b.config(func(c *tunnel.DialConfig) { c.Proxy = "ftp://127.0.0.1" }), "the proxy must be"},
	} {
		_, err := tunnel.Dial(t.Context(), c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A pin holds for a broker that is reached by its IP address too, and a caller's own roots are kept.
func TestPinWithInsecureBaseFailsClosed(t *testing.T) {
	b := newRealBroker(t)
	_, err := tunnel.Dial(t.Context(), b.config(func(c *tunnel.DialConfig) {
		c.ExtraCA, c.TLS = nil, &tls.Config{InsecureSkipVerify: true}
		c.Pins = []string{tunnel.Pin(b.http.Certificate())}
	}))
	if !errors.Is(err, tunnel.ErrPin) {
		t.Errorf("nothing was verified, and the dial said: %v", err)
	}
}

// The second dial of a Redialer resumes its TLS session: a herd after a restart costs half.
func TestRedialResumesTLS(t *testing.T) {
	b := newRealBroker(t)
	up := make(chan *tunnel.Link, 4)
	r, err := tunnel.NewRedialer(tunnel.RedialConfig{
		Dial:   b.config(nil),
		OnLink: func(l *tunnel.Link) { up <- l },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = r.Run(ctx); close(done) }()
	for range 2 {
		l := <-up
		if _, err := l.Call(t.Context(), tunnel.Control, nil); err != nil { // the ticket has come by then
			t.Fatal(err)
		}
		l.Close("again")
		r.RetryNow()
	}
	<-up
	cancel()
	<-done
	if b.reuse.Load() == 0 {
		t.Error("no session was resumed")
	}
}

func TestDialRefusals(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, c := range []struct {
		name  string
		h     http.HandlerFunc
		check func(error) bool
	}{
		{"401", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "bad_signature\nmore", http.StatusUnauthorized)
		}, func(err error) bool {
			var he *tunnel.HTTPError
			return errors.As(err, &he) && he.Status == 401 && he.Body == "bad_signature" && he.RetryAfter == 0
		}},
		{"retry after a date", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
			http.Error(w, long, http.StatusServiceUnavailable)
		}, func(err error) bool {
			var he *tunnel.HTTPError
			return errors.As(err, &he) && he.Status == 503 && len(he.Body) == 256 && he.RetryAfter > 50*time.Second && he.RetryAfter <= time.Minute
		}},
		{"retry after a year", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "31536000")
			w.WriteHeader(503)
		}, func(err error) bool {
			var he *tunnel.HTTPError
			return errors.As(err, &he) && he.RetryAfter == 10*time.Minute
		}},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				t.Errorf("the redirect was followed with %v", r.Header)
			}
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}, func(err error) bool {
			var he *tunnel.HTTPError
			return errors.As(err, &he) && he.Status == 302
		}},
		{
			"a web page", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
			func(err error) bool { return errors.Is(err, tunnel.ErrProtocol) },
		},
	} {
		srv := httptest.NewServer(c.h)
		_, err := tunnel.Dial(t.Context(), tunnel.DialConfig{URL: "ws" + strings.TrimPrefix(srv.URL, "http") + "/", Proxy: "direct"})
		if !c.check(err) {
			t.Errorf("%s: %v", c.name, err)
		}
		srv.Close()
	}
}

// Something that upgrades but does not name the protocol is not taken for a broker.
func TestDialChecksProtocol(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r, err := http.ReadRequest(bufioReader(c))
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Accept: "+acceptKey(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	}()
	_, err = tunnel.Dial(t.Context(), tunnel.DialConfig{URL: "ws://" + l.Addr().String(), Proxy: "direct"})
	if !errors.Is(err, tunnel.ErrProtocol) {
		t.Errorf("err = %v", err)
	}
}

// A dial ends with its context, wherever it hangs.
func TestDialEndsWithContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, scheme := range []string{"ws", "wss"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		_, err := tunnel.Dial(ctx, tunnel.DialConfig{URL: scheme + "://" + l.Addr().String(), Proxy: "direct"})
		cancel()
		if err == nil || time.Since(start) > 3*time.Second {
			t.Errorf("%s: %v after %v", scheme, err, time.Since(start))
		}
	}
}
