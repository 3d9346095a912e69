//go:build linux

package opencode

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// started runs a shell script as a supervised process would run.
func started(t *testing.T, script string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{Mode: Own, Port: 1, Password: "pw", Marker: chance(24)}
	cmd := detachedCommand(filepath.Join(dir, "pid"), "/bin/sh", []string{"-c", script, "sh", "--port", "1"})
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), markerName+"="+p.Marker)
	p.pidFile = filepath.Join(dir, "pid")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, 6)
	if _, err := out.Read(ready); err != nil || string(ready) != "ready\n" {
		t.Fatalf("script said %q, %v", ready, err)
	}
	p.own(cmd)
	t.Cleanup(p.end)
	return p
}

// TestEndFamily: a shell in a session of its own, and one that ignores SIGTERM, end with
// the process; so they do when it is already gone.
func TestEndFamily(t *testing.T) {
	for _, dead := range []bool{false, true} {
		p := started(t, `setsid sleep 300 & setsid sh -c 'trap "" TERM; echo ready; sleep 300; sleep 300' & wait`)
		kin := p.family()
		if len(kin) < 2 {
			t.Fatalf("family %+v", kin)
		}
		if dead {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if !p.wait(t.Context()) {
				t.Fatal("a killed process does not end")
			}
		}
		p.end()
		p.end() // twice is safe
		if p.alive() {
			t.Error("it lives")
		}
		if left := p.family(); len(left) > 0 {
			for _, k := range left {
				if start, ok := startOf(k.pid); ok && start == k.start {
					t.Errorf("dead=%v: %d %s lives", dead, k.pid, commandOf(k.pid))
				}
			}
		}
	}
}

// TestStranger: a process with the same id and another start is not ours.
func TestStranger(t *testing.T) {
	p := started(t, `echo ready; exec sleep 300`)
	other := &process{PID: p.PID, Start: p.Start + "1", Marker: "none"}
	if other.alive() || other.identify() {
		t.Error("a reused id counts as ours")
	}
	other.end()
	if !p.alive() {
		t.Error("a stranger was ended")
	}
}

// TestIdentify: only the pid file is there, since the agent died right after the start.
func TestIdentify(t *testing.T) {
	p := started(t, `echo ready; sleep 300`)
	left := &process{Port: 1, pidFile: p.pidFile}
	if !left.identify() || left.PID != p.PID || left.Start != p.Start {
		t.Errorf("identified %+v, want %+v", left, p)
	}
	if (&process{Port: 2, pidFile: p.pidFile}).identify() {
		t.Error("a process with another port counts as ours")
	}
	if (&process{Port: 1, pidFile: p.pidFile + "x"}).identify() {
		t.Error("a missing pid file counts as ours")
	}
	if err := os.WriteFile(p.pidFile, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if (&process{Port: 1, pidFile: p.pidFile}).identify() {
		t.Error("process 1 counts as ours")
	}
}

func TestStartOf(t *testing.T) {
	a, ok := startOf(os.Getpid())
	if b, _ := startOf(os.Getpid()); !ok || a == "" || a != b {
		t.Errorf("start of this process %q, then %q", a, b)
	}
	if _, ok := startOf(1 << 30); ok {
		t.Error("a process that is not there has a start")
	}
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(5 * time.Second); ; {
		if _, ok := startOf(zombie.Process.Pid); !ok {
			break
		}
		select {
		case <-deadline:
			t.Fatal("a zombie counts as running")
		case <-time.After(5 * time.Millisecond):
		}
	}
	zombie.Wait()
}

func TestRunFile(t *testing.T) {
	f := runFile{path: filepath.Join(t.TempDir(), "opencode.run")}
	if p, err := f.read(); p != nil || err != nil {
		t.Errorf("without a file: %+v, %v", p, err)
	}
	want := &process{PID: 7, Start: "s", Started: time.Now().Round(0).UTC(), Mode: Own, Port: 4, Password: "pw", Marker: "m"}
	if err := f.write(want); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(f.path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	got, err := f.read()
	if err != nil || got.PID != 7 || got.Start != "s" || got.Password != "pw" || got.Port != 4 || got.Marker != "m" || !got.Started.Equal(want.Started) {
		t.Errorf("read %+v, %v", got, err)
	}
	for _, bad := range []string{
		"", "{", "null", `{"port":0,"marker":"m"}`, `{"port":70000,"marker":"m"}`, `{"port":1}`, `{"pid":-1,"port":1,"marker":"m"}`,
		`{"pid":1,"port":1,"marker":"` + strings.Repeat("m", maxRunFile) + `"}`,
	} {
		if err := os.WriteFile(f.path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := f.read(); err == nil {
			t.Errorf("%.40q reads as %+v", bad, p)
		}
	}
	if err := f.remove(); err != nil {
		t.Error(err)
	}
	if err := f.remove(); err != nil {
		t.Errorf("removing twice: %v", err)
	}
}

// TestStartFails: a binary that ends at once is reported with what it said, tried again,
// and leaves nothing.
func TestStartFails(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "fake-opencode")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\necho cannot load config\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{Mode: Own, Binary: binary, StateDir: filepath.Join(dir, "state"), Projects: []wire.ExecProject{{Name: "p", Dir: dir}}, Environ: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var once sync.Once
	down := make(chan wire.ExecHealth, 1)
	done := make(chan error, 1)
	go func() {
		done <- e.Run(ctx, func(ev wire.ExecEvent) {
			if ev.Type == wire.ExecRuntime && ev.Health.State == wire.RuntimeDown {
				once.Do(func() { down <- *ev.Health })
			}
		})
	}()
	h := <-down
	if !strings.Contains(h.Problem, "cannot load config") {
		t.Errorf("problem %q", h.Problem)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if p, err := (runFile{path: filepath.Join(dir, "state", "opencode.run")}).read(); p != nil || err != nil {
		t.Errorf("left %+v, %v", p, err)
	}
	if h := e.Health(t.Context()); h.State != wire.RuntimeStopped || h.PID != 0 {
		t.Errorf("health %+v", h)
	}
}
