//go:build opencode

package opencode

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// patience bounds every wait of these tests; the real runtime is slow on a busy machine.
const patience = 60 * time.Second

// modelURL is the scripted model's, started by TestMain.
var modelURL string

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		crashingAgent()
	}
	code, err := withModel(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withModel runs the tests with a scripted model beside them.
func withModel(m *testing.M) (int, error) {
	if os.Getenv("OPENCODE_BIN") == "" {
		return 1, errors.New("set OPENCODE_BIN to the path that scripts/opencode.sh prints")
	}
	dir, err := os.MkdirTemp("", "scriptedmodel-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "scriptedmodel")
	if out, err := exec.Command("go", "build", "-o", bin, "cowork.example.com/broker/e2e/scriptedmodel").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("%w: %s", err, out)
	}
	cmd := exec.Command(bin, "-addr", "127.0.0.1:0", "-slow", "100ms")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 1, err
	}
	modelURL = strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	return m.Run(), nil
}

// testOptions is an isolated runtime with two projects under dir.
func testOptions(t *testing.T, dir string) Options {
	t.Helper()
	config, err := filepath.Abs("../../e2e/opencode.json")
	if err != nil {
		t.Fatal(err)
	}
	var projects []wire.ExecProject
	for _, name := range []string{"one", "two"} {
		p := filepath.Join(dir, "projects", name)
		if err := os.MkdirAll(p, 0o700); err != nil {
			t.Fatal(err)
		}
		projects = append(projects, wire.ExecProject{Name: name, Dir: p})
	}
	return Options{
		Mode: Isolated, Binary: os.Getenv("OPENCODE_BIN"), StateDir: filepath.Join(dir, "state"), Projects: projects,
		Environ: os.Environ(), Env: []string{"OPENCODE_CONFIG=" + config, "SCRIPTED_MODEL_URL=" + modelURL},
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// desk is an executor that runs, and everything it said.
type desk struct {
	*Executor
	t    *testing.T
	stop func()

	mu     sync.Mutex
	events []wire.ExecEvent
	more   chan struct{}
}

// startDesk runs an executor until the test ends or stop is called.
func startDesk(t *testing.T, o Options) *desk {
	t.Helper()
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{Executor: e, t: t, more: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx, d.sink); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	d.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(d.stop)
	return d
}

func (d *desk) sink(ev wire.ExecEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, ev)
	close(d.more)
	d.more = make(chan struct{})
}

// all is a copy of the events so far that match.
func (d *desk) all(match func(wire.ExecEvent) bool) (list []wire.ExecEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ev := range d.events {
		if match(ev) {
			list = append(list, ev)
		}
	}
	return list
}

// await waits for an event that matches, seen or to come.
func (d *desk) await(what string, match func(wire.ExecEvent) bool) wire.ExecEvent {
	d.t.Helper()
	deadline := time.After(patience)
	for {
		d.mu.Lock()
		more := d.more
		d.mu.Unlock()
		if list := d.all(match); len(list) > 0 {
			return list[0]
		}
		select {
		case <-more:
		case <-deadline:
			d.dump()
			d.t.Fatalf("no event: %s", what)
		}
	}
}

// dump writes the events down for whoever reads a failure.
func (d *desk) dump() {
	for _, ev := range d.all(func(wire.ExecEvent) bool { return true }) {
		d.t.Logf("%s %s session=%s message=%s ref=%s outcome=%s %.200s", ev.Time.Format("05.000"), ev.Type, ev.SessionID, ev.MessageID, ev.CommandRef, ev.Outcome, ev.Data)
	}
}

// must executes a command that has to succeed.
func (d *desk) must(c wire.ExecCommand) wire.ExecResult {
	d.t.Helper()
	r, err := d.do(c)
	if err != nil {
		d.t.Fatalf("%s: %v", c.Kind, err)
	}
	return r
}

func (d *desk) do(c wire.ExecCommand) (wire.ExecResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience+startDeadline)
	defer cancel()
	if c.ID == "" {
		c.ID = chance(16)
	}
	c.StartedAt = time.Now()
	return d.Execute(ctx, c)
}

// refuses executes a command that has to fail with a code and no other effect.
func (d *desk) refuses(code string, c wire.ExecCommand) {
	d.t.Helper()
	_, err := d.do(c)
	var failure *wire.ExecError
	if !errors.As(err, &failure) || failure.Code != code {
		d.t.Fatalf("%s: got %v, want %s", c.Kind, err, code)
	}
}

// create makes a session in a project.
func (d *desk) create(project, title string) string {
	d.t.Helper()
	return d.must(wire.ExecCommand{Kind: kindCreate, Project: project, Title: title}).Session.ID
}

// prompt sends text and returns the ref of its turn.
func (d *desk) send(session, text string) string {
	d.t.Helper()
	ref := d.Prepare(kindPrompt)
	r := d.must(wire.ExecCommand{Kind: kindPrompt, Ref: ref, SessionID: session, Text: text})
	if r.MessageID != ref {
		d.t.Fatalf("prompt became message %q, want %q", r.MessageID, ref)
	}
	return ref
}

// ends waits for the end of a turn, which must come with this outcome, exactly once, and
// after its start.
func (d *desk) ends(ref, outcome string) wire.ExecEvent {
	d.t.Helper()
	of := func(ev wire.ExecEvent) bool {
		return ev.CommandRef == ref && (ev.Type == wire.ExecTurnEnded || ev.Type == wire.ExecTurnStarted)
	}
	end := d.await("end of turn "+ref, func(ev wire.ExecEvent) bool { return of(ev) && ev.Type == wire.ExecTurnEnded })
	if end.Outcome != outcome {
		d.dump()
		d.t.Fatalf("turn ended %q, want %q", end.Outcome, outcome)
	}
	if list := d.all(of); len(list) != 2 || list[0].Type != wire.ExecTurnStarted {
		d.t.Fatalf("turn was reported as %v", list)
	}
	return end
}

// asks waits for the request that a turn opens.
func (d *desk) asks(ref string) wire.ExecRequest {
	d.t.Helper()
	ev := d.await("request of turn "+ref, func(ev wire.ExecEvent) bool { return ev.Type == wire.ExecRequestOpen && ev.CommandRef == ref })
	return *ev.Request
}

// closed waits until a request is reported closed, exactly once, with this decision.
func (d *desk) closes(id, decision string) {
	d.t.Helper()
	of := func(ev wire.ExecEvent) bool { return ev.Type == wire.ExecRequestClosed && ev.Request.ID == id }
	if ev := d.await("close of "+id, of); ev.Outcome != decision {
		d.dump()
		d.t.Fatalf("request became %q, want %q", ev.Outcome, decision)
	}
	if n := len(d.all(of)); n != 1 {
		d.t.Fatalf("request was closed %d times", n)
	}
}

// until polls for something that the runtime does not announce.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// relay forwards connections to an address, and can cut them.
type relay struct {
	listener net.Listener
	target   string

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: target}
	go r.serve()
	t.Cleanup(func() {
		l.Close()
		r.cut()
	})
	return r
}

func (r *relay) serve() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.target)
		if err != nil || !r.keep(in, out) {
			in.Close()
			continue
		}
		pipe := func(a, b net.Conn) {
			defer a.Close()
			defer b.Close()
			buf := make([]byte, 32<<10)
			for {
				n, err := a.Read(buf)
				if n > 0 {
					if _, err := b.Write(buf[:n]); err != nil {
						return
					}
				}
				if err != nil {
					return
				}
			}
		}
		go pipe(in, out)
		go pipe(out, in)
	}
}

// keep remembers a pair of connections unless the relay is cut.
func (r *relay) keep(in, out net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		out.Close()
		return false
	}
	r.conns = append(r.conns, in, out)
	return true
}

// cut ends all connections and lets no new one through until mend.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = false
}
