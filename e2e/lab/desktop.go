//go:build unix

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/pkg/proof"
)

// Desktop is one desktop of the lab.
type Desktop struct {
	lab     *Lab
	Name    string
	Project string   // folder of its one project, called "app"
	Args    []string // of `run`, beside state and project
}

// Desktop makes a desktop; run arguments choose its executor.
func (l *Lab) Desktop(name string, args ...string) (*Desktop, error) {
	d := &Desktop{lab: l, Name: name, Project: filepath.Join(l.Dir, name+"-app"), Args: args}
	return d, os.MkdirAll(d.Project, 0o755)
}

// Dir is its state folder.
func (d *Desktop) Dir() string { return filepath.Join(d.lab.Dir, d.Name) }

func (d *Desktop) with(args ...string) []string { return append([]string{"--state", d.Dir()}, args...) }

// Enrol redeems a fresh code under the desktop's name.
func (d *Desktop) Enrol(ctx context.Context) error { return d.EnrolAs(ctx, d.Name) }

// EnrolAs is Enrol under another name.
func (d *Desktop) EnrolAs(ctx context.Context, host string) error {
	code, err := d.lab.Code(ctx)
	if err != nil {
		return err
	}
	_, err = d.lab.Must(ctx, code+"\n", "desktop-agent", d.with("enrol", "--broker", d.lab.URL(), "--host", host, "-")...)
	return err
}

// Label makes a name that the protocol takes of any text.
func Label(text string) string { return proof.CleanLabel(text) }

// Must runs a command of the agent that has to succeed.
func (d *Desktop) Must(ctx context.Context, args ...string) (string, error) {
	return d.lab.Must(ctx, "", "desktop-agent", d.with(args...)...)
}

// JSON runs a command of the agent with --json and decodes it.
func (d *Desktop) JSON(ctx context.Context, v any, args ...string) error {
	return d.lab.JSON(ctx, "", v, "desktop-agent", d.with(args...)...)
}

// Start runs the agent and waits until its tunnel is up.
func (d *Desktop) Start(ctx context.Context) (*Proc, error) {
	p, err := d.StartOnly()
	if err != nil {
		return nil, err
	}
	return p, d.AwaitOnline(ctx, p)
}

// StartOnly runs the agent and does not wait.
func (d *Desktop) StartOnly() (*Proc, error) {
	return d.lab.Start("desktop-agent", d.with(append([]string{"run", "--project", "app=" + d.Project}, d.Args...)...)...)
}

// Status is what `desktop-agent status --json` says.
type Status = agent.Status

// Status asks the running agent.
func (d *Desktop) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, d.JSON(ctx, &s, "status")
}

// AwaitOnline waits until the agent says that its tunnel is up and its executor is ready.
func (d *Desktop) AwaitOnline(ctx context.Context, p *Proc) error {
	deadline := time.Now().Add(StartTime)
	var last error
	var s Status
	for time.Now().Before(deadline) {
		if s, last = d.Status(ctx); last == nil && s.Executor.State == "ready" && len(s.Pairings) > 0 && s.Pairings[0].Link.State == "connected" {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("the agent ended (exit %d):\n%s", p.Code(), tail(p.Output()))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("the agent is not online: %+v %v\n%s", s, last, tail(p.Output()))
}

// Surface is one surface of the lab.
type Surface struct {
	lab  *Lab
	Name string
}

// Surface names a surface; Link makes it one.
func (l *Lab) Surface(name string) *Surface { return &Surface{lab: l, Name: name} }

// Dir is its state folder.
func (s *Surface) Dir() string { return filepath.Join(s.lab.Dir, "s-"+s.Name) }

func (s *Surface) with(args ...string) []string { return append([]string{"--state", s.Dir()}, args...) }

// Run runs a surface command to its end.
func (s *Surface) Run(ctx context.Context, args ...string) (Result, error) {
	return s.lab.Run(ctx, "", "surface", s.with(args...)...)
}

// Must is Run for what has to succeed.
func (s *Surface) Must(ctx context.Context, args ...string) (string, error) {
	return s.lab.Must(ctx, "", "surface", s.with(args...)...)
}

// JSON runs a command with --json and decodes it.
func (s *Surface) JSON(ctx context.Context, v any, args ...string) error {
	return s.lab.JSON(ctx, "", v, "surface", s.with(args...)...)
}

// Start runs a surface command in the background.
func (s *Surface) Start(args ...string) (*Proc, error) {
	return s.lab.Start("surface", s.with(args...)...)
}

// What the programs print when a device is linked.
const (
	linkText   = `(https?://\S+/p#1\.\S+)`
	digitsText = `Type these digits into the desktop:\s+([0-9]+) ([0-9]+)`
)

// Link links a surface by a link: the agent shows it, the surface joins, the digits go to the agent's prompt.
func (s *Surface) Link(ctx context.Context, d *Desktop, decide bool) error {
	_, _, err := s.LinkAloud(ctx, d, decide)
	return err
}

// LinkAloud is Link, and returns what the desktop and the surface said.
func (s *Surface) LinkAloud(ctx context.Context, d *Desktop, decide bool) (desk, phone string, err error) {
	question := "--no-decide"
	if decide {
		question = "--decide"
	}
	at, err := s.lab.Start("desktop-agent", d.with("link", question)...)
	if err != nil {
		return "", "", err
	}
	join, err := s.lab.Start("surface", s.with("link", "--label", s.Name, "-")...)
	if err != nil {
		return "", "", err
	}
	err = Introduce(at, join)
	return at.Output(), join.Output(), err
}

// Introduce lets a `desktop-agent link` and a `surface link` that were started find each other: the link goes to the surface,
// its digits to the desktop; both have to end well.
func Introduce(at, join *Proc) error {
	shown, err := at.Await(linkText, StartTime)
	if err != nil {
		return err
	}
	if err := join.Type(shown[1]); err != nil {
		return err
	}
	digits, err := join.Await(digitsText, StartTime)
	if err != nil {
		return err
	}
	if err := at.Type(strings.Join(digits[1:], "")); err != nil {
		return err
	}
	for _, p := range []*Proc{join, at} {
		if code := p.Code(); code != 0 {
			err = errors.Join(err, fmt.Errorf("linking: %s ended with exit %d\n%s", p.Name, code, tail(p.Output())))
		}
	}
	return err
}
