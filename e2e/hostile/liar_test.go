//go:build e2e

// Package hostile puts a broker that lies between the built programs. The liar is a man in the middle who owns the real
// broker: he ends tunnels and HTTP on both sides, so that each message can be altered, dropped, repeated, reordered,
// delayed or made up, while everything he leaves alone is what an honest broker does.
package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// next passes a frame on and returns what was answered.
type next func(wire.Frame) (wire.Frame, error)

// frameHook sees each frame of a direction before it is passed on. A nil hook passes everything.
type frameHook func(f wire.Frame, pass next) (wire.Frame, error)

// liar is the broker that lies.
type liar struct {
	addr, real string // where he listens, and where the broker that he owns does
	server     *http.Server
	tunnels    *tunnel.Server
	proxy      *httputil.ReverseProxy

	mu       sync.Mutex
	toDesk   frameHook
	toBroker frameHook
	before   func(http.ResponseWriter, *http.Request) bool // true: answered, nothing is passed on
	after    func(*http.Response) error
	event    func(name string, data []byte) [][]byte // of a stream: what is sent in its place; the name stays
	dialled  map[string]*tunnel.Link                 // links to the broker whose other half is still being accepted
	desk     *tunnel.Link                            // the newest link of a desktop
	onUp     func(*tunnel.Link)                      // has the half towards the broker of each new link
}

// newLiar listens on addr in front of the broker at real.
func newLiar(addr, real string) (*liar, error) {
	l := &liar{addr: addr, real: real, dialled: map[string]*tunnel.Link{}}
	l.tunnels = tunnel.NewServer(tunnel.ServerConfig{
		Authenticate: l.dial, Admit: l.admit, OnLink: l.join, Logger: slog.New(slog.DiscardHandler),
	})
	l.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: real})
			r.Out.Host = addr
		},
		ModifyResponse: l.modify, FlushInterval: -1, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l.server = &http.Server{Handler: http.HandlerFunc(l.serve)}
	go func() { _ = l.server.Serve(listener) }() // ends with Close
	return l, nil
}

func (l *liar) close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = l.tunnels.Drain(ctx, 0)
	return l.server.Close()
}

// lie sets the hooks and returns what takes them back.
func (l *liar) lie(set func(*liar)) (honest func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	set(l)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.toDesk, l.toBroker, l.before, l.after, l.event = nil, nil, nil, nil, nil
	}
}

func (l *liar) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == wire.PathTunnel {
		l.tunnels.ServeHTTP(w, r)
		return
	}
	l.mu.Lock()
	before := l.before
	l.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	// All of it first: net/http closes a body under a proxy whose answer begins before it was read to its end.
	body, err := io.ReadAll(io.LimitReader(r.Body, 2*wire.MaxCommandBody))
	if err != nil {
		return
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	l.proxy.ServeHTTP(w, r)
}

// dial makes the other half of a tunnel with the desktop's own signature: the broker that he owns cannot tell.
func (l *liar) dial(r *http.Request) (tunnel.Peer, error) {
	h := http.Header{}
	for _, name := range []string{wire.HeaderTunnelPairing, wire.HeaderTunnelNonce, wire.HeaderTunnelTime, wire.HeaderTunnelSignature} {
		h.Set(name, r.Header.Get(name))
	}
	up, err := tunnel.Dial(r.Context(), tunnel.DialConfig{
		URL: "ws://" + l.addr + wire.PathTunnel, Proxy: "direct", Logger: slog.New(slog.DiscardHandler),
		Header: func(context.Context) (http.Header, error) { return h, nil },
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, l.real)
		},
	})
	if err != nil {
		return tunnel.Peer{}, err
	}
	id := r.Header.Get(wire.HeaderTunnelPairing)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dialled[id] = up
	return tunnel.Peer{ID: id}, nil
}

func (l *liar) admit(_ context.Context, p tunnel.Peer) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dialled[p.ID].Epoch(), nil
}

// join carries frames between the two halves until either ends, and then ends the other.
func (l *liar) join(down *tunnel.Link) {
	l.mu.Lock()
	up := l.dialled[down.Peer().ID]
	delete(l.dialled, down.Peer().ID)
	l.desk = down
	l.mu.Unlock()
	down.Serve(l.carry(up, func() frameHook { return l.toBroker }))
	up.Serve(l.carry(down, func() frameHook { return l.toDesk }))
	l.mu.Lock()
	onUp := l.onUp
	l.onUp = nil
	l.mu.Unlock()
	if onUp != nil {
		onUp(up)
	}
	select {
	case <-down.Done():
	case <-up.Done():
	}
	down.Close("relay_ended")
	up.Close("relay_ended")
}

func (l *liar) carry(to *tunnel.Link, hook func() frameHook) tunnel.Handler {
	return func(ctx context.Context, class tunnel.Class, req []byte) ([]byte, error) {
		var f wire.Frame
		if err := json.Unmarshal(req, &f); err != nil {
			return nil, err
		}
		pass := func(f wire.Frame) (wire.Frame, error) { return call(ctx, to, class, f) }
		l.mu.Lock()
		h := hook()
		l.mu.Unlock()
		answer := pass
		if h != nil {
			answer = func(f wire.Frame) (wire.Frame, error) { return h(f, pass) }
		}
		reply, err := answer(f)
		if err != nil {
			return nil, err
		}
		return json.Marshal(reply)
	}
}

func call(ctx context.Context, to *tunnel.Link, class tunnel.Class, f wire.Frame) (reply wire.Frame, err error) {
	req, err := json.Marshal(f)
	if err != nil {
		return reply, err
	}
	raw, err := to.Call(ctx, class, req)
	if err != nil {
		return reply, err
	}
	return reply, json.Unmarshal(raw, &reply)
}

// tell sends the desktop a frame that the broker never sent, and decodes the answer.
func (l *liar) tell(ctx context.Context, class tunnel.Class, frame string, body, answer any) error {
	l.mu.Lock()
	to := l.desk
	l.mu.Unlock()
	reply, err := call(ctx, to, class, frameOf(frame, body))
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(reply.Body, answer)
}

func frameOf(name string, body any) wire.Frame {
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err) // wire's structs have JSON
	}
	return wire.Frame{Type: name, Body: raw}
}

// cut ends the desktop's link, as a network would; the desktop dials again.
func (l *liar) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.desk.Close("relay_ended")
}

// modify bends answers: whole ones by after, streams event by event.
func (l *liar) modify(res *http.Response) error {
	l.mu.Lock()
	after, event := l.after, l.event
	l.mu.Unlock()
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		if event != nil {
			res.Body = bend(res.Body, event)
		}
		return nil
	}
	if after == nil {
		return nil
	}
	return after(res)
}

// bend rewrites a stream of events.
func bend(from io.ReadCloser, event func(string, []byte) [][]byte) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		defer func() { _ = from.Close() }()
		var text []byte
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			text = append(text, buf[:n]...)
			for {
				i := bytes.Index(text, []byte("\n\n"))
				if i < 0 {
					break
				}
				if _, err := w.Write(bent(text[:i+2], event)); err != nil {
					return
				}
				text = text[i+2:]
			}
			if err != nil {
				_ = w.CloseWithError(err)
				return
			}
		}
	}()
	return r
}

func bent(block []byte, event func(string, []byte) [][]byte) []byte {
	var name string
	var data []byte
	var rest bytes.Buffer
	for line := range bytes.Lines(block) {
		switch text := bytes.TrimRight(line, "\n"); {
		case bytes.HasPrefix(text, []byte("event: ")):
			name = string(text[len("event: "):])
		case bytes.HasPrefix(text, []byte("data: ")):
			data = append(data, text[len("data: "):]...)
		case len(text) > 0:
			rest.Write(line)
		}
	}
	if name == "" {
		return block
	}
	var out bytes.Buffer
	for _, d := range event(name, data) {
		out.WriteString("event: " + name + "\n")
		out.Write(rest.Bytes())
		out.WriteString("data: ")
		out.Write(d)
		out.WriteString("\n\n")
	}
	return out.Bytes()
}

// edit changes the JSON of an answer.
func edit[T any](res *http.Response, f func(*T)) error {
	var v T
	raw, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close(), json.Unmarshal(raw, &v)); err != nil {
		return err
	}
	f(&v)
	if raw, err = json.Marshal(v); err != nil {
		return err
	}
	res.Body = io.NopCloser(bytes.NewReader(raw))
	res.ContentLength = int64(len(raw))
	res.Header.Set("Content-Length", strconv.Itoa(len(raw)))
	return nil
}

// on is an after hook for the answers of one path.
func on[T any](match func(*http.Request) bool, f func(*T)) func(*http.Response) error {
	return func(res *http.Response) error {
		if res.StatusCode >= 300 || !match(res.Request) {
			return nil
		}
		return edit(res, f)
	}
}
