//go:build unix

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Lab is one broker, desktops and surfaces on this machine.
type Lab struct {
	Bin  string    // folder of the built programs
	Dir  string    // scratch folder; short, since unix sockets lie in it
	Tee  io.Writer // gets what servers print; may be nil
	Env  []string  // added to every program's environment
	Addr string    // host:port of the broker, kept over restarts

	mu    sync.Mutex
	procs []*Proc
}

// StartTime is how long a program may take to be ready on a busy machine.
const StartTime = 90 * time.Second

// New makes a lab in a new folder under /tmp.
func New(bin string) (*Lab, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(bin, "broker")); err != nil {
		return nil, fmt.Errorf("the programs are not built in %s: %w", bin, err)
	}
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	return &Lab{Bin: bin, Dir: dir, Addr: addr}, err
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Close ends what still runs, by pid, and removes the folder. What a killed program left behind ends too.
func (l *Lab) Close() error {
	l.mu.Lock()
	procs := l.procs
	l.procs = nil
	l.mu.Unlock()
	var out error
	for i := len(procs) - 1; i >= 0; i-- {
		select {
		case <-procs[i].Done():
		default:
			out = errors.Join(out, procs[i].Stop(20*time.Second))
		}
	}
	l.endStrays()
	return errors.Join(out, os.RemoveAll(l.Dir))
}

// env is the whole environment of a program: nothing of this process's leaks in but PATH and HOME.
func (l *Lab) env(extra ...string) []string {
	base := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.Home(), "LANG=C.UTF-8", "TMPDIR=" + os.TempDir()}
	return append(append(base, l.Env...), extra...)
}

// Home is the home folder of everyone in the lab.
func (l *Lab) Home() string {
	home := filepath.Join(l.Dir, "home")
	_ = os.MkdirAll(home, 0o700) // a failure shows at the first use
	return home
}

// clock is the file with the offset of a program's clock; only the chaos programs read it.
func (l *Lab) clock(program string) string { return filepath.Join(l.Dir, "clock-"+program) }

// Shift sets the clock of the running and coming processes of a program off, for example by "-1h".
func (l *Lab) Shift(program, offset string) error {
	next := l.clock(program) + ".next"
	if err := os.WriteFile(next, []byte(offset), 0o600); err != nil {
		return err
	}
	return os.Rename(next, l.clock(program))
}

// Start runs a program of the lab in the background.
func (l *Lab) Start(name string, args ...string) (*Proc, error) {
	return l.StartAt(filepath.Join(l.Bin, name), args...)
}

// StartAt runs the program at path in the background, in the lab's environment.
func (l *Lab) StartAt(path string, args ...string) (*Proc, error) {
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Dir = l.env("ODP_CHAOS_CLOCK_FILE="+l.clock(filepath.Base(path))), l.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for whoever runs the lab, which then stops them in order
	p, err := start(filepath.Base(path), cmd, l.Tee)
	if err != nil {
		return nil, err
	}
	l.keep(p)
	return p, nil
}

// keep remembers a process for Close.
func (l *Lab) keep(p *Proc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.procs = append(l.procs, p)
}

// Result is what a program that ran to its end said.
type Result struct {
	Code   int
	Stdout string
	Stderr string
}

// Run runs a program to its end.
func (l *Lab) Run(ctx context.Context, stdin, name string, args ...string) (Result, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(l.Bin, name), args...)
	cmd.Env, cmd.Dir, cmd.Stdin = l.env("ODP_CHAOS_CLOCK_FILE="+l.clock(name)), l.Dir, strings.NewReader(stdin)
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: errs.String()}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.Code = exit.ExitCode()
		return r, ctx.Err()
	}
	return r, err
}

// Must is Run for what has to succeed.
func (l *Lab) Must(ctx context.Context, stdin, name string, args ...string) (string, error) {
	r, err := l.Run(ctx, stdin, name, args...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%s %s: exit %d\n%s%s", name, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout, err
}

// JSON runs a command with --json and decodes what it prints.
func (l *Lab) JSON(ctx context.Context, stdin string, v any, name string, args ...string) error {
	out, err := l.Must(ctx, stdin, name, append(args, "--json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

// URL is the broker's address.
func (l *Lab) URL() string { return "http://" + l.Addr }

// BrokerDir is the broker's state folder.
func (l *Lab) BrokerDir() string { return filepath.Join(l.Dir, "b") }

// StartBroker starts the broker and waits until it answers.
func (l *Lab) StartBroker(args ...string) (*Proc, error) {
	all := append([]string{"--state", l.BrokerDir(), "serve", "--listen", l.Addr}, args...)
	p, err := l.Start("broker", all...)
	if err != nil {
		return nil, err
	}
	return p, l.awaitDial(p)
}

// awaitDial waits until the broker takes connections.
func (l *Lab) awaitDial(p *Proc) error {
	deadline := time.Now().Add(StartTime)
	for {
		if c, err := net.DialTimeout("tcp", l.Addr, time.Second); err == nil {
			return c.Close()
		}
		select {
		case <-p.Done():
			return fmt.Errorf("the broker ended (exit %d):\n%s", p.Code(), tail(p.Output()))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the broker does not answer:\n%s", tail(p.Output()))
		}
	}
}

// Code issues an enrolment code.
func (l *Lab) Code(ctx context.Context) (string, error) {
	var issued struct {
		Text string `json:"text"`
	}
	err := l.JSON(ctx, "", &issued, "broker", "--state", l.BrokerDir(), "codes", "issue")
	return issued.Text, err
}
