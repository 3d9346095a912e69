package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a new pseudo terminal: what the person sees, and what the program has.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// A person who starts the first broker at a terminal gets a code; the second start makes none.
func TestFirstStartAtATerminalShowsACode(t *testing.T) {
	dir, err := os.MkdirTemp("", "odp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if screen := serveAtTerminal(t, dir); !strings.Contains(screen, "enrolment code  ") || !strings.Contains(screen, "/e#1.") {
		t.Errorf("no code on the screen:\n%s", screen)
	}
	if screen := serveAtTerminal(t, dir); strings.Contains(screen, "enrolment code") {
		t.Errorf("a second code on the screen:\n%s", screen)
	}
}

// serveAtTerminal starts the program, reads what it shows until it is ready, and ends it.
func serveAtTerminal(t *testing.T, dir string) string {
	t.Helper()
	person, program := openTerminal(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Args = []string{"broker", "--state", dir, "serve", "--listen", "127.0.0.1:0"} // by this name it is the program
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+dir, "GORACE=atexit_sleep_ms=0")
	cmd.Stdin, cmd.Stdout = program, program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = person.SetReadDeadline(time.Now().Add(patience))
	var screen strings.Builder
	for lines := bufio.NewScanner(person); lines.Scan(); {
		screen.WriteString(lines.Text() + "\n")
		if strings.TrimSpace(lines.Text()) == "ready" {
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("%v; on the screen: %s", err, screen.String())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("it ended with %v; on the screen: %s", err, screen.String())
	}
	return screen.String()
}
