package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/http/httpproxy"
)

// ProxyError says that a proxy between agent and broker did not let the tunnel through.
type ProxyError struct {
	Proxy string // without its password
	Text  string
}

func (e *ProxyError) Error() string { return "tunnel: the proxy " + e.Proxy + " " + e.Text }

// transport is the HTTP side of one dial. It remembers the TCP connection,
// which the WebSocket library hides.
type transport struct {
	*dialer
	proxy *url.URL
	mu    sync.Mutex
	tcp   net.Conn
}

// client makes the HTTP client of this dial. Redirects are not followed: the
// signed header is for one host.
func (t *transport) client() (*http.Client, error) {
	p, err := t.findProxy()
	if err != nil {
		return nil, err
	}
	t.proxy = p
	tr := &http.Transport{
		DialContext:            t.dialTCP,
		TLSClientConfig:        t.tls,
		TLSHandshakeTimeout:    tcpTime,
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		OnProxyConnectResponse: t.checkConnect,
		DisableKeepAlives:      true,
	}
	tr.DialTLSContext = t.dialBroker
	if p != nil {
		tr.Proxy = http.ProxyURL(p)
		tr.DialTLSContext = t.dialProxy
	}
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// findProxy reads the environment anew at each dial: a laptop changes networks.
func (t *transport) findProxy() (*url.URL, error) {
	switch t.cfg.Proxy {
	case "direct":
		return nil, nil
	case "":
		u := *t.url
		u.Scheme = map[string]string{"ws": "http", "wss": "https"}[u.Scheme]
		p, err := httpproxy.FromEnvironment().ProxyFunc()(&u)
		if err != nil {
			return nil, errors.New("tunnel: the proxy address in the environment is not a URL")
		}
		return p, nil
	}
	p, err := url.Parse(t.cfg.Proxy)
	if err != nil || p.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, p.Scheme) {
		return nil, errors.New("tunnel: the proxy must be an http, https, socks5 or socks5h URL, or \"direct\"")
	}
	return p, nil
}

// dialTCP is used without TLS and through a proxy; the coalescer then sits below
// TLS. It does not delay the CONNECT, because it never waits for more.
func (t *transport) dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := t.cfg.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	t.keep(c)
	return newCoalescer(c), nil
}

// dialBroker is used for wss without a proxy.
func (t *transport) dialBroker(ctx context.Context, network, addr string) (net.Conn, error) {
	return t.dialTLS(ctx, network, addr, t.tls)
}

// dialProxy is used for a proxy that is itself reached by TLS. The pins are not
// the proxy's; the broker's TLS runs inside, with them.
func (t *transport) dialProxy(ctx context.Context, network, addr string) (net.Conn, error) {
	c := t.tls.Clone()
	c.ServerName, c.VerifyConnection, c.ClientSessionCache = t.proxy.Hostname(), nil, nil
	return t.dialTLS(ctx, network, addr, c)
}

// dialTLS puts the coalescer above TLS, so that a record holds more than one of
// the WebSocket library's 4 KiB steps.
func (t *transport) dialTLS(ctx context.Context, network, addr string, cfg *tls.Config) (net.Conn, error) {
	c, err := t.cfg.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	t.keep(c)
	ctx, cancel := context.WithTimeout(ctx, tcpTime)
	defer cancel()
	s := tls.Client(c, cfg)
	if err := s.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return newCoalescer(s), nil
}

func (t *transport) keep(c net.Conn) {
	tuneTCP(c)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tcp = c
}

func (t *transport) conn() net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tcp
}

// close is for a dial that failed.
func (t *transport) close() {
	if c := t.conn(); c != nil {
		_ = c.Close()
	}
}

// checkConnect looks at a proxy's answer to CONNECT, while its headers are there.
func (t *transport) checkConnect(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	return t.proxyError(resp)
}

func (t *transport) proxyError(resp *http.Response) error {
	e := &ProxyError{Proxy: t.proxy.Redacted(), Text: fmt.Sprintf("answered %d to CONNECT", resp.StatusCode)}
	if resp.StatusCode == http.StatusProxyAuthRequired {
		e.Text = signInText(resp.Header.Values("Proxy-Authenticate"), t.proxy.User != nil)
	}
	return e
}

// signInText says what a proxy that answered 407 wants, and what to do.
func signInText(offers []string, hadPassword bool) string {
	all := strings.ToLower(strings.Join(offers, ", "))
	switch {
	case strings.Contains(all, "basic") && hadPassword:
		return "did not accept this user name and password"
	case strings.Contains(all, "basic"):
		return "wants a user name and password: put them into the proxy URL"
	case strings.Contains(all, "ntlm") || strings.Contains(all, "negotiate"):
		return "wants NTLM or Kerberos, which this program does not speak: " +
			"ask for an exception for the broker's host, or use a local helper that signs in (such as px or cntlm) as the proxy"
	}
	return "wants a sign-in that this program does not speak"
}

// explain makes the most exact error of a failed dial.
func (t *transport) explain(resp *http.Response, err error) error {
	if pe := (*ProxyError)(nil); errors.As(err, &pe) {
		return pe
	}
	if resp == nil {
		return fmt.Errorf("tunnel: dial: %w", err)
	}
	if t.proxy != nil && resp.StatusCode == http.StatusProxyAuthRequired {
		return t.proxyError(resp)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode == http.StatusOK {
		return fmt.Errorf("%w (%d; is the upgrade stripped on the way?)", ErrProtocol, resp.StatusCode)
	}
	return refusal(resp)
}
