package opencode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

const (
	// startDeadline is generous: an overloaded machine took more than 48 s once.
	startDeadline = 90 * time.Second
	healthTry     = time.Second
	healthEvery   = 100 * time.Millisecond
	aliveEvery    = 300 * time.Millisecond
	// stopGrace is how long OpenCode has to end by itself.
	stopGrace = 5 * time.Second
	// Waits before a runtime that died is started again; a life of steadyAfter resets.
	restartFirst = time.Second
	restartLast  = 30 * time.Second
	steadyAfter  = time.Minute
	maxPassword  = 4 << 10
)

// supervise keeps a runtime until ctx ends.
func (e *Executor) supervise(ctx context.Context) error {
	defer e.runtime.set(wire.RuntimeStopped, "", nil, nil)
	wait := restartFirst
	for lives := 0; ctx.Err() == nil; lives++ {
		began := time.Now()
		problem := "the runtime ended"
		if err := e.live(ctx, lives); err != nil {
			problem = err.Error()
		}
		if ctx.Err() != nil {
			return nil
		}
		e.runtime.set(wire.RuntimeDown, problem, nil, nil)
		e.log.Warn("OpenCode is down, will start it again", "problem", problem, "wait", wait)
		if time.Since(began) > steadyAfter {
			wait = restartFirst
		}
		pause(ctx, nil, wait)
		wait = min(2*wait, restartLast)
	}
	return nil
}

// live is one life of the runtime: adopted, started or attached, until it or ctx ends.
func (e *Executor) live(ctx context.Context, lives int) error {
	e.runtime.set(wire.RuntimeStarting, "", nil, func(h *wire.ExecHealth) { h.Restarts = lives })
	if e.opts.Mode == Attach {
		return e.attached(ctx)
	}
	if err := os.MkdirAll(e.opts.StateDir, 0o700); err != nil {
		return err
	}
	file := runFile{path: filepath.Join(e.opts.StateDir, "opencode.run")}
	p, version, err := e.adopt(ctx, file)
	if err != nil {
		return err
	}
	adopted := p != nil
	if !adopted {
		if p, version, err = e.start(ctx, file); err != nil {
			return err
		}
	}
	ep := &endpoint{client: newClient(p.base(), p.Password), started: p.Started}
	e.runtime.set(wire.RuntimeReady, "", ep, func(h *wire.ExecHealth) {
		h.PID, h.Version, h.Adopted = p.PID, version, adopted
	})
	e.log.Info("OpenCode serves", "address", p.base(), "pid", p.PID, "version", version, "adopted", adopted)
	ended := p.wait(ctx)
	p.end()
	if err := file.remove(); err != nil {
		e.log.Warn("the run file stays", "error", err)
	}
	if ended {
		return errors.New("OpenCode ended by itself")
	}
	return nil
}

// attached follows an OpenCode of someone else, which may come and go.
func (e *Executor) attached(ctx context.Context) error {
	base, err := attachURL(e.opts.URL)
	if err != nil {
		return err
	}
	password, err := readPassword(e.opts.PasswordFile)
	if err != nil {
		return err
	}
	c := newClient(base, password)
	version, err := awaitHealth(ctx, c, startDeadline, nil)
	if err != nil {
		return err
	}
	e.runtime.set(wire.RuntimeReady, "", &endpoint{client: c}, func(h *wire.ExecHealth) { h.Version = version })
	for failures := 0; failures < 10; {
		pause(ctx, nil, 10*aliveEvery)
		if ctx.Err() != nil {
			return nil
		}
		failures++
		if _, err := c.health(ctx, healthTry); err == nil {
			failures = 0
		}
	}
	return errors.New("the OpenCode to attach to does not answer")
}

// readPassword reads the first line of a file; no file means no password.
func readPassword(path string) (secret, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := readAll(f, maxPassword)
	line, _, _ := strings.Cut(string(b), "\n")
	return secret(strings.TrimSpace(line)), err
}

// awaitHealth polls with short tries until the runtime serves; gone, when not nil, says
// that waiting is in vain.
func awaitHealth(ctx context.Context, c *client, deadline time.Duration, gone func() bool) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for {
		if version, err = c.health(ctx, healthTry); err == nil {
			return version, nil
		}
		if gone != nil && gone() {
			return "", errors.New("OpenCode ended while it started")
		}
		var r *refusal
		if errors.As(err, &r) && r.Status == 401 {
			return "", errors.New("OpenCode refused the password")
		}
		pause(ctx, nil, healthEvery)
		if ctx.Err() != nil {
			return "", fmt.Errorf("OpenCode did not answer within %v", deadline)
		}
	}
}

// adopt takes over the runtime that an earlier agent left: its process must be the one
// that the run file names and must answer. One that does not answer is ended. nil means
// that there is nothing to adopt.
func (e *Executor) adopt(ctx context.Context, file runFile) (*process, string, error) {
	p, err := file.read()
	if err != nil {
		e.log.Warn("the run file is not understood and is put aside", "error", err)
		return nil, "", file.remove()
	}
	if p == nil {
		return nil, "", nil
	}
	if !p.identify() {
		p.sweep()
		return nil, "", file.remove()
	}
	version, err := awaitHealth(ctx, newClient(p.base(), p.Password), 10*healthTry, func() bool { return !p.alive() })
	if err == nil && p.Mode == e.opts.Mode {
		return p, version, nil
	}
	if ctx.Err() != nil {
		return nil, "", ctx.Err()
	}
	e.log.Warn("the OpenCode of an earlier run cannot be taken over and is ended", "pid", p.PID, "error", err)
	p.end()
	return nil, "", file.remove()
}

// start starts OpenCode and waits until it serves.
func (e *Executor) start(ctx context.Context, file runFile) (*process, string, error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	p := &process{Mode: e.opts.Mode, Port: port, Password: secret(chance(32)), Marker: chance(24), Started: time.Now()}
	if err := file.write(p); err != nil {
		return nil, "", err
	}
	logFile, err := os.OpenFile(filepath.Join(e.opts.StateDir, "opencode.log"), os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, "", err
	}
	defer logFile.Close()
	cmd := detachedCommand(file.pidPath(), e.opts.Binary, []string{"serve", "--hostname", "127.0.0.1", "--port", strconv.Itoa(port)})
	cmd.Dir = e.opts.Projects[0].Dir
	if cmd.Env, err = e.environ(p); err != nil {
		return nil, "", err
	}
	// A file and no pipe: OpenCode must be able to outlive this program.
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("OpenCode cannot be started: %w", err)
	}
	p.own(cmd)
	if err := file.write(p); err != nil {
		p.end()
		return nil, "", err
	}
	version, err := awaitServing(ctx, p, logFile.Name())
	if err != nil {
		p.end()
		return nil, "", errors.Join(err, file.remove())
	}
	return p, version, nil
}

// awaitServing waits for the line that says where it listens, then for health: before the
// line the socket may accept and never answer.
func awaitServing(ctx context.Context, p *process, logPath string) (string, error) {
	deadline := time.Now().Add(startDeadline)
	for !said(logPath, "listening on "+p.base()) {
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case !p.alive():
			return "", fmt.Errorf("OpenCode ended while it started; it said: %s", lastLine(logPath))
		case time.Now().After(deadline):
			return "", fmt.Errorf("OpenCode did not listen within %v", startDeadline)
		}
		pause(ctx, nil, healthEvery/2)
	}
	return awaitHealth(ctx, newClient(p.base(), p.Password), time.Until(deadline), func() bool { return !p.alive() })
}
