package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cowork.example.com/broker/cmd/internal/cli"
	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds what a story waits for.
const patience = 30 * time.Second

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"broker": main}) }

func TestProgramFollowsTheConventions(t *testing.T) {
	if err := cli.Check(newApp()); err != nil {
		t.Error(err)
	}
}

// Each story gets a folder with a short path, since a socket's is bounded.
func TestStories(t *testing.T) {
	root, err := os.MkdirTemp("", "odp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	world.servers, world.desks = map[*testscript.TestScript]*server{}, map[*testscript.TestScript]*desk{}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", WorkdirRoot: root,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("BROKER_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "conf"))
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each program waits a second to end
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": serveInBackground, "stop": stopServing, "enrol": enrolDesktop, "link": linkSurface,
		},
	})
}

// server is a broker that a story runs beside its commands.
type server struct {
	cmd   *exec.Cmd
	out   string // file with what it printed
	ended chan error
}

// serveInBackground starts "broker serve --listen 127.0.0.1:0 ARGS", waits until it is ready, and sets $ADDRESS.
func serveInBackground(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("serve cannot be negated: use exec")
	}
	path, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(filepath.ListSeparator))[0], "broker"))
	ts.Check(err)
	s := &server{out: ts.MkAbs("serve.out"), ended: make(chan error, 1)}
	s.cmd = exec.Command(path, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	s.cmd.Dir, s.cmd.Env = ts.MkAbs("."), environ(ts)
	stdout, err := s.cmd.StdoutPipe()
	ts.Check(err)
	stderr, err := os.Create(ts.MkAbs("serve.err"))
	ts.Check(err)
	s.cmd.Stderr = stderr
	ts.Check(s.cmd.Start())
	ts.Defer(func() { s.end() })
	ready := make(chan string, 1)
	go s.read(stdout, ready)
	select {
	case address := <-ready:
		if address == "" {
			log, _ := os.ReadFile(stderr.Name())
			ts.Fatalf("the broker did not get ready: %s", log)
		}
		ts.Setenv("ADDRESS", address)
	case <-time.After(patience):
		ts.Fatalf("the broker did not get ready in time")
	}
	world.Lock()
	defer world.Unlock()
	world.servers[ts] = s
}

// world is what the stories run beside their commands; stories run in parallel.
var world struct {
	sync.Mutex
	servers map[*testscript.TestScript]*server
	desks   map[*testscript.TestScript]*desk
}

func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "STATE", "BROKER_STATE", "XDG_CONFIG_HOME", "GORACE", "TMPDIR"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// read copies what the broker prints into a file, tells its address when it is ready, and collects its end.
func (s *server) read(stdout io.Reader, ready chan<- string) {
	var all, address string
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		all += lines.Text() + "\n"
		if a, ok := strings.CutPrefix(lines.Text(), "listening on "); ok && address == "" {
			address = a
		}
		if lines.Text() == "ready" {
			_ = os.WriteFile(s.out, []byte(all), 0o600)
			ready <- address
		}
	}
	_ = os.WriteFile(s.out, []byte(all), 0o600)
	close(ready)
	s.ended <- s.cmd.Wait()
}

func (s *server) end() error {
	if s.cmd.ProcessState != nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		return s.cmd.Process.Kill()
	}
}

// stopServing ends the broker of this story by a signal and wants exit code 0.
func stopServing(ts *testscript.TestScript, _ bool, _ []string) {
	world.Lock()
	s := world.servers[ts]
	world.Unlock()
	if s == nil {
		ts.Fatalf("no broker runs")
	}
	ts.Check(s.end())
}
