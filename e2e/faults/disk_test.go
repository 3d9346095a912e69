//go:build faults

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFullDisk: a broker whose disk is full says so, loses nothing that it acknowledged, and goes on when there is room.
func TestFullDisk(t *testing.T) {
	needs(t, "mount", "umount")
	w := newLab(t)
	check(t, os.MkdirAll(w.BrokerDir(), 0o700))
	do(t, "mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", w.BrokerDir())
	undo(t, "umount", "-l", w.BrokerDir())
	w.start("")
	before := w.lines("command.started")
	check(t, w.agent.Stop(20*time.Second)) // so that what is sent stays in the store
	long := strings.Repeat("x", 100_000)
	kept := 0
	full := ""
	for i := range 60 {
		r, err := w.phone.Run(w.ctx, "prompt", "--no-wait", "--json", "--session", w.session, fmt.Sprintf("%d %s", i, long))
		check(t, err)
		if r.Code != 0 {
			full = r.Stderr
			break
		}
		kept++
	}
	if full == "" || kept == 0 || !strings.Contains(full, "full") {
		t.Fatalf("after %d prompts on 3 MB the surface is told %q", kept, full)
	}
	select {
	case <-w.broker.Done():
		t.Fatalf("the broker has ended: %s", w.broker.Output())
	default:
	}
	do(t, "mount", "-o", "remount,size=64m", w.BrokerDir())
	var err error
	w.agent, err = w.desktop.Start(w.ctx)
	check(t, err)
	w.await("everything that was taken", time.Minute, func() bool { return w.lines("command.started") >= before+kept })
	w.session = "" // an echo remembers only as long as it lives
	w.prompt("after all that")
}

// failAfter traces a program so that each fsync after the first n of it fails, as on a dying disk.
func failAfter(t *testing.T, pid, n int) (stop func()) {
	t.Helper()
	cmd := exec.Command("strace", "-f", "-qq", "-o", filepath.Join(t.TempDir(), "trace"), "-p", fmt.Sprint(pid),
		"-e", "trace=fsync,fdatasync", "-e", fmt.Sprintf("inject=fsync,fdatasync:error=EIO:when=%d+", n))
	check(t, cmd.Start())
	for traced := false; !traced; {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		check(t, err)
		traced = !strings.Contains(string(raw), "TracerPid:\t0\n")
		time.Sleep(20 * time.Millisecond)
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it has ended with the program that it traced
		_ = cmd.Wait()
	}
}

// TestFailingDisk: a program that cannot make anything durable stops and says why; the next one on the same folder has
// everything that was acknowledged, and runs nothing twice.
func TestFailingDisk(t *testing.T) {
	for _, who := range []string{"broker", "agent"} {
		t.Run(who, func(t *testing.T) {
			needs(t, "strace")
			w := newLab(t)
			w.start("")
			before := w.lines("command.started")
			victim := w.broker
			if who == "agent" {
				victim = w.agent
			}
			stop := failAfter(t, victim.PID(), 6)
			t.Cleanup(stop)
			acknowledged := 0
			for i := range 20 {
				r, err := w.phone.Run(w.ctx, "prompt", "--no-wait", "--json", "--session", w.session, fmt.Sprintf("sent %d", i))
				check(t, err)
				if r.Code != 0 {
					break
				}
				acknowledged++
			}
			select {
			case <-victim.Done():
			case <-time.After(30 * time.Second):
				t.Fatalf("it goes on without a disk:\n%s", victim.Output())
			}
			if code := victim.Code(); code == 0 || !strings.Contains(victim.Output(), "disk") {
				t.Errorf("it ended with exit %d and says:\n%s", code, victim.Output())
			}
			stop()
			w.restart(who)
			w.await("what was acknowledged", time.Minute, func() bool { return w.lines("command.started") >= before+acknowledged })
			w.session = "" // an echo remembers only as long as it lives
			w.prompt("after all that")
			if n := w.lines("command.started"); n > before+acknowledged+3 { // one that was posted and not answered may run; a session and a prompt came after
				t.Errorf("%d commands were started for %d that were acknowledged", n, acknowledged)
			}
		})
	}
}

func (w *world) restart(who string) {
	w.t.Helper()
	var err error
	if who == "broker" {
		w.broker, err = w.StartBroker()
		check(w.t, err)
		check(w.t, w.desktop.AwaitOnline(w.ctx, w.agent))
		return
	}
	w.agent, err = w.desktop.Start(w.ctx)
	check(w.t, err)
}
