package tunnel

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	dialTime = 30 * time.Second // for one dial, from name to upgrade
	tcpTime  = 10 * time.Second // for the connection, and for the TLS handshake
)

// ErrProtocol is returned by Dial when something answered the upgrade that does
// not speak this protocol.
var ErrProtocol = errors.New("tunnel: the upgrade was answered by something that does not speak " + Protocol)

// ErrPin is returned by Dial when the broker's key is none of the pinned ones.
var ErrPin = errors.New("tunnel: the broker's key is not the pinned one: TLS is intercepted, or the key was changed")

// DialConfig says how an agent reaches its broker.
type DialConfig struct {
	// URL is the broker's tunnel address, ws:// or wss://.
	URL string
	// Header, if set, is called before each dial, for a fresh signed nonce; what it
	// returns is sent with the upgrade. Its error ends the dial.
	Header func(ctx context.Context) (http.Header, error)
	// TLS is the base of the TLS configuration and may be nil. ALPN is always http/1.1.
	TLS *tls.Config
	// ExtraCA is PEM, trusted beside the system's roots (or those of TLS).
	ExtraCA []byte
	// Pins, when not empty, are the accepted keys: standard base64 of the SHA-256 of
	// a SubjectPublicKeyInfo, one of which must be in the verified chain.
	Pins []string
	// Proxy is "" for the environment's (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), "direct"
	// for none, or an http, https, socks5 or socks5h URL.
	Proxy string
	// DialContext replaces the dialler of TCP connections.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Logger has what no caller sees; nil is slog.Default.
	Logger *slog.Logger
}

// dialer is a checked DialConfig. It keeps the TLS session cache over many dials.
type dialer struct {
	cfg DialConfig
	url *url.URL
	tls *tls.Config
	mux *yamux.Config
}

// Dial makes one link, within 30 s. A refusal of the broker is an *[HTTPError].
// The caller should call Serve on the link at once, and must Close it.
func Dial(ctx context.Context, cfg DialConfig) (*Link, error) {
	d, err := newDialer(cfg)
	if err != nil {
		return nil, err
	}
	return d.dial(ctx)
}

func newDialer(cfg DialConfig) (*dialer, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" {
		return nil, errors.New("tunnel: the broker's address must be a ws:// or wss:// URL")
	}
	if u.User != nil {
		return nil, errors.New("tunnel: the broker's address must not hold a password")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.DialContext == nil {
		cfg.DialContext = (&net.Dialer{Timeout: tcpTime}).DialContext
	}
	d := &dialer{cfg: cfg, url: u, mux: muxConfig(agentSide, cfg.Logger)}
	d.tls, err = d.tlsConfig()
	return d, err
}

// tlsConfig adds the extra roots, the pins and the session cache to the base.
func (d *dialer) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{}
	if d.cfg.TLS != nil {
		c = d.cfg.TLS.Clone()
	}
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	c.NextProtos = []string{"http/1.1"}
	c.ServerName = d.url.Hostname()
	if c.ClientSessionCache == nil {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	if len(d.cfg.ExtraCA) > 0 {
		roots, err := extraRoots(c.RootCAs, d.cfg.ExtraCA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = roots
	}
	if len(d.cfg.Pins) > 0 {
		c.VerifyConnection = d.checkPins
	}
	return c, nil
}

func extraRoots(base *x509.CertPool, pem []byte) (*x509.CertPool, error) {
	if base == nil {
		system, err := x509.SystemCertPool()
		if err != nil {
			system = x509.NewCertPool()
		}
		base = system
	}
	roots := base.Clone()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("tunnel: no certificate found in the extra CA")
	}
	return roots, nil
}

// checkPins looks for a pinned key in what was verified.
func (d *dialer) checkPins(cs tls.ConnectionState) error {
	for _, chain := range cs.VerifiedChains {
		for _, cert := range chain {
			if slices.Contains(d.cfg.Pins, Pin(cert)) {
				return nil
			}
		}
	}
	return ErrPin
}

// Pin is the form of a certificate's key in DialConfig.Pins.
func Pin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// dial makes one link.
func (d *dialer) dial(ctx context.Context) (*Link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	h, err := d.header(ctx)
	if err != nil {
		return nil, err
	}
	t := &transport{dialer: d}
	client, err := t.client()
	if err != nil {
		return nil, err
	}
	c, resp, err := dialWebSocket(ctx, d.url.String(), h, client, t.conn) //nolint:bodyclose // the library closed it, or hands over what it is the connection
	if err != nil {
		t.close()
		return nil, t.explain(resp, err)
	}
	if resp.Header.Get("Sec-WebSocket-Protocol") != Protocol && resp.Header.Get(ProtocolHeader) != Protocol {
		_ = c.Close()
		return nil, ErrProtocol
	}
	epoch, _ := strconv.ParseUint(resp.Header.Get(EpochHeader), 10, 64)
	l, err := newLink(c, d.mux, linkConfig{
		side: agentSide, peer: Peer{ID: d.url.Host}, epoch: epoch,
		log: d.cfg.Logger, budget: &budget{max: MaxBrokerStreams},
	})
	if err == nil {
		go l.keepAlive()
	}
	return l, err
}

// header is what is sent with this upgrade.
func (d *dialer) header(ctx context.Context) (http.Header, error) {
	h := http.Header{}
	if d.cfg.Header != nil {
		var err error
		if h, err = d.cfg.Header(ctx); err != nil {
			return nil, fmt.Errorf("tunnel: before the dial: %w", err)
		}
		h = h.Clone()
	}
	h.Set(ProtocolHeader, Protocol)
	return h, nil
}

// refusal reads an answer that is not 101.
func refusal(resp *http.Response) *HTTPError {
	e := &HTTPError{Status: resp.StatusCode, RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())}
	if resp.Body != nil {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, maxText))
		line, _, _ := strings.Cut(string(b), "\n")
		e.Body = ascii(strings.TrimSpace(line), maxText)
	}
	return e
}
