package surface

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/internal/httpapi/apitest"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// patience bounds everything a test waits for; only a broken test waits so long.
const patience = 20 * time.Second

// clock is the machine's, moved.
type clock struct{ off atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.off.Load())) }
func (c *clock) advance(d time.Duration) { c.off.Add(int64(d)) }

// memory is a keystore in memory.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

func newMemory() *memory { return &memory{values: map[string][]byte{}} }

func (m *memory) Get(_ context.Context, name string) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[name]
	return slices.Clone(v), ok, nil
}

func (m *memory) Set(_ context.Context, name string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name] = slices.Clone(value)
	return nil
}

func (m *memory) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, name)
	return nil
}

// executor is the echo, which also asks for leave when a prompt begins with "ask ", and counts what it runs.
type executor struct {
	agent.Executor
	sink func(wire.ExecEvent)

	mu  sync.Mutex
	ran []string // texts of prompts
}

func (e *executor) Run(ctx context.Context, sink func(wire.ExecEvent)) error {
	e.sink = sink
	return e.Executor.Run(ctx, sink)
}

func (e *executor) Execute(ctx context.Context, c wire.ExecCommand) (wire.ExecResult, error) {
	switch {
	case c.RequestID != "":
		e.sink(wire.ExecEvent{Type: wire.ExecRequestClosed, SessionID: c.SessionID, Outcome: wire.DecisionAllowed, Request: &wire.ExecRequest{ID: c.RequestID}})
		return wire.ExecResult{}, nil
	case c.Kind == proof.Prompt.String():
		e.mu.Lock()
		e.ran = append(e.ran, c.Text)
		e.mu.Unlock()
	}
	if id, ok := strings.CutPrefix(c.Text, "ask "); ok {
		e.sink(wire.ExecEvent{Type: wire.ExecRequestOpen, SessionID: c.SessionID, CommandRef: c.Ref, Request: &wire.ExecRequest{
			ID: id, SessionID: c.SessionID, RootID: c.SessionID, Kind: "permission", Permission: "bash",
			Exact: json.RawMessage(`{"metadata":{"command":"ls <a> && rm 'b' é"}}`),
		}})
	}
	return e.Executor.Execute(ctx, c)
}

func (e *executor) count(text string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, t := range e.ran {
		if t == text {
			n++
		}
	}
	return n
}

// world is a real broker and a real agent that is enrolled there, both in this process but over loopback sockets.
type world struct {
	t       *testing.T
	clock   *clock // of broker and desktop
	base    string
	started *broker.Started
	exec    *executor
	desk    *agent.Client
	dir     string // of the agent
	secrets *memory
	pairing string

	stopBroker, stopAgent func()
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "odp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{}, dir: shortDir(t), secrets: newMemory(), exec: &executor{}}
	w.exec.Executor = agent.NewEcho(w.clock.now)
	w.runBroker()
	w.enrol()
	w.runAgent()
	return w
}

func (w *world) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

func (w *world) runBroker() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up, ended := make(chan *broker.Started, 1), make(chan error, 1)
	cfg := broker.Config{
		Listen: []string{"127.0.0.1:0"}, StateDir: shortDir(w.t), Version: "test", Now: w.clock.now, Logger: w.logger(),
		Started: func(_ context.Context, s *broker.Started) { up <- s },
	}
	go func() { ended <- broker.Run(ctx, cfg) }()
	select {
	case w.started = <-up:
	case err := <-ended:
		w.t.Fatalf("the broker did not start: %v", err)
	}
	w.base = w.started.Addresses[0]
	w.stopBroker = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("broker: %v", err)
		}
	})
	w.t.Cleanup(w.stopBroker)
}

func (w *world) enrol() {
	w.t.Helper()
	issued, err := w.started.IssueCode(w.t.Context(), wire.CodeIssue{})
	if err != nil {
		w.t.Fatal(err)
	}
	code, err := pairing.ParseCode(issued.Link)
	if err != nil {
		w.t.Fatal(err)
	}
	j, err := agent.OpenJournal(w.t.Context(), w.dir, "machine", w.clock.now())
	if err != nil {
		w.t.Fatal(err)
	}
	defer j.Close()
	row, err := agent.Enrol(w.t.Context(), agent.Enrolment{
		Broker: w.base, Code: code, Host: "desk", Executor: agent.ExecutorEcho, Secrets: w.secrets, Journal: j, Now: w.clock.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.pairing = row.ID.String()
}

// runAgent starts the agent and waits for its link.
func (w *world) runAgent() {
	w.t.Helper()
	a, err := agent.New(w.t.Context(), agent.Config{
		StateDir: w.dir, Secrets: w.secrets, Machine: "machine", Version: "test", Now: w.clock.now, Logger: w.logger(),
		Executor: func(agent.Seed) (agent.Executor, error) { return w.exec, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	w.stopAgent = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, a.Close()); err != nil {
			w.t.Errorf("agent: %v", err)
		}
	})
	w.t.Cleanup(w.stopAgent)
	w.desk = agent.NewClient(w.dir)
	eventually(w.t, "the agent is connected", func() bool {
		s, err := w.desk.Status(w.t.Context())
		return err == nil && s.Pairings[0].Link.State == "connected"
	})
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never: %s", what)
		}
	}
}

// bent is a transport that a test bends: before may answer or fail instead of the broker, after may change its answer.
type bent struct {
	inner http.RoundTripper

	mu     sync.Mutex
	before func(*http.Request, []byte) (*http.Response, error)
	after  func(*http.Request, *http.Response) error
	posts  [][]byte // bodies of posted commands
}

func (b *bent) set(before func(*http.Request, []byte) (*http.Response, error), after func(*http.Request, *http.Response) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before, b.after = before, after
}

func (b *bent) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body.Close()
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	b.mu.Lock()
	before, after := b.before, b.after
	if strings.HasSuffix(req.URL.Path, "/commands") {
		b.posts = append(b.posts, body)
	}
	b.mu.Unlock()
	if before != nil {
		if res, err := before(req, body); res != nil || err != nil {
			return res, err
		}
	}
	res, err := b.inner.RoundTrip(req)
	if err == nil && after != nil {
		if err = after(req, res); err != nil {
			res.Body.Close()
			return nil, err
		}
	}
	return res, err
}

// edit replaces a JSON answer through f.
func edit[T any](res *http.Response, f func(*T)) error {
	raw, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return err
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	f(&v)
	if raw, err = json.Marshal(v); err != nil {
		return err
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	res.Header.Del("Content-Length")
	return nil
}

var errCut = errors.New("the wire was cut")

// place is where one surface under test lives.
type place struct {
	opts  Options
	net   *bent
	clock *clock
}

func (w *world) place() *place {
	w.t.Helper()
	plain := &http.Transport{}
	w.t.Cleanup(plain.CloseIdleConnections)
	p := &place{net: &bent{inner: apitest.Wrap(w.t, plain)}, clock: &clock{}}
	p.opts = Options{Dir: w.t.TempDir(), Secrets: newMemory(), HTTP: &http.Client{Transport: p.net}, Now: p.clock.now}
	return p
}

// typist is the person at both ends: it types the digits into the desktop, and the finish code into the surface.
type typist struct {
	w      *world
	finish func(code string) string // nil: as it is
	digits func(digits string) string
	failed chan error
}

func (p *typist) ShowDigits(digits, host, policy string) {
	if host != "desk" || policy == "" {
		p.w.t.Errorf("the surface is shown %q %q", host, policy)
	}
	if p.digits != nil {
		digits = p.digits(digits)
	}
	go func() { p.failed <- p.w.desk.LinkDigits(context.Background(), p.w.pairing, digits) }()
}

func (p *typist) FinishCode(ctx context.Context, digits int) (string, error) {
	e, err := p.w.linkEvent(ctx, agent.LinkConfirmed)
	if err != nil {
		return "", err
	}
	if len(e.Finish) != digits {
		p.w.t.Errorf("the finish code has %d digits, not %d", len(e.Finish), digits)
	}
	if p.finish != nil {
		return p.finish(e.Finish), nil
	}
	return e.Finish, nil
}

// linkEvent waits for an event of the linking session at the desktop.
func (w *world) linkEvent(ctx context.Context, typ string) (agent.LinkEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for after := 0; ; {
		events, err := w.desk.LinkEvents(ctx, w.pairing, after, 10)
		if err != nil {
			return agent.LinkEvent{}, err
		}
		for _, e := range events {
			if e.Type == typ {
				return e, nil
			}
			after = e.Seq
		}
	}
}

// request begins a linking at the desktop and returns what the surface is given.
func (w *world) request(mode, scope string) LinkRequest {
	w.t.Helper()
	ticket, err := w.desk.LinkStart(w.t.Context(), w.pairing, mode, scope == "decide")
	if err != nil {
		w.t.Fatal(err)
	}
	if mode == "code" {
		return LinkRequest{Text: ticket.Code, Broker: w.base, Label: "phone", Scope: scope}
	}
	return LinkRequest{Text: ticket.Link, Label: "phone", Scope: scope}
}

// link links a surface and waits until the desktop knows.
func (w *world) link(p *place, mode, scope string) *Surface {
	w.t.Helper()
	who := &typist{w: w, failed: make(chan error, 1)}
	s, err := Link(w.t.Context(), p.opts, w.request(mode, scope), who)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := <-who.failed; err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.linkEvent(w.t.Context(), agent.LinkDone); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// session makes a session.
func session(t *testing.T, s *Surface) string {
	t.Helper()
	o, err := s.Do(t.Context(), proof.CreateSession, wire.CreateSession{Title: "test"}, nil)
	if err != nil || !o.Signed || !o.Body.OK {
		t.Fatalf("no session: %+v %v", o, err)
	}
	return o.Body.Session.ID
}

// prompt runs a prompt to its signed end.
func prompt(t *testing.T, s *Surface, session, text string) Outcome {
	t.Helper()
	o, err := s.Do(t.Context(), proof.Prompt, wire.Prompt{SessionID: session, Text: text}, nil)
	if err != nil || !o.Signed || !o.Body.OK {
		t.Fatalf("prompt %q: %+v %v", text, o, err)
	}
	return o
}
