//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/pkg/wire"
)

// demo is one pass through the main job.
type demo struct {
	lab     *lab.Lab
	desktop *lab.Desktop
	phone   *lab.Surface
}

// drive does the whole main job through the built programs and prints what was said.
func drive(ctx context.Context) (err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	dir, err := bin()
	if err != nil {
		return err
	}
	l, err := lab.New(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	d := &demo{lab: l}
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"Start a broker, enrol a desktop, start its agent with a real OpenCode (and a scripted model)", d.start},
		{"Link a phone: the link goes one way, the digits come back the other", d.link},
		{"Send a prompt and stream the answer", d.prompt},
		{"A shell command needs an approval", d.approval},
		{"The coding agent asks a question", d.question},
		{"Abort a turn that takes too long", d.abort},
		{"Revoke the phone at the desktop", d.revoke},
	}
	for i, step := range steps {
		say("\n%d. %s", i+1, step.what)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	say("\ndone in %s: everything above went through the programs in bin/ over real sockets", time.Since(began).Round(time.Second))
	return nil
}

func (d *demo) start(ctx context.Context) error {
	opencode, err := openCode()
	if err != nil {
		return err
	}
	if err := scripted(d.lab); err != nil {
		return err
	}
	if _, err := d.lab.StartBroker(); err != nil {
		return err
	}
	if d.desktop, err = d.lab.Desktop("desk", "--opencode", "isolated", "--opencode-bin", opencode); err != nil {
		return err
	}
	if err := d.desktop.Enrol(ctx); err != nil {
		return err
	}
	if _, err := d.desktop.Start(ctx); err != nil {
		return err
	}
	out, err := d.desktop.Must(ctx, "status")
	fmt.Print(indent(out))
	return err
}

func (d *demo) link(ctx context.Context) error {
	d.phone = d.lab.Surface("phone")
	desk, phone, err := d.phone.LinkAloud(ctx, d.desktop, true)
	say("  the desktop (`desktop-agent link`) says:\n%s  the phone (`surface link`) says:\n%s", indent(desk), indent(phone))
	return err
}

// ask runs a surface command and shows both.
func (d *demo) ask(ctx context.Context, args ...string) (string, error) {
	say("  $ surface %s", strings.Join(quoted(args), " "))
	r, err := d.phone.Run(ctx, args...)
	fmt.Print(indent(r.Stderr + r.Stdout))
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("surface %s: exit %d", args[0], r.Code)
	}
	return r.Stdout, err
}

func quoted(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; strings.ContainsAny(a, " :") {
			out[i] = `"` + a + `"`
		}
	}
	return out
}

func (d *demo) prompt(ctx context.Context) error {
	out, err := d.ask(ctx, "prompt", "say: hello from the desktop")
	if err == nil && !strings.Contains(out, "hello from the desktop") {
		err = errors.New("the answer did not come")
	}
	return err
}

// begin sends a prompt in the background and waits for the request that comes of it.
func (d *demo) begin(ctx context.Context, text string) (*lab.Proc, string, error) {
	say("  $ surface prompt %q &", text)
	p, err := d.phone.Start("prompt", text)
	if err != nil {
		return nil, "", err
	}
	for {
		var open []wire.RequestSummary
		if err := d.phone.JSON(ctx, &open, "requests"); err != nil {
			return p, "", err
		}
		if len(open) > 0 {
			_, err := d.ask(ctx, "requests")
			return p, open[0].ID, err
		}
		select {
		case <-p.Done():
			return p, "", fmt.Errorf("the turn ended without asking:\n%s", p.Output())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// finish waits for the prompt in the background and shows what it said.
func (d *demo) finish(p *lab.Proc, want string) error {
	code := p.Code()
	say("  the prompt in the background says:\n%s", indent(p.Output()))
	if code != 0 || !strings.Contains(p.Output(), want) {
		return fmt.Errorf("exit %d, and %q was expected", code, want)
	}
	return nil
}

func (d *demo) approval(ctx context.Context) error {
	p, id, err := d.begin(ctx, "run: echo approved on $(uname)")
	if err != nil {
		return err
	}
	if _, err := d.ask(ctx, "approve", id); err != nil {
		return err
	}
	return d.finish(p, "approved on")
}

func (d *demo) question(ctx context.Context) error {
	p, id, err := d.begin(ctx, "ask: Ship it?")
	if err != nil {
		return err
	}
	if _, err := d.ask(ctx, "answer", id, "Yes"); err != nil {
		return err
	}
	return d.finish(p, "Yes")
}

func (d *demo) abort(ctx context.Context) error {
	say("  $ surface prompt \"slow: 30\" &")
	p, err := d.phone.Start("prompt", "slow: 30")
	if err != nil {
		return err
	}
	busy, err := d.busySession(ctx, p)
	if err != nil {
		return err
	}
	if _, err := d.ask(ctx, "abort", busy); err != nil {
		return err
	}
	code := p.Code()
	say("  the prompt in the background says:\n%s", indent(p.Output()))
	if code == 0 || !strings.Contains(p.Output(), "aborted") {
		return fmt.Errorf("exit %d, and an aborted turn was expected", code)
	}
	return nil
}

func (d *demo) busySession(ctx context.Context, p *lab.Proc) (string, error) {
	for {
		var all []wire.Session
		if err := d.phone.JSON(ctx, &all, "sessions"); err != nil {
			return "", err
		}
		for _, s := range all {
			if s.Turn != "" {
				return s.ID, nil
			}
		}
		select {
		case <-p.Done():
			return "", fmt.Errorf("the slow turn ended by itself:\n%s", p.Output())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (d *demo) revoke(ctx context.Context) error {
	var all []struct {
		ID string `json:"id"`
	}
	if err := d.desktop.JSON(ctx, &all, "surfaces", "list"); err != nil {
		return err
	}
	if len(all) != 1 {
		return fmt.Errorf("%d surfaces are linked", len(all))
	}
	say("  $ desktop-agent surfaces revoke %s", all[0].ID)
	if _, err := d.desktop.Must(ctx, "surfaces", "revoke", "--yes", all[0].ID); err != nil {
		return err
	}
	say("  $ surface sessions")
	r, err := d.phone.Run(ctx, "sessions")
	fmt.Print(indent(r.Stderr + r.Stdout))
	if err == nil && r.Code == 0 {
		err = errors.New("a revoked surface was served")
	}
	return err
}
