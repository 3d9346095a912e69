//go:build unix

// Package lab runs the built programs as processes, each with a state folder of its own, and speaks to them as people
// and scripts do: by arguments, standard input and output, files and sockets. The end-to-end tests, the demo and the
// benchmarks stand on it.
package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Proc is one program that was started and is ended by its pid.
type Proc struct {
	Name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer // standard output and error as they came
	err error
}

// start runs a program; what it prints is kept and, if tee is not nil, copied there.
func start(name string, cmd *exec.Cmd, tee io.Writer) (*Proc, error) {
	p := &Proc{Name: name, cmd: cmd, done: make(chan struct{})}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.in = in
	w := io.Writer(procWriter{p})
	if tee != nil {
		w = io.MultiWriter(w, tee)
	}
	cmd.Stdout, cmd.Stderr = w, w
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go p.wait()
	return p, nil
}

// wait collects the process at its end.
func (p *Proc) wait() {
	err := p.cmd.Wait()
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	close(p.done)
}

type procWriter struct{ p *Proc }

func (w procWriter) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.p.out.Write(b)
}

// PID is the process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Output is everything printed so far.
func (p *Proc) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// Type writes a line to standard input.
func (p *Proc) Type(line string) error {
	_, err := io.WriteString(p.in, line+"\n")
	return err
}

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Code is the exit code once it has ended; -1 for a signal.
func (p *Proc) Code() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Await waits until what was printed matches the expression, and returns its groups.
func (p *Proc) Await(expr string, within time.Duration) ([]string, error) {
	re := regexp.MustCompile(expr)
	deadline := time.Now().Add(within)
	for {
		if m := re.FindStringSubmatch(p.Output()); m != nil {
			return m, nil
		}
		select {
		case <-p.done:
			if m := re.FindStringSubmatch(p.Output()); m != nil {
				return m, nil
			}
			return nil, fmt.Errorf("%s ended (exit %d) before it printed %q:\n%s", p.Name, p.Code(), expr, tail(p.Output()))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s did not print %q within %s:\n%s", p.Name, expr, within, tail(p.Output()))
		}
	}
}

func tail(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// Kill ends the process at once, as a crash would.
func (p *Proc) Kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Stop asks the process to end and waits; one that does not end in time is killed, and that is an error.
func (p *Proc) Stop(within time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(within):
		return errors.Join(fmt.Errorf("%s did not end within %s:\n%s", p.Name, within, tail(p.Output())), p.Kill())
	}
}
