package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

// patience bounds what a story waits for.
const patience = 30 * time.Second

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"desktop-agent": main}) }

func TestProgramFollowsTheConventions(t *testing.T) {
	if err := cli.Check(newApp()); err != nil {
		t.Error(err)
	}
}

// Each story gets a folder with a short path, since a socket's is bounded. The broker is a real one, in this process.
func TestStories(t *testing.T) {
	root, err := os.MkdirTemp("", "oda")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", WorkdirRoot: root,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("DESKTOP_AGENT_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "conf"))
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each program waits a second to end
			e.Values[worldKey{}] = &world{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"broker": startBroker, "code": issueCode, "agent": startAgent, "stop": stopAgent, "kill": killAgent, "link": linkPhone, "prompt": prompt,
		},
	})
}

type worldKey struct{}

// world is what one story runs beside its commands.
type world struct {
	started *broker.Started
	agent   *exec.Cmd
	ended   chan error
	phone   *surface.Surface
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// startBroker runs a broker until the story ends, and sets $ADDRESS.
func startBroker(ts *testscript.TestScript, _ bool, _ []string) {
	dir := ts.MkAbs("broker")
	ts.Check(os.Mkdir(dir, 0o700))
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan *broker.Started, 1), make(chan error, 1)
	go func() {
		ended <- broker.Run(ctx, broker.Config{
			Listen: []string{"127.0.0.1:0"}, StateDir: dir, Version: "test", Now: time.Now, Logger: slog.New(slog.DiscardHandler),
			Started: func(_ context.Context, s *broker.Started) { started <- s },
		})
	}()
	ts.Defer(func() {
		cancel()
		<-ended
	})
	select {
	case s := <-started:
		worldOf(ts).started = s
		ts.Setenv("ADDRESS", s.Addresses[0])
	case err := <-ended:
		ended <- err
		ts.Fatalf("broker: %v", err)
	}
}

// issueCode writes an enrolment code into a file that only its owner can read.
func issueCode(ts *testscript.TestScript, _ bool, args []string) {
	issued, err := worldOf(ts).started.IssueCode(context.Background(), wire.CodeIssue{})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(issued.Text+"\n"), 0o600))
}

func command(ts *testscript.TestScript, args ...string) *exec.Cmd {
	first := strings.Split(ts.Getenv("PATH"), string(filepath.ListSeparator))[0]
	cmd := exec.Command(filepath.Join(first, "desktop-agent"), args...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "STATE", "DESKTOP_AGENT_STATE", "XDG_CONFIG_HOME", "GORACE", "TMPDIR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	return cmd
}

// startAgent runs "desktop-agent run --executor echo ARGS" and waits until it is connected, or locked.
func startAgent(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	cmd := command(ts, append([]string{"run", "--executor", "echo"}, args...)...)
	log, err := os.Create(ts.MkAbs("agent.log"))
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = log, log
	ts.Check(cmd.Start())
	w.agent, w.ended = cmd, make(chan error, 1)
	go func() { w.ended <- cmd.Wait() }()
	ts.Defer(func() { endAgent(w, syscall.SIGKILL) })
	client := agent.NewClient(ts.Getenv("STATE"))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		s, err := client.Status(context.Background())
		if err == nil && len(s.Pairings) == 1 && (s.Pairings[0].Link.State == "connected" || s.Pairings[0].Locked != "") {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			raw, _ := os.ReadFile(log.Name())
			ts.Fatalf("the agent did not connect: %v\n%s", err, raw)
		}
	}
}

func endAgent(w *world, how os.Signal) error {
	if w.agent == nil {
		return nil
	}
	_ = w.agent.Process.Signal(how)
	defer func() { w.agent = nil }()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(patience):
		return fmt.Errorf("the agent does not end: %w", w.agent.Process.Kill())
	}
}

// stopAgent ends the agent by a signal and wants exit code 0.
func stopAgent(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(endAgent(worldOf(ts), syscall.SIGTERM))
}

// killAgent ends it like a crash.
func killAgent(ts *testscript.TestScript, _ bool, _ []string) {
	_ = endAgent(worldOf(ts), syscall.SIGKILL)
}

// person is whoever holds the phone: the digits go to the desktop, the finish code comes from there.
type person struct {
	digits chan string
	finish chan string
}

func (p *person) ShowDigits(digits, _, _ string) { p.digits <- digits }

func (p *person) FinishCode(ctx context.Context, _ int) (string, error) {
	select {
	case code := <-p.finish:
		return code, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

type secrets struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (s *secrets) Get(_ context.Context, name string) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[name]
	return v, ok, nil
}

func (s *secrets) Set(_ context.Context, name string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name] = value
	return nil
}

func (s *secrets) Delete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, name)
	return nil
}

var (
	linkText   = regexp.MustCompile(`http\S+/p#1\.\S+`)
	codeText   = regexp.MustCompile(`\d\d-[A-Z]{4}-[A-Z]{4}`)
	finishText = regexp.MustCompile(`into the device:\s+(\d+) (\d+)`)
)

// linkPhone runs "desktop-agent link ARGS" as a person would: it gives what is shown to a surface, and types the
// digits that the surface shows. A first argument "wrong" types others first, "all-wrong" only others. What the program
// printed is in link.out; its exit code must be 0, or not with "!".
func linkPhone(ts *testscript.TestScript, neg bool, args []string) {
	wrong := 0
	if len(args) > 0 && strings.HasSuffix(args[0], "wrong") {
		wrong = map[string]int{"wrong": 1, "all-wrong": 99}[args[0]]
		args = args[1:]
	}
	cmd := command(ts, append([]string{"link"}, args...)...)
	in, err := cmd.StdinPipe()
	ts.Check(err)
	out, to, err := os.Pipe()
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = to, to
	ts.Check(cmd.Start())
	ts.Check(to.Close())
	p := &person{digits: make(chan string, 1), finish: make(chan string, 1)}
	linked := make(chan error, 1)
	go typeDigits(p, in, wrong)
	text := follow(ts, out, p, linked)
	ts.Check(os.WriteFile(ts.MkAbs("link.out"), []byte(text), 0o600))
	err = cmd.Wait()
	if (err != nil) != neg {
		ts.Fatalf("link: %v\n%s", err, text)
	}
	if surfaceErr := <-linked; (surfaceErr != nil) != neg {
		ts.Fatalf("the surface: %v\n%s", surfaceErr, text)
	}
}

func typeDigits(p *person, in io.WriteCloser, wrong int) {
	digits := <-p.digits
	other := strings.Map(func(r rune) rune { return '0' + (r-'0'+1)%10 }, digits)
	for range min(wrong, 3) {
		_, _ = fmt.Fprintln(in, other)
	}
	if wrong < 3 {
		_, _ = fmt.Fprintln(in, digits)
	}
}

// follow reads what the program prints, and hands link, code and finish code to the surface.
func follow(ts *testscript.TestScript, out io.Reader, p *person, linked chan<- error) string {
	var all strings.Builder
	joined := false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		all.WriteString(lines.Text() + "\n")
		text := linkText.FindString(lines.Text())
		if text == "" {
			text = codeText.FindString(lines.Text())
		}
		if text != "" && !joined {
			joined = true
			go join(ts, text, p, linked)
		}
		if m := finishText.FindStringSubmatch(lines.Text()); m != nil {
			p.finish <- m[1] + m[2]
		}
	}
	if !joined {
		linked <- io.ErrUnexpectedEOF
	}
	return all.String()
}

func join(ts *testscript.TestScript, text string, p *person, linked chan<- error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := surface.Link(ctx, surface.Options{Dir: ts.MkAbs("phone"), Secrets: &secrets{values: map[string][]byte{}}},
		surface.LinkRequest{Text: text, Broker: ts.Getenv("ADDRESS"), Label: "story phone", Scope: "decide"}, p)
	if err == nil {
		worldOf(ts).phone = s
	}
	linked <- err
}

// prompt makes a session and sends a prompt from the linked phone; what came of both stands in prompt.out.
func prompt(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	phone := worldOf(ts).phone
	created, err := phone.CreateSession(ctx, wire.CreateSession{}, nil)
	if err == nil && created.Body.Session != nil {
		var sent surface.Sent
		if sent, err = phone.Prompt(ctx, wire.Prompt{SessionID: created.Body.Session.ID, Text: strings.Join(args, " ")}); err == nil {
			created, err = phone.Wait(ctx, sent, nil)
		}
	}
	text := fmt.Sprintf("%s %v\n%s %s\n", created.State(), err, created.Body.Code, created.Body.Message)
	ts.Check(os.WriteFile(ts.MkAbs("prompt.out"), []byte(text), 0o600))
	if ok := err == nil && created.State() == wire.StateCompleted; ok == neg {
		ts.Fatalf("prompt: %s", text)
	}
}
