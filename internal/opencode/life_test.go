//go:build opencode

package opencode

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// testSockets: the runtime and all that descends from it listen on 127.0.0.1 only, and
// only where Health says.
func testSockets(t *testing.T, d *desk) {
	h := d.Health(t.Context())
	u, err := url.Parse(h.Address)
	if err != nil || u.Hostname() != "127.0.0.1" || h.PID == 0 || h.Version == "" {
		t.Fatalf("health %+v", h)
	}
	cmdline := commandOf(h.PID)
	p, err := runFile{path: filepath.Join(d.opts.StateDir, "opencode.run")}.read()
	if err != nil || strings.Contains(cmdline, string(p.Password)) {
		t.Errorf("the password stands in the arguments, or %v", err)
	}
	want := fmt.Sprintf("0100007F:%04X", port(t, u.Port()))
	for _, pid := range descendants(h.PID, markerName+"="+p.Marker) {
		for _, address := range listening(t, pid) {
			if address != want {
				t.Errorf("process %d (%s) listens on %s", pid, commandOf(pid), address)
			}
		}
	}
	if got := listening(t, h.PID); len(got) != 1 {
		t.Errorf("OpenCode listens on %v, so this test sees nothing", got)
	}
	for _, name := range []string{"opencode.run", "opencode.log"} {
		st, err := os.Stat(filepath.Join(d.opts.StateDir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

func port(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// listening reads from /proc where a process listens (TCP) or is bound (UDP).
func listening(t *testing.T, pid int) (addresses []string) {
	t.Helper()
	mine := map[string]bool{}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil
	}
	for _, fd := range fds {
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err == nil {
			mine[strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			listens := len(f) > 9 && (f[3] == "0A" || (strings.HasPrefix(table, "udp") && f[3] == "07"))
			if listens && mine[f[9]] {
				addresses = append(addresses, f[1])
			}
		}
	}
	return addresses
}

// TestCut: what happens while the event stream is cut is reported after it.
func TestCut(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(t, dir)
	direct := startDesk(t, o)
	direct.create("", "warm")
	h := direct.Health(t.Context())
	r := newRelay(t, strings.TrimPrefix(h.Address, "http://"))
	p, err := runFile{path: filepath.Join(o.StateDir, "opencode.run")}.read()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte(string(p.Password)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	through := startDesk(t, Options{
		Mode: Attach, URL: "http://" + r.listener.Addr().String(), PasswordFile: file, Projects: o.Projects, Logger: o.Logger,
	})
	s := through.create("", "cut")
	running := through.send(s, "run: echo one")
	answered := through.asks(running)
	away := through.create("two", "away")

	r.cut()
	direct.must(wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: answered.ID, Allow: true})
	direct.ends(running, wire.OutcomeDone)
	unseen := direct.send(away, "say: nobody listens")
	direct.ends(unseen, wire.OutcomeDone)
	waits := direct.send(away, "run: echo two")
	opened := direct.asks(waits)
	born := direct.create("", "born in the dark")
	if n := len(through.all(func(ev wire.ExecEvent) bool { return ev.CommandRef == unseen })); n != 0 {
		t.Fatalf("%d events came through a cut relay", n)
	}
	r.mend()

	through.closes(answered.ID, wire.DecisionAllowed)
	through.ends(running, wire.OutcomeDone)
	through.ends(unseen, wire.OutcomeDone)
	through.await("text of the unseen turn", func(ev wire.ExecEvent) bool {
		return ev.Type == wire.ExecPart && ev.CommandRef == unseen && strings.Contains(string(ev.Data), "nobody listens") && ev.Role == "assistant"
	})
	if got := through.asks(waits); got.ID != opened.ID || string(got.Exact) != string(opened.Exact) {
		t.Errorf("opened %+v, want %+v", got, opened)
	}
	through.await("the session made meanwhile", func(ev wire.ExecEvent) bool {
		return ev.Type == wire.ExecSessionChanged && ev.SessionID == born
	})
	through.must(wire.ExecCommand{Kind: kindAllow, SessionID: away, RequestID: opened.ID})
	through.closes(opened.ID, wire.DecisionDenied)
	through.ends(waits, wire.OutcomeDone)
	through.stop()
	if !(&process{PID: p.PID, Start: p.Start}).alive() {
		t.Error("an attached OpenCode was ended")
	}
}

// TestKilled: OpenCode dies in the middle of turns. Nothing is sent again, everything
// that was open ends, its shells end with it, and exactly one comes back.
func TestKilled(t *testing.T) {
	d := startDesk(t, testOptions(t, t.TempDir()))
	s, waiting, idle := d.create("", "killed"), d.create("", "waiting"), d.create("", "idle")
	over := d.send(idle, "say: over before")
	d.ends(over, wire.OutcomeDone)
	running := d.send(s, "run: echo $$ > shell.pid; exec sleep 300")
	d.must(wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: d.asks(running).ID, Allow: true})
	asks := d.send(waiting, "run: echo never")
	r := d.asks(asks)
	shell := 0
	until(t, "the shell", func() bool {
		b, err := os.ReadFile(filepath.Join(d.opts.Projects[0].Dir, "shell.pid"))
		if err == nil {
			shell, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		return shell > 0
	})
	before := d.Health(t.Context())
	unsent := wire.ExecCommand{ID: chance(16), Kind: kindPrompt, Ref: d.Prepare(kindPrompt), SessionID: s, Text: "say: x", StartedAt: time.Now()}

	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.ends(running, wire.OutcomeInterrupted)
	d.ends(asks, wire.OutcomeInterrupted)
	d.closes(r.ID, wire.DecisionLost)
	down := d.await("down", func(ev wire.ExecEvent) bool {
		return ev.Type == wire.ExecRuntime && ev.Health.State == wire.RuntimeDown
	})
	if down.Health.Problem == "" || down.Health.PID != 0 {
		t.Errorf("down %+v", down.Health)
	}
	after := d.Health(t.Context())
	if after.State != wire.RuntimeReady || after.PID == before.PID || after.Restarts != 1 || after.Adopted {
		t.Errorf("after %+v", after)
	}
	if _, ok := startOf(shell); ok {
		t.Error("the shell of the dead runtime lives on")
	}
	d.refuses(wire.ExecNotPending, wire.ExecCommand{Kind: kindAllow, SessionID: waiting, RequestID: r.ID, Allow: true})
	decision := wire.ExecCommand{ID: chance(16), Kind: kindAllow, SessionID: waiting, RequestID: r.ID, Allow: true, Request: &r, StartedAt: time.Now()}
	if f, err := d.Find(t.Context(), decision); err != nil || f.State != wire.FoundUnknown || f.RetryAfter != 0 {
		t.Errorf("a decision across the death: %+v, %v", f, err)
	}
	if f, err := d.Find(t.Context(), unsent); err != nil || f.State != wire.FoundAbsent {
		t.Errorf("nothing sent to a dead runtime can arrive: %+v, %v", f, err)
	}
	if list := d.must(wire.ExecCommand{Kind: kindHistory, SessionID: waiting}).History.Messages; len(list) != 2 {
		t.Errorf("something was sent again: %d messages", len(list))
	}
	next := d.send(s, "say: goes on")
	d.ends(next, wire.OutcomeDone)
	d.ends(over, wire.OutcomeDone) // still once

	d.stop()
	if _, ok := startOf(after.PID); ok {
		t.Error("an orderly stop leaves OpenCode running")
	}
	if _, err := os.Stat(filepath.Join(d.opts.StateDir, "opencode.run")); err == nil {
		t.Error("an orderly stop leaves the run file")
	}
	if h := d.Health(context.Background()); h.State != wire.RuntimeStopped {
		t.Errorf("stopped %+v", h)
	}
}

// crashEnv makes this test binary an agent that starts a turn and waits to be killed.
const crashEnv = "OPENCODE_TEST_CRASH"

// crashingAgent runs an executor with the options in the environment, starts a slow turn
// and one that asks, says their refs on stdout and waits for its end.
func crashingAgent() {
	var o Options
	if err := json.Unmarshal([]byte(os.Getenv(crashEnv)), &o); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	o.Environ = os.Environ()
	e, err := New(o)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	go e.Run(context.Background(), func(wire.ExecEvent) {})
	for _, text := range []string{"slow: 40", "run: echo asked"} {
		r, err := e.Execute(context.Background(), wire.ExecCommand{ID: text, Kind: kindCreate})
		if err == nil {
			ref := e.Prepare(kindPrompt)
			_, err = e.Execute(context.Background(), wire.ExecCommand{ID: ref, Kind: kindPrompt, Ref: ref, SessionID: r.Session.ID, Text: text})
			fmt.Println("turn", r.Session.ID, ref)
		}
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	select {}
}

// crash runs an agent in a process of its own and kills it in the middle of two turns.
func crash(t *testing.T, o Options) []wire.ExecTurn {
	t.Helper()
	o.Logger = nil
	o.Environ = nil
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+string(b))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var turns []wire.ExecTurn
	for range 2 {
		var word, session, ref string
		if _, err := fmt.Fscanln(out, &word, &session, &ref); err != nil || word != "turn" {
			t.Fatalf("the agent said %q %q %q: %v", word, session, ref, err)
		}
		turns = append(turns, wire.ExecTurn{SessionID: session, Ref: ref})
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // killed
	left, err := runFile{path: filepath.Join(o.StateDir, "opencode.run")}.read()
	if err != nil || left == nil {
		t.Fatalf("the crash left %+v, %v", left, err)
	}
	t.Cleanup(left.end) // whatever the test makes of it
	return turns
}

// TestAdopt: an agent crashes, the next one takes its OpenCode over with all that runs.
func TestAdopt(t *testing.T) {
	o := testOptions(t, t.TempDir())
	file := runFile{path: filepath.Join(o.StateDir, "opencode.run")}
	o.Turns = crash(t, o)
	o.Since = time.Now()
	left, err := file.read()
	if err != nil || left == nil || !left.alive() {
		t.Fatalf("the crash left %+v, %v", left, err)
	}
	// As if the crash had been between the start and the run file: only the process
	// itself wrote its id down.
	early := *left
	early.PID, early.Start = 0, ""
	if err := file.write(&early); err != nil {
		t.Fatal(err)
	}
	d := startDesk(t, o)
	for _, turn := range o.Turns[:1] {
		end := d.await("end of the adopted turn", func(ev wire.ExecEvent) bool { return ev.Type == wire.ExecTurnEnded && ev.CommandRef == turn.Ref })
		if end.Outcome != wire.OutcomeDone {
			t.Errorf("adopted turn ended %q", end.Outcome)
		}
	}
	if h := d.Health(t.Context()); !h.Adopted || h.PID != left.PID || h.State != wire.RuntimeReady {
		t.Errorf("health %+v, want process %d", h, left.PID)
	}
	ref := o.Turns[1].Ref
	r := d.asks(ref)
	d.must(wire.ExecCommand{Kind: kindAllow, SessionID: o.Turns[1].SessionID, RequestID: r.ID, Allow: true})
	d.closes(r.ID, wire.DecisionAllowed)
	d.await("end of the turn that asked", func(ev wire.ExecEvent) bool {
		return ev.Type == wire.ExecTurnEnded && ev.CommandRef == ref && ev.Outcome == wire.OutcomeDone
	})
	f, err := d.Find(t.Context(), wire.ExecCommand{Kind: kindPrompt, Ref: ref, SessionID: o.Turns[1].SessionID})
	if err != nil || f.State != wire.FoundRan {
		t.Errorf("found %+v, %v", f, err)
	}
	d.stop()
	if left.alive() {
		t.Error("an adopted OpenCode was not ended by an orderly stop")
	}
}

// TestNotAdopted: one that does not answer is ended, and a process that merely has the
// id of the run file is left alone.
func TestNotAdopted(t *testing.T) {
	o := testOptions(t, t.TempDir())
	file := runFile{path: filepath.Join(o.StateDir, "opencode.run")}
	turns := crash(t, o)
	stuck, err := file.read()
	if err != nil || stuck == nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(stuck.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	o.Turns = turns
	d := startDesk(t, o)
	for _, turn := range turns {
		d.await("interrupted", func(ev wire.ExecEvent) bool {
			return ev.Type == wire.ExecTurnEnded && ev.CommandRef == turn.Ref && ev.Outcome == wire.OutcomeInterrupted
		})
	}
	h := d.Health(t.Context())
	if stuck.alive() || h.PID == stuck.PID || h.Adopted {
		t.Errorf("a stuck OpenCode was kept: %+v", h)
	}
	d.stop()

	stranger := exec.Command("sleep", "300")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stranger.Process.Kill()
		stranger.Wait()
	})
	reused := *stuck
	reused.PID = stranger.Process.Pid
	if err := file.write(&reused); err != nil {
		t.Fatal(err)
	}
	// In the user's own surroundings this time, which here are a folder as well.
	home := t.TempDir()
	o.Mode, o.Env = Own, append(o.Env, "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_STATE_HOME="+home, "XDG_CACHE_HOME="+home)
	d = startDesk(t, o)
	s := d.create("", "works")
	d.ends(d.send(s, "say: in my own home"), wire.OutcomeDone)
	if _, err := os.Stat(filepath.Join(home, "opencode")); err != nil {
		t.Errorf("OpenCode kept its sessions elsewhere: %v", err)
	}
	if _, ok := startOf(stranger.Process.Pid); !ok {
		t.Error("a process that only has the same id was killed")
	}
}
