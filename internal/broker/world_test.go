package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cowork.example.com/broker/internal/httpapi/apitest"
	"cowork.example.com/broker/pkg/wire"
)

// patience bounds everything a test waits for.
const patience = 20 * time.Second

// clock is the machine's, moved.
type clock struct{ off atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.off.Load())) }
func (c *clock) advance(d time.Duration) { c.off.Add(int64(d)) }

// world is a running broker and what a test needs of it. Every exchange of its clients is held against the document.
type world struct {
	t       *testing.T
	clock   *clock
	dir     string
	logs    *logs
	started *Started
	base    string
	public  *http.Client
	op      *http.Client
	stop    func()
	cfg     Config
}

// logs is a log that tests can read.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// shortDir is a folder whose path leaves room for a socket's name, in memory where there is such a place: what an
// fsync is worth is for the store's own tests and the kill tests to show.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "odp")
	if err != nil {
		dir, err = os.MkdirTemp("", "odp")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// start runs a broker until the test ends, beside other tests. edit may change its configuration.
func start(t *testing.T, edit func(*Config)) *world {
	t.Helper()
	t.Parallel()
	return startAlone(t, edit)
}

// startAlone is start for a test that must not run beside others.
func startAlone(t *testing.T, edit func(*Config)) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{}, dir: shortDir(t), logs: &logs{}}
	w.cfg = Config{
		Listen: []string{"127.0.0.1:0"}, StateDir: w.dir, Version: "test", Now: w.clock.now,
		Logger: slog.New(slog.NewTextHandler(w.logs, nil)),
	}
	if edit != nil {
		edit(&w.cfg)
	}
	w.run()
	t.Cleanup(func() {
		w.stop()
		if t.Failed() {
			t.Log(w.logs)
		}
	})
	return w
}

// run starts the broker, again after stop.
func (w *world) run() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up := make(chan *Started, 1)
	cfg := w.cfg
	cfg.Started = func(_ context.Context, s *Started) { up <- s }
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	select {
	case w.started = <-up:
	case err := <-ended:
		cancel()
		w.t.Fatalf("the broker did not start: %v", err)
	}
	w.base = w.started.Addresses[0]
	plain := &http.Transport{}
	socket := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.started.Socket)
	}}
	w.public = &http.Client{Transport: apitest.Wrap(w.t, plain)}
	w.op = &http.Client{Transport: apitest.Wrap(w.t, socket)}
	w.stop = sync.OnceFunc(func() {
		cancel()
		plain.CloseIdleConnections()
		socket.CloseIdleConnections()
		if err := <-ended; err != nil {
			w.t.Errorf("the broker ended with %v", err)
		}
	})
}

// restart ends the broker and starts another one over the same folder and address.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.cfg.Listen = []string{strings.TrimPrefix(w.base, "http://")}
	w.run()
}

// exchange is one call, with its answer decoded into out if it was a success.
func (w *world) exchange(c *http.Client, method, url, token string, in, out any) (int, *wire.Problem) {
	w.t.Helper()
	var body io.Reader
	if in != nil {
		raw, ok := in.([]byte)
		if !ok {
			var err error
			if raw, err = json.Marshal(in); err != nil {
				w.t.Fatal(err)
			}
		}
		body = bytes.NewReader(raw)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 40*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.Do(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	return res.StatusCode, decode(w.t, res, out)
}

func decode(t *testing.T, res *http.Response, out any) *wire.Problem {
	t.Helper()
	if res.StatusCode >= 400 {
		p := &wire.Problem{}
		if err := json.NewDecoder(res.Body).Decode(p); err != nil {
			t.Fatalf("an error without a problem: %v", err)
		}
		return p
	}
	if out != nil {
		if err := json.NewDecoder(res.Body).Decode(out); err != nil {
			t.Fatal(err)
		}
	}
	return nil
}

// ask calls the public API and wants success.
func (w *world) ask(method, path, token string, in, out any) {
	w.t.Helper()
	if status, p := w.exchange(w.public, method, w.base+path, token, in, out); p != nil {
		w.t.Fatalf("%s %s: %d %s: %s", method, path, status, p.Code, p.Title)
	}
}

// operate calls the operator's API and wants success.
func (w *world) operate(method, path string, in, out any) {
	w.t.Helper()
	if status, p := w.exchange(w.op, method, "http://op"+path, "", in, out); p != nil {
		w.t.Fatalf("%s %s: %d %s: %s", method, path, status, p.Code, p.Title)
	}
}

// refused calls the public API and wants this refusal.
func (w *world) refused(method, path, token string, in any, status int, code string) *wire.Problem {
	w.t.Helper()
	got, p := w.exchange(w.public, method, w.base+path, token, in, nil)
	if p == nil || got != status || p.Code != code {
		w.t.Fatalf("%s %s: %d %+v, want %d %s", method, path, got, p, status, code)
	}
	return p
}

// at fills the {names} of a path constant in their order.
func at(path string, values ...string) string {
	for _, v := range values {
		i, j := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
		path = path[:i] + v + path[j+1:]
	}
	return path
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

// receive takes from a channel, in bounds.
func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("never came: %s", what)
		panic("unreachable")
	}
}

// sseEvent is one event of a stream.
type sseEvent struct{ name, id, data string }

// stream is an open stream of events.
type stream struct {
	t      *testing.T
	events chan sseEvent // closed at its end
	cancel context.CancelFunc
}

// listen opens a stream and reads it until it ends.
func (w *world) listen(subs []wire.StreamSubscribe, lastID string) *stream {
	w.t.Helper()
	raw, err := json.Marshal(subs)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+wire.PathStreams, bytes.NewReader(raw))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	res, err := w.public.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		w.t.Fatalf("no stream: %d %+v", res.StatusCode, decode(w.t, res, nil))
	}
	s := &stream{t: w.t, events: make(chan sseEvent, 1000), cancel: cancel}
	go s.read(res.Body)
	w.t.Cleanup(cancel)
	return s
}

func (s *stream) read(body io.ReadCloser) {
	defer close(s.events)
	defer body.Close()
	var e sseEvent
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.data = value
		case "":
			if e.name != "" {
				s.events <- e
			}
			e = sseEvent{}
		}
	}
}

// next returns the next event of a name, passing others over.
func (s *stream) next(name string, into any) sseEvent {
	s.t.Helper()
	for {
		e := receive(s.t, "event "+name, s.events)
		if e.name == "" {
			s.t.Fatalf("the stream ended before %s", name)
		}
		if e.name != name {
			continue
		}
		if into != nil {
			if err := json.Unmarshal([]byte(e.data), into); err != nil {
				s.t.Fatal(err)
			}
		}
		return e
	}
}
