package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/internal/keystore"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/wire"
)

// patience bounds what a story waits for.
const patience = 30 * time.Second

// executor is the echo, which also asks: "ask ID" for leave, "question ID" for an answer; "busy" is a turn that goes on.
type executor struct {
	agent.Executor
	sink func(wire.ExecEvent)
}

func (e *executor) Run(ctx context.Context, sink func(wire.ExecEvent)) error {
	e.sink = sink
	return e.Executor.Run(ctx, sink)
}

func (e *executor) Execute(ctx context.Context, c wire.ExecCommand) (wire.ExecResult, error) {
	if c.RequestID != "" {
		e.sink(wire.ExecEvent{Type: wire.ExecRequestClosed, SessionID: c.SessionID, Request: &wire.ExecRequest{ID: c.RequestID}})
		return wire.ExecResult{}, nil
	}
	word, id, _ := strings.Cut(c.Text, " ")
	request := &wire.ExecRequest{ID: id, SessionID: c.SessionID, RootID: c.SessionID}
	switch word {
	case "ask":
		request.Kind, request.Permission = wire.RequestPermission, "bash"
		request.Exact = json.RawMessage(`{"metadata":{"command":"rm -rf build"}}`)
	case "question":
		request.Kind = wire.RequestQuestion
		request.Exact = json.RawMessage(`{"questions":[{"question":"Which one?","options":[{"label":"left"},{"label":"right"}]}]}`)
	default:
		return e.Executor.Execute(ctx, c)
	}
	e.sink(wire.ExecEvent{Type: wire.ExecRequestOpen, SessionID: c.SessionID, CommandRef: c.Ref, Request: request})
	return e.Executor.Execute(ctx, c)
}

// desk is a broker and a desktop that is enrolled there.
type desk struct {
	base      string
	client    *agent.Client
	stopAgent func()
	stop      func()
}

// startDesk runs both in this process, over loopback sockets.
func startDesk(dir string) (d *desk, err error) {
	quiet := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	up, ended := make(chan *broker.Started, 1), make(chan error, 1)
	go func() {
		ended <- broker.Run(ctx, broker.Config{
			Listen: []string{"127.0.0.1:0"}, StateDir: filepath.Join(dir, "b"), Version: "test", Now: time.Now, Logger: quiet,
			Started: func(_ context.Context, s *broker.Started) { up <- s },
		})
	}()
	var started *broker.Started
	select {
	case started = <-up:
	case err := <-ended:
		cancel()
		return nil, err
	}
	d = &desk{base: started.Addresses[0], stopAgent: func() {}}
	d.stop = sync.OnceFunc(func() {
		d.stopAgent()
		cancel()
		<-ended
	})
	return d, d.enrol(filepath.Join(dir, "a"), started)
}

func (d *desk) enrol(dir string, started *broker.Started) error {
	store, err := keystore.Open(keystore.File, "test", filepath.Join(dir, "keys"))
	if err != nil {
		return err
	}
	secrets := keystore.Bytes{Store: store}
	issued, err := started.IssueCode(context.Background(), wire.CodeIssue{})
	if err != nil {
		return err
	}
	code, err := pairing.ParseCode(issued.Text)
	if err != nil {
		return err
	}
	j, err := agent.OpenJournal(context.Background(), dir, "machine", time.Now())
	if err != nil {
		return err
	}
	_, err = agent.Enrol(context.Background(), agent.Enrolment{
		Broker: d.base, Code: code, Host: "desk", Executor: agent.ExecutorEcho, Secrets: secrets, Journal: j, Now: time.Now,
	})
	if err := j.Close(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	return d.runAgent(dir, secrets)
}

func (d *desk) runAgent(dir string, secrets agent.Secrets) error {
	exec := &executor{Executor: agent.NewEcho(time.Now)}
	var a *agent.Agent
	var failed error
	err := d.wait(func() bool { // a program that another story forks just now holds the journal's lock until it execs
		a, failed = agent.New(context.Background(), agent.Config{
			StateDir: dir, Secrets: secrets, Machine: "machine", Version: "test", Now: time.Now,
			Executor: func(agent.Seed) (agent.Executor, error) { return exec, nil },
		})
		return !errors.Is(failed, agent.ErrRunning)
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	d.stopAgent = sync.OnceFunc(func() {
		cancel()
		<-ended
		_ = a.Close()
	})
	d.client = agent.NewClient(dir)
	return d.wait(func() bool {
		s, err := d.client.Status(ctx)
		return err == nil && s.Pairings[0].Link.State == "connected"
	})
}

func (d *desk) wait(ok func() bool) error {
	for end := time.After(patience); !ok(); {
		select {
		case <-end:
			return fmt.Errorf("it did not come in time")
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// desks are those of the stories that run.
var desks sync.Map // *testscript.TestScript -> *desk

func deskOf(ts *testscript.TestScript) *desk {
	d, ok := desks.Load(ts)
	if !ok {
		ts.Fatalf("begin with `desk`")
	}
	return d.(*desk)
}

// deskCommand: "desk" starts broker and desktop and sets $BROKER; "desk off" ends the desktop's agent, "desk down" the
// broker too.
func deskCommand(ts *testscript.TestScript, _ bool, args []string) {
	switch strings.Join(args, " ") {
	case "off":
		deskOf(ts).stopAgent()
		return
	case "down":
		deskOf(ts).stop()
		return
	}
	dir, err := os.MkdirTemp("", "odp")
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	d, err := startDesk(dir)
	if d != nil {
		ts.Defer(d.stop)
	}
	ts.Check(err)
	desks.Store(ts, d)
	ts.Setenv("BROKER", d.base)
}

// ticketCommand: "ticket MODE SCOPE FILE" begins a linking at the desktop and writes what it shows.
func ticketCommand(ts *testscript.TestScript, _ bool, args []string) {
	ticket, err := deskOf(ts).client.LinkStart(context.Background(), "", args[0], args[1] == "decide")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(ticket.Link+ticket.Code+"\n"), 0o600))
}

// linkCommand: "link FILE [ARGS]" runs `surface link`, with FILE on standard input ("-") or by name, and is the person
// at both ends. With "!" the person types a wrong finish code.
func linkCommandOf(ts *testscript.TestScript, neg bool, args []string) {
	d := deskOf(ts)
	secret, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	path := filepath.Join(strings.Split(ts.Getenv("PATH"), string(filepath.ListSeparator))[0], "surface")
	cmd := exec.Command(path, append([]string{"link"}, args[1:]...)...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), environ(ts)
	in, err := cmd.StdinPipe()
	ts.Check(err)
	errs, err := cmd.StderrPipe()
	ts.Check(err)
	out, err := os.Create(ts.MkAbs("link.out"))
	ts.Check(err)
	cmd.Stdout = out
	ts.Check(cmd.Start())
	if strings.Contains(" "+strings.Join(args[1:], " ")+" ", " - ") {
		_, err = in.Write(secret)
		ts.Check(err)
	}
	lines := bufio.NewScanner(errs)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		if digits, ok := strings.CutPrefix(lines.Text(), "Type these digits into the desktop:"); ok {
			ts.Check(d.client.LinkDigits(context.Background(), "", strings.TrimSpace(digits)))
			ts.Check(d.finish(in, neg))
		}
	}
	err = cmd.Wait()
	ts.Check(os.WriteFile(ts.MkAbs("link.err"), []byte(strings.Join(said, "\n")), 0o600))
	if (err != nil) != neg {
		ts.Fatalf("surface link: %v\n%s", err, strings.Join(said, "\n"))
	}
}

// finish types the finish code that the desktop shows, if it shows one.
func (d *desk) finish(in io.Writer, wrong bool) error {
	for after := 0; ; {
		events, err := d.client.LinkEvents(context.Background(), "", after, 10)
		if err != nil {
			return err
		}
		for _, e := range events {
			after = e.Seq
			if e.Type != agent.LinkConfirmed {
				continue
			}
			code := e.Finish
			if wrong {
				code = "x"
			}
			if e.Finish != "" {
				_, err = fmt.Fprintln(in, code)
			}
			return err
		}
	}
}

// watchStory: "watch TEXT [ARGS]" runs `surface watch ARGS` until a line has TEXT, then interrupts it. What it printed is
// in watch.out. It must end with exit code 0 or 130.
func watchStory(ts *testscript.TestScript, _ bool, args []string) {
	path := filepath.Join(strings.Split(ts.Getenv("PATH"), string(filepath.ListSeparator))[0], "surface")
	cmd := exec.Command(path, append([]string{"watch"}, args[1:]...)...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), environ(ts)
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	var all strings.Builder
	seen := false // a second interrupt would end the program at once
	for lines := bufio.NewScanner(out); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		if !seen && strings.Contains(lines.Text(), args[0]) {
			seen = true
			ts.Check(cmd.Process.Signal(os.Interrupt))
		}
	}
	err = cmd.Wait()
	ts.Check(os.WriteFile(ts.MkAbs("watch.out"), []byte(all.String()), 0o600))
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 130 {
		ts.Fatalf("surface watch: %v\n%s", err, all.String())
	}
}

func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "SURFACE_STATE", "SURFACE_LABEL", "XDG_CONFIG_HOME", "GORACE", "TMPDIR"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// fieldCommand: "field FILE PATH NAME" puts a field of JSON into $NAME.
func fieldCommand(ts *testscript.TestScript, _ bool, args []string) {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	for name := range strings.SplitSeq(args[1], ".") {
		if list, ok := v.([]any); ok {
			v = list[0]
		}
		m, ok := v.(map[string]any)
		if !ok {
			ts.Fatalf("%s has no %s", args[0], args[1])
		}
		v = m[name]
	}
	ts.Setenv(args[2], fmt.Sprint(v))
}

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"surface": main}) }
