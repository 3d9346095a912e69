package tunneltest

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"cowork.example.com/broker/pkg/tunnel"
)

// URL is where a Broker's agents dial to.
const URL = "ws://broker.test/tunnel"

// PeerHeader names the peer in an upgrade to a Broker whose configuration has no
// Authenticate of its own.
const PeerHeader = "Test-Peer"

// Broker is a tunnel.Server behind a real http.Server on a Network.
type Broker struct {
	*tunnel.Server
	*Network
	t     *testing.T
	epoch atomic.Uint64
	http  *http.Server
	up    chan *tunnel.Link

	mu     sync.Mutex
	agents []*tunnel.Link
}

// NewBroker starts a broker and ends it, with all its links, when the test does. What cfg leaves
// out is filled in: Authenticate takes PeerHeader's word, Admit counts from 1, and OnLink lets
// Connect find the link.
func NewBroker(t *testing.T, cfg tunnel.ServerConfig) *Broker {
	t.Helper()
	b := &Broker{t: t, Network: NewNetwork(), up: make(chan *tunnel.Link, 1024)}
	if cfg.Authenticate == nil {
		cfg.Authenticate = func(r *http.Request) (tunnel.Peer, error) {
			return tunnel.Peer{ID: r.Header.Get(PeerHeader)}, nil
		}
	}
	if cfg.Admit == nil {
		cfg.Admit = func(context.Context, tunnel.Peer) (uint64, error) { return b.epoch.Add(1), nil }
	}
	if cfg.OnLink == nil {
		cfg.OnLink = func(l *tunnel.Link) { b.up <- l }
	}
	b.Server = tunnel.NewServer(cfg)
	b.http = &http.Server{Handler: b.Server}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = b.http.Serve(b.Network)
	}()
	t.Cleanup(func() {
		b.stop()
		<-served
	})
	return b
}

// stop ends all links and the HTTP server, and cuts the wires: a bubble must be empty at its end.
func (b *Broker) stop() {
	for _, l := range b.Links() {
		l.Close("test_over")
	}
	b.mu.Lock()
	agents := b.agents
	b.mu.Unlock()
	for _, l := range agents {
		l.Close("test_over")
	}
	_ = b.http.Close()
	b.Cut()
}

// DialConfig is how the named peer reaches the broker.
func (b *Broker) DialConfig(peer string) tunnel.DialConfig {
	return tunnel.DialConfig{
		URL: URL, Proxy: "direct", DialContext: b.Network.Dial,
		Header: func(context.Context) (http.Header, error) {
			return http.Header{PeerHeader: {peer}}, nil
		},
	}
}

// Dial connects the named peer and returns its end. Neither end serves yet.
func (b *Broker) Dial(peer string) (*tunnel.Link, error) {
	l, err := tunnel.Dial(b.t.Context(), b.DialConfig(peer))
	if err == nil {
		b.mu.Lock()
		b.agents = append(b.agents, l)
		b.mu.Unlock()
	}
	return l, err
}

// Connect connects the named peer and returns both ends. It needs the filled-in OnLink.
func (b *Broker) Connect(peer string) (broker, agent *tunnel.Link) {
	b.t.Helper()
	agent, err := b.Dial(peer)
	if err != nil {
		b.t.Fatalf("dial as %s: %v", peer, err)
	}
	return <-b.up, agent
}

// Echo is a Handler that answers with the request.
func Echo(_ context.Context, _ tunnel.Class, req []byte) ([]byte, error) { return req, nil }
