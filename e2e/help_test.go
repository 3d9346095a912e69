//go:build e2e

// Package e2e tests the built programs as processes: everything they are told goes through arguments, standard input,
// files and sockets, and everything they say is read there.
package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/pkg/wire"
)

// testTime bounds one test on a busy machine.
const testTime = 3 * time.Minute

// newLab makes a lab of the programs in bin/ (or bin/chaos/) that ends with the test.
func newLab(t *testing.T, programs string) (context.Context, *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	l, err := lab.New(filepath.Join("..", programs))
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	return ctx, l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// withModel starts the scripted model and returns the arguments with which an agent runs a real OpenCode on it.
func withModel(t *testing.T, l *lab.Lab) []string {
	t.Helper()
	bin := os.Getenv("OPENCODE_BIN")
	if bin == "" {
		t.Fatal("OPENCODE_BIN is not set: use `make test-e2e`")
	}
	server, err := l.StartAt(abs(t, filepath.Join("..", "build", "scriptedmodel")), "-addr", "127.0.0.1:0", "-slow", "20s")
	check(t, err)
	url, err := server.Await(`listening on (http://\S+)`, lab.StartTime)
	check(t, err)
	l.Env = append(l.Env, "OPENCODE_CONFIG="+abs(t, "opencode.json"), "SCRIPTED_MODEL_URL="+url[1])
	return []string{"--opencode", "isolated", "--opencode-bin", bin}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	check(t, err)
	return path
}

// echo are the arguments of an agent that needs no OpenCode.
var echo = []string{"--executor", "echo"}

// world is a broker, an enrolled desktop that runs, and its processes.
type world struct {
	*lab.Lab
	desktop       *lab.Desktop
	broker, agent *lab.Proc
}

// start brings a broker and one desktop up.
func start(ctx context.Context, t *testing.T, l *lab.Lab, args ...string) *world {
	t.Helper()
	w := &world{Lab: l}
	var err error
	w.broker, err = l.StartBroker()
	check(t, err)
	w.desktop, err = l.Desktop("desk", args...)
	check(t, err)
	check(t, w.desktop.Enrol(ctx))
	w.agent, err = w.desktop.Start(ctx)
	check(t, err)
	return w
}

// link links a surface.
func (w *world) link(ctx context.Context, t *testing.T, name string, decide bool) *lab.Surface {
	t.Helper()
	s := w.Surface(name)
	check(t, s.Link(ctx, w.desktop, decide))
	return s
}

// run runs a surface command and returns what it said.
func run(ctx context.Context, t *testing.T, s *lab.Surface, args ...string) lab.Result {
	t.Helper()
	r, err := s.Run(ctx, args...)
	check(t, err)
	return r
}

// must runs a surface command that has to succeed.
func must(ctx context.Context, t *testing.T, s *lab.Surface, args ...string) string {
	t.Helper()
	out, err := s.Must(ctx, args...)
	check(t, err)
	return out
}

// answer is what `surface prompt --json` prints.
type answer struct {
	Command, State, Session, Turn, Outcome, Text string
}

func prompt(ctx context.Context, t *testing.T, s *lab.Surface, args ...string) answer {
	t.Helper()
	var a answer
	check(t, s.JSON(ctx, &a, append([]string{"prompt"}, args...)...))
	return a
}

// request waits for a request to be open and returns it with its text, when this surface is shown it.
func request(ctx context.Context, t *testing.T, s *lab.Surface) openRequest {
	t.Helper()
	for {
		var all []openRequest
		check(t, s.JSON(ctx, &all, "requests"))
		if len(all) > 0 {
			return all[len(all)-1]
		}
		pause(ctx, t)
	}
}

type openRequest struct {
	wire.RequestSummary
	Full   *wire.Request `json:"full"`
	SHA256 string        `json:"sha256"`
}

// pause lets the programs go on for a moment between two looks.
func pause(ctx context.Context, t *testing.T) {
	t.Helper()
	select {
	case <-ctx.Done():
		t.Fatal("what was waited for did not come")
	case <-time.After(100 * time.Millisecond):
	}
}
