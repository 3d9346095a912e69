package tunnel_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/tunnel/tunneltest"
)

// upgradeHeader is what an agent's upgrade has.
func upgradeHeader() http.Header {
	return http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		"Sec-Websocket-Protocol": {tunnel.Protocol}, tunnel.ProtocolHeader: {tunnel.Protocol},
		tunneltest.PeerHeader: {"desk"},
	}
}

// rawUpgrade sends one upgrade by hand and returns the answer and its connection.
func rawUpgrade(t *testing.T, b *tunneltest.Broker, h http.Header) (*http.Response, net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := b.Network.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	var req strings.Builder
	req.WriteString("GET /tunnel HTTP/1.1\r\nHost: broker.test\r\n")
	_ = h.Write(&req)
	req.WriteString("\r\n")
	if _, err := io.WriteString(c, req.String()); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, c, br
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestUpgradeIsRefusedInPlainText(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		secret := errors.New("dsn=postgres://user:hunter2@db")
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{
			Authenticate: func(r *http.Request) (tunnel.Peer, error) {
				switch id := r.Header.Get(tunneltest.PeerHeader); id {
				case "unknown":
					return tunnel.Peer{}, &tunnel.HTTPError{Status: 401, Body: "bad_signature"}
				case "revoked":
					return tunnel.Peer{}, fmt.Errorf("at: %w", &tunnel.HTTPError{Status: 403, Body: "revoked"})
				case "busy":
					return tunnel.Peer{}, &tunnel.HTTPError{Status: 429, RetryAfter: 1200 * time.Millisecond, Body: "busy\r\nSet-Cookie: x"}
				case "broken":
					return tunnel.Peer{}, secret
				default:
					return tunnel.Peer{ID: id}, nil
				}
			},
			Admit: func(_ context.Context, p tunnel.Peer) (uint64, error) {
				if p.ID == "noepoch" {
					return 0, secret
				}
				return 1, nil
			},
		})
		for _, c := range []struct {
			name  string
			set   http.Header
			code  int
			body  string
			after string
		}{
			{"not an upgrade", http.Header{"Upgrade": {"h2c"}}, 426, "upgrade_required\n", ""},
			{"no connection token", http.Header{"Connection": {"close"}}, 426, "upgrade_required\n", ""},
			{"other protocol", http.Header{"Sec-Websocket-Protocol": {"odp-tunnel.v2"}, tunnel.ProtocolHeader: nil}, 426, "upgrade_required\n", ""},
			{"401", http.Header{tunneltest.PeerHeader: {"unknown"}}, 401, "bad_signature\n", ""},
			{"403", http.Header{tunneltest.PeerHeader: {"revoked"}}, 403, "revoked\n", ""},
			{"429", http.Header{tunneltest.PeerHeader: {"busy"}}, 429, "busy??Set-Cookie: x\n", "2"},
			{"broken Authenticate", http.Header{tunneltest.PeerHeader: {"broken"}}, 503, "try_again\n", "5"},
			{"broken Admit", http.Header{tunneltest.PeerHeader: {"noepoch"}}, 503, "try_again\n", "5"},
		} {
			h := upgradeHeader()
			for k, v := range c.set {
				h[k] = v
			}
			resp, conn, _ := rawUpgrade(t, b, h)
			if got := body(t, resp); resp.StatusCode != c.code || got != c.body || resp.Header.Get("Retry-After") != c.after {
				t.Errorf("%s: %d %q Retry-After %q", c.name, resp.StatusCode, got, resp.Header.Get("Retry-After"))
			}
			if ct := resp.Header.Get("Content-Type"); ct != "text/plain; charset=utf-8" {
				t.Errorf("%s: Content-Type %q", c.name, ct)
			}
			_ = conn.Close()
		}
		if n := b.Count(); n != 0 {
			t.Errorf("%d links", n)
		}
	})
}

// A browser on another site cannot speak as an agent.
func TestUpgradeRefusesForeignOrigin(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		h := upgradeHeader()
		h.Set("Origin", "https://evil.test")
		if resp, c, _ := rawUpgrade(t, b, h); resp.StatusCode != 403 || b.Count() != 0 {
			t.Errorf("%d, %d links", resp.StatusCode, b.Count())
		} else {
			_ = c.Close()
		}
	})
}

// The protocol is named twice, because some proxies drop the WebSocket's own header; no extension is taken.
func TestUpgradeAnswer(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		h := upgradeHeader()
		h.Del("Sec-WebSocket-Protocol")
		h.Set("Sec-WebSocket-Extensions", "permessage-deflate")
		resp, c, _ := rawUpgrade(t, b, h)
		defer c.Close()
		if resp.StatusCode != 101 || resp.Header.Get(tunnel.ProtocolHeader) != tunnel.Protocol {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
		if e := resp.Header.Get(tunnel.EpochHeader); e != "1" {
			t.Errorf("epoch %q", e)
		}
		if x := resp.Header.Get("Sec-WebSocket-Extensions"); x != "" {
			t.Errorf("extension %q", x)
		}
	})
}

// Bytes that come in the same packet as the upgrade request are not lost (net/http keeps them in its buffer).
func TestUpgradeKeepsEarlyBytes(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		c, err := b.Network.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var req strings.Builder
		req.WriteString("GET /tunnel HTTP/1.1\r\nHost: broker.test\r\n")
		_ = upgradeHeader().Write(&req)
		req.WriteString("\r\n")
		ping := append([]byte{0x82, 0x8c, 0, 0, 0, 0}, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7) // a yamux ping, mask 0
		if _, err := c.Write(append([]byte(req.String()), ping...)); err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(c)
		if _, err := http.ReadResponse(br, nil); err != nil {
			t.Fatal(err)
		}
		pong := make([]byte, 14)
		if _, err := io.ReadFull(br, pong); err != nil {
			t.Fatal(err)
		}
		if pong[2+1] != 2 || pong[13] != 7 {
			t.Errorf("pong % x", pong)
		}
	})
}

// message sends one unmasked-by-zero client message of the given opcode.
func message(op byte, payload []byte) []byte {
	h := []byte{0x80 | op, 0x80 | 127}
	for i := 7; i >= 0; i-- {
		h = append(h, byte(len(payload)>>(8*i)))
	}
	return append(append(h, 0, 0, 0, 0), payload...)
}

// rawWS is a WebSocket client written by hand, for one reader and one writer.
type rawWS struct {
	net.Conn
	r    *bufio.Reader
	left int // of the message being read
}

func (w *rawWS) Write(p []byte) (int, error) {
	_, err := w.Conn.Write(message(2, p))
	return len(p), err
}

func (w *rawWS) Read(p []byte) (int, error) {
	for w.left == 0 {
		h := make([]byte, 2)
		if _, err := io.ReadFull(w.r, h); err != nil {
			return 0, err
		}
		if h[0] != 0x82 {
			return 0, io.EOF
		}
		if w.left = int(h[1]); w.left == 126 {
			if _, err := io.ReadFull(w.r, h); err != nil {
				return 0, err
			}
			w.left = int(h[0])<<8 | int(h[1])
		}
	}
	n, err := w.r.Read(p[:min(len(p), w.left)])
	w.left -= n
	return n, err
}

// rawAgent is an agent of which only the WebSocket and yamux are there.
func rawAgent(t *testing.T, b *tunneltest.Broker) *yamux.Session {
	t.Helper()
	resp, c, br := rawUpgrade(t, b, upgradeHeader())
	if resp.StatusCode != 101 {
		t.Fatalf("upgrade: %d", resp.StatusCode)
	}
	cfg := yamux.DefaultConfig()
	cfg.EnableKeepAlive, cfg.LogOutput = false, io.Discard
	s, err := yamux.Client(&rawWS{Conn: c, r: br}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// yamuxData is a message with yamux data for a stream that does not exist, of n bytes in all.
func yamuxData(n int) []byte {
	p := make([]byte, n)
	body := n - 12
	p[7], p[8], p[9], p[10], p[11] = 99, byte(body>>24), byte(body>>16), byte(body>>8), byte(body)
	return p
}

// A message of 64 KiB passes; one byte more, or a text message, ends the link.
func TestMessageRules(t *testing.T) {
	for _, c := range []struct {
		name string
		send []byte
		code uint16 // of the close frame; 0: the link lives
	}{
		{"64 KiB", message(2, yamuxData(64<<10)), 0},
		{"one over", message(2, yamuxData(64<<10+1)), 1009},
		{"text", message(1, yamuxData(64)), 1003},
	} {
		t.Run(c.name, func(t *testing.T) {
			tunneltest.Bubble(t, func(t *testing.T) {
				b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
				_, conn, br := rawUpgrade(t, b, upgradeHeader())
				defer conn.Close()
				if _, err := conn.Write(c.send); err != nil {
					t.Fatal(err)
				}
				if c.code == 0 {
					if _, err := conn.Write(message(2, []byte{0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7})); err != nil {
						t.Fatal(err)
					}
				}
				head := make([]byte, 4)
				if _, err := io.ReadFull(br, head); err != nil {
					t.Fatal(err)
				}
				got := uint16(head[2])<<8 | uint16(head[3])
				if c.code == 0 && head[0] != 0x82 || c.code != 0 && (head[0] != 0x88 || got != c.code) {
					t.Errorf("answer % x", head)
				}
			})
		})
	}
}

func TestAcceptRate(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		asked := 0
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{
			AcceptRate: 0.5, AcceptBurst: 2,
			Authenticate: func(r *http.Request) (tunnel.Peer, error) {
				asked++
				return tunnel.Peer{ID: r.Header.Get(tunneltest.PeerHeader)}, nil
			},
		})
		for i := range 2 {
			b.Connect(fmt.Sprint("desk", i))
		}
		_, err := b.Dial("desk2")
		var he *tunnel.HTTPError
		if !errors.As(err, &he) || he.Status != 429 || he.RetryAfter != 2*time.Second || he.Body != "accept_rate" {
			t.Fatalf("err = %v", err)
		}
		if asked != 2 {
			t.Errorf("Authenticate was asked %d times", asked)
		}
		time.Sleep(he.RetryAfter)
		if _, err := b.Dial("desk2"); err != nil {
			t.Errorf("after Retry-After: %v", err)
		}
	})
}

// Over HTTP/2 there is no upgrade, and the agent's ALPN makes sure that it is never asked to.
func TestHTTP2(t *testing.T) {
	s := tunnel.NewServer(tunnel.ServerConfig{
		Authenticate: func(*http.Request) (tunnel.Peer, error) { return tunnel.Peer{ID: "desk"}, nil },
		Admit:        func(context.Context, tunnel.Peer) (uint64, error) { return 1, nil },
	})
	srv := httptest.NewUnstartedServer(s)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if got := body(t, resp); resp.ProtoMajor != 2 || resp.StatusCode != 505 || got != "http_version\n" {
		t.Errorf("HTTP/%d: %d %q", resp.ProtoMajor, resp.StatusCode, got)
	}
	l, err := tunnel.Dial(t.Context(), tunnel.DialConfig{URL: "wss" + strings.TrimPrefix(srv.URL, "https"), ExtraCA: pemOf(srv.Certificate())})
	if err != nil {
		t.Fatal(err)
	}
	l.Close("done")
}
