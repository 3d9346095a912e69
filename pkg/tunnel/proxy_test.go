package tunnel_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"cowork.example.com/broker/pkg/tunnel"
)

func bufioReader(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }

// acceptKey is RFC 6455's answer to a Sec-WebSocket-Key.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// splice copies both ways until both ends are closed.
func splice(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(a, b)
		_ = a.Close()
	}()
	_, _ = io.Copy(b, a)
	_ = b.Close()
	<-done
}

// connectProxy is an HTTP proxy that knows CONNECT only, and wants auth if that is not empty.
func connectProxy(t *testing.T, secure bool, auth string, offers ...string) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	var used atomic.Int32
	p := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		if len(offers) > 0 && (auth == "" || r.Header.Get("Proxy-Authorization") != auth) {
			for _, o := range offers {
				w.Header().Add("Proxy-Authenticate", o)
			}
			http.Error(w, "sign in", http.StatusProxyAuthRequired)
			return
		}
		far, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, "unreachable", http.StatusBadGateway)
			return
		}
		used.Add(1)
		near, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		splice(near, far)
	}))
	if secure {
		p.StartTLS()
	} else {
		p.Start()
	}
	t.Cleanup(p.Close)
	return p, &used
}

func TestConnectProxy(t *testing.T) {
	b := newRealBroker(t)
	plain, used := connectProxy(t, false, "")
	works(t, b.config(func(c *tunnel.DialConfig) { c.Proxy = plain.URL }))
	if used.Load() != 1 {
		t.Errorf("the proxy was used %d times", used.Load())
	}
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:hunter2"))
	auth, used := connectProxy(t, false, basic, `Basic realm="office"`)
	works(t, b.config(func(c *tunnel.DialConfig) { c.Proxy = strings.Replace(auth.URL, "//", "//ann:hunter2@", 1) }))
	if used.Load() != 1 {
		t.Errorf("the proxy with a password was used %d times", used.Load())
	}
	// The certificate of a TLS proxy is checked, and the broker's pin is not asked of it.
	secure, used := connectProxy(t, true, "")
	works(t, b.config(func(c *tunnel.DialConfig) {
		c.Proxy = secure.URL
		c.ExtraCA = append(c.ExtraCA, pemOf(secure.Certificate())...)
		c.Pins = []string{tunnel.Pin(b.http.Certificate())}
	}))
	if used.Load() != 1 {
		t.Errorf("the TLS proxy was used %d times", used.Load())
	}
	// But the broker behind a proxy must have its pinned key.
	_, err := tunnel.Dial(t.Context(), b.config(func(c *tunnel.DialConfig) { c.Proxy, c.Pins = plain.URL, []string{"other"} }))
	if !errors.Is(err, tunnel.ErrPin) {
		t.Errorf("wrong pin through a proxy: %v", err)
	}
}

// What a proxy refuses is said in words that help, without its password.
func TestProxyErrors(t *testing.T) {
	b := newRealBroker(t)
	withUser := func(u string) string { return strings.Replace(u, "//", "//ann:hunter2@", 1) }
	ntlm, _ := connectProxy(t, false, "", "Negotiate", "NTLM")
	basic, _ := connectProxy(t, false, "", `Basic realm="office"`)
	digest, _ := connectProxy(t, false, "", `Digest realm="office"`)
	closed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "policy", http.StatusForbidden)
	}))
	defer closed.Close()
	for _, c := range []struct{ proxy, want string }{
		{ntlm.URL, "NTLM"},
		{withUser(ntlm.URL), "NTLM"},
		{basic.URL, "wants a user name and password"},
		{withUser(basic.URL), "did not accept this user name and password"},
		{digest.URL, "does not speak"},
		{withUser(closed.URL), "answered 403 to CONNECT"},
	} {
		_, err := tunnel.Dial(t.Context(), b.config(func(d *tunnel.DialConfig) { d.Proxy = c.proxy }))
		var pe *tunnel.ProxyError
		if !errors.As(err, &pe) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", c.want, err)
		}
	}
}

// The proxies of the environment are read at each dial, and NO_PROXY holds.
func TestProxyFromEnvironment(t *testing.T) {
	b := newRealBroker(t)
	p, used := connectProxy(t, false, "")
	u, err := url.Parse(b.http.URL)
	if err != nil {
		t.Fatal(err)
	}
	// A name that is not loopback, which never goes through a proxy of the environment.
	cfg := b.config(func(c *tunnel.DialConfig) {
		c.Proxy = ""
		c.URL = "wss://example.com:" + u.Port()
	})
	t.Setenv("HTTPS_PROXY", p.URL)
	t.Setenv("NO_PROXY", "")
	if _, err := tunnel.Dial(t.Context(), cfg); err == nil {
		t.Fatal("example.com was reached")
	}
	asked := p.Config.Handler
	hits := 0
	p.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		r.Host = "127.0.0.1:" + u.Port()
		asked.ServeHTTP(w, r)
	})
	works(t, cfg)
	if hits != 1 || used.Load() == 0 {
		t.Errorf("the proxy of the environment was asked %d times", hits)
	}
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	if _, err := tunnel.Dial(t.Context(), cfg); err == nil {
		t.Error("the environment was read once only")
	}
	works(t, b.config(func(c *tunnel.DialConfig) { c.Proxy = "direct" }))
	works(t, b.config(func(c *tunnel.DialConfig) { c.Proxy = "" })) // loopback
}

// socksProxy is a SOCKS5 proxy without authentication (RFC 1928).
func socksProxy(t *testing.T) (addr string, used *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	used = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go socksServe(c, used)
		}
	}()
	return l.Addr().String(), used
}

func socksServe(c net.Conn, used *atomic.Int32) {
	defer c.Close()
	b := make([]byte, 262)
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return
	}
	_, _ = io.ReadFull(c, b[:b[1]])
	_, _ = c.Write([]byte{5, 0})
	if _, err := io.ReadFull(c, b[:5]); err != nil || b[1] != 1 {
		return
	}
	host := ""
	switch b[3] {
	case 1:
		_, _ = io.ReadFull(c, b[5:8])
		host = net.IP(b[4:8]).String()
	case 3:
		n := int(b[4])
		_, _ = io.ReadFull(c, b[:n])
		host = string(b[:n])
	}
	_, _ = io.ReadFull(c, b[:2])
	far, err := net.Dial("tcp", net.JoinHostPort(host, itoa(binary.BigEndian.Uint16(b))))
	if err != nil {
		return
	}
	used.Add(1)
	_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	splice(c, far)
}

func itoa(n uint16) string { return (&net.TCPAddr{Port: int(n)}).String()[1:] }

func TestSOCKS5(t *testing.T) {
	b := newRealBroker(t)
	addr, used := socksProxy(t)
	for _, scheme := range []string{"socks5://", "socks5h://"} {
		works(t, b.config(func(c *tunnel.DialConfig) { c.Proxy = scheme + addr }))
	}
	if used.Load() != 2 {
		t.Errorf("the proxy was used %d times", used.Load())
	}
}
