package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// realBroker is a broker on a real socket with a real tunnel; what it answers is the fakeBroker's.
type realBroker struct {
	*fakeBroker
	http   *httptest.Server
	tunnel *tunnel.Server
	key    proof.SigKey
	nonce  wire.Bytes
	dsig   proof.SigKey
	epoch  atomic.Uint64
	links  chan *tunnel.Link
	mu     sync.Mutex
	bad    []string // signatures that did not verify
}

func newRealBroker(t *testing.T, d *desktop) *realBroker {
	b := &realBroker{fakeBroker: d.broker, key: proof.SigKey{3}, nonce: make(wire.Bytes, proof.NonceSize), dsig: d.keys.Dsig(), links: make(chan *tunnel.Link, 8)}
	b.tunnel = tunnel.NewServer(tunnel.ServerConfig{
		Authenticate: b.authenticate,
		Admit:        func(context.Context, tunnel.Peer) (uint64, error) { return b.epoch.Add(1), nil },
		OnLink: func(l *tunnel.Link) {
			c := &fakeConn{broker: b.fakeBroker, done: make(chan struct{}), served: make(chan struct{})}
			l.Serve(func(ctx context.Context, class tunnel.Class, req []byte) ([]byte, error) {
				return c.Call(ctx, class, req)
			})
			b.links <- l
		},
	})
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.PathTunnelNonce, func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(wire.Nonce{Nonce: b.nonce, BrokerKey: b.key[:], Time: time.Now().UnixMilli()})
	})
	mux.Handle("GET "+wire.PathTunnel, b.tunnel)
	b.http = httptest.NewServer(mux)
	t.Cleanup(func() {
		for _, l := range b.tunnel.Links() {
			l.Close("test_over")
		}
		b.http.Close()
	})
	return b
}

func (b *realBroker) authenticate(r *http.Request) (tunnel.Peer, error) {
	sig, err := wire.ParseBytes(r.Header.Get(wire.HeaderTunnelSignature))
	host := strings.TrimPrefix(b.http.URL, "http://")
	if err != nil || proof.VerifyTunnel(b.dsig, b.key, b.nonce, host, sig) != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.bad = append(b.bad, r.Header.Get(wire.HeaderTunnelSignature))
		return tunnel.Peer{}, &tunnel.HTTPError{Status: http.StatusUnauthorized, Body: "unauthorized"}
	}
	return tunnel.Peer{ID: r.Header.Get(wire.HeaderTunnelPairing)}, nil
}

// enrolAt makes the desktop's pairing one with this broker.
func (d *desktop) enrolAt(b *realBroker, key proof.SigKey) {
	d.t.Helper()
	j := d.openJournal()
	defer j.Close()
	d.record(j, journal.PutPairing(journal.Pairing{ID: d.id, BrokerURL: b.http.URL, BrokerKey: key, Host: "desk", Enrolled: d.now(), Policy: []byte("{}")}))
}

// startReal runs the agent with its real publisher, linker and tunnel, and the echo.
func (d *desktop) startReal() {
	d.t.Helper()
	a, err := New(context.Background(), Config{
		StateDir: d.dir, Secrets: d.secrets, Machine: d.machine, Version: "test", Now: d.now,
		Executor: func(Seed) (Executor, error) { return NewEcho(d.now), nil },
		Dial:     tunnel.DialConfig{Proxy: "direct"},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	d.agent, d.run = a, a.list[0]
	go func() { ended <- a.Run(ctx) }()
	d.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			d.t.Errorf("agent: %v", err)
		}
		a.Close()
	}
}

func TestOverARealTunnel(t *testing.T) {
	d := newDesktop(t)
	b := newRealBroker(t, d)
	d.enrolAt(b, b.key)
	p := d.link("phone", proof.ScopePrompt)
	d.startReal()
	l := <-b.links
	send := func(frame string, class tunnel.Class, body, reply any) {
		t.Helper()
		raw, _ := json.Marshal(body)
		req, _ := json.Marshal(wire.Frame{Type: frame, Body: raw})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		answer, err := l.Call(ctx, class, req)
		if err != nil {
			t.Fatalf("%s: %v", frame, err)
		}
		var f wire.Frame
		if err := json.Unmarshal(answer, &f); err != nil {
			t.Fatal(err)
		}
		if reply != nil {
			if err := json.Unmarshal(f.Body, reply); err != nil {
				t.Fatal(err)
			}
		}
	}
	deliver := func(envelope []byte) string {
		t.Helper()
		id, sequence := b.newID()
		var got wire.Delivered
		send(wire.FrameDeliver, tunnel.Command, wire.Deliver{Command: id, Sequence: sequence, Envelope: envelope}, &got)
		if got.State != deliveredReceived {
			t.Fatalf("%+v", got)
		}
		return id
	}
	_, created := d.result(p, deliver(d.command(p, proof.CreateSession, wire.CreateSession{Title: "t"})))
	if created.Session == nil {
		t.Fatalf("%+v", created)
	}
	_, prompted := d.result(p, deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: created.Session.ID, Text: "hello"})))
	if !prompted.OK || prompted.TurnID == "" {
		t.Fatalf("%+v", prompted)
	}
	b.until(t, "a batch of events", func() bool { return contains(b.seen, wire.FrameBatch) && contains(b.seen, wire.FrameEpoch) })
	client := d.ready()
	d.settled("a connected link in the status", func() bool {
		s, err := client.Status(t.Context())
		return err == nil && s.Pairings[0].Link.State == "connected" && s.Executor.Executor == ExecutorEcho
	})
	l.Close("lost")
	l = <-b.links // it comes back by itself
	_, again := d.result(p, deliver(d.command(p, proof.Status, wire.Status{})))
	if !again.OK || len(again.Sessions) != 1 {
		t.Fatalf("%+v", again)
	}
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// A broker with another key than the pinned one gets no signature, and the owner is told why there is no link.
func TestAnotherBrokersKey(t *testing.T) {
	d := newDesktop(t)
	b := newRealBroker(t, d)
	d.enrolAt(b, proof.SigKey{99})
	d.startReal()
	client := d.ready()
	d.settled("the reason", func() bool {
		s, err := client.Status(t.Context())
		return err == nil && strings.Contains(s.Pairings[0].Link.Problem, "pinned")
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.bad) != 0 || b.epoch.Load() != 0 {
		t.Fatalf("it signed: %v", b.bad)
	}
}
