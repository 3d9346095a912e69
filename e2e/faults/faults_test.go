//go:build faults

// Package faults breaks what the programs stand on: disks that are full or fail, networks that lose and stall. It needs
// Linux and root; elsewhere it says what it skips, and CI must not skip.
package faults

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/e2e/lab"
)

// testTime bounds one test on a busy machine.
const testTime = 2 * time.Minute

var echo = []string{"--executor", "echo"}

// needs skips where the kernel or the user cannot do what the test wants.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs Linux and root, to mount, trace and make networks")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: install it (on Debian: apt-get install strace iproute2 nftables)", tool)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// do runs a tool of the system.
func do(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// undo runs a tool at the test's end, also when the test has failed.
func undo(t *testing.T, name string, args ...string) {
	t.Helper()
	t.Cleanup(func() {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	})
}

// world is a broker, a desktop and a surface, which have worked once.
type world struct {
	*lab.Lab
	t       *testing.T
	ctx     context.Context
	broker  *lab.Proc
	agent   *lab.Proc
	desktop *lab.Desktop
	phone   *lab.Surface
	session string
}

func newLab(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	l, err := lab.New(filepath.Join("..", "..", "bin"))
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	return &world{Lab: l, t: t, ctx: ctx}
}

// start brings everything up; front is the address which desktop and surface use, empty for the broker's own.
func (w *world) start(front string) {
	w.t.Helper()
	var err error
	var flags []string
	if front != "" {
		flags = []string{"--page-origin", "http://" + front}
	}
	w.broker, err = w.StartBroker(flags...)
	check(w.t, err)
	if front != "" {
		w.Addr = front
	}
	w.desktop, err = w.Desktop("desk", echo...)
	check(w.t, err)
	check(w.t, w.desktop.Enrol(w.ctx))
	w.agent, err = w.desktop.Start(w.ctx)
	check(w.t, err)
	w.phone = w.Surface("phone")
	check(w.t, w.phone.Link(w.ctx, w.desktop, false))
	w.session = w.prompt("first").Session
}

// answer is what `surface prompt --json` prints.
type answer struct{ Command, State, Session, Text string }

// prompt sends a prompt that has to be answered.
func (w *world) prompt(text string) answer {
	w.t.Helper()
	args := []string{"prompt"}
	if w.session != "" {
		args = append(args, "--session", w.session)
	}
	var a answer
	check(w.t, w.phone.JSON(w.ctx, &a, append(args, text)...))
	if a.State != "completed" || a.Text != text {
		w.t.Fatalf("%q was answered with %+v", text, a)
	}
	return a
}

// await waits until something shows.
func (w *world) await(what string, within time.Duration, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) || w.ctx.Err() != nil {
			w.t.Fatalf("did not come: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// lines counts the lines of a type in the desktop's log.
func (w *world) lines(kind string) int {
	w.t.Helper()
	out, err := w.desktop.Must(w.ctx, "audit", "tail", "--json", "--limit", "1000")
	check(w.t, err)
	return strings.Count(out, `"type":"`+kind+`"`)
}
