package lab

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Shell runs a line of sh in the background, at a terminal of its own, as a person would have typed it there. What is
// typed with Type is what that person types.
func (l *Lab) Shell(line string) (*Proc, error) {
	person, program, err := OpenTerminal()
	if err != nil {
		return nil, err
	}
	defer func() { _ = program.Close() }() // the process has its own
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Env, cmd.Dir = l.env("TERM=xterm"), l.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %q: %w", line, err)
	}
	p := &Proc{Name: line, cmd: cmd, in: person, done: make(chan struct{})}
	go func() {
		_, _ = io.Copy(procWriter{p}, person) // ends with an error when the last program has left the terminal
		p.wait()
		_ = person.Close()
	}()
	l.keep(p)
	return p, nil
}

// OpenTerminal returns both ends of a new pseudo terminal: what a person types into and sees, and what a program has.
func OpenTerminal() (person, program *os.File, err error) {
	if person, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	var n int
	if err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err == nil {
		n, err = unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		_ = person.Close()
	}
	return person, program, err
}
