//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/term"

	"cowork.example.com/broker/e2e/lab"
)

// run starts everything, shows a link, and stays until it is interrupted.
func run(ctx context.Context) (err error) {
	dir, err := bin()
	if err != nil {
		return err
	}
	l, err := lab.New(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	args, err := provider(l)
	if err != nil {
		return err
	}
	say("starting the broker at %s", l.URL())
	if _, err := l.StartBroker(); err != nil {
		return err
	}
	host, _ := os.Hostname()
	d, err := l.Desktop("desk", args...)
	if err != nil {
		return err
	}
	say("enrolling this desktop, starting its agent and OpenCode (a few seconds)")
	if err := d.EnrolAs(ctx, lab.Label(host)); err != nil {
		return err
	}
	if _, err := d.Start(ctx); err != nil {
		return err
	}
	say("everything runs; its state is in %s and is removed at the end\n", l.Dir)
	if err := link(ctx, l, d); err != nil {
		return err
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		say("there is no terminal here at which digits could be typed: stopping")
		return nil
	}
	say("\nrunning until you press Ctrl-C. More devices: bin/desktop-agent --state %s link", d.Dir())
	<-ctx.Done()
	return nil
}

// provider chooses between the user's own OpenCode and the scripted model, and says which.
func provider(l *lab.Lab) ([]string, error) {
	opencode, err := openCode()
	if err != nil {
		return nil, err
	}
	if found := ownProvider(); found != "" {
		say("using your own OpenCode configuration (%s)", found)
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		l.Env = append(os.Environ(), "HOME="+home)
		return []string{"--opencode", "own", "--opencode-bin", opencode}, nil
	}
	say("you have no OpenCode provider configured: a small scripted model answers instead. Try \"say: hello\", \"run: date\" or \"ask: Really?\"")
	return []string{"--opencode", "isolated", "--opencode-bin", opencode}, scripted(l)
}

// ownProvider names what shows that the user has a provider; empty when nothing does.
func ownProvider() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	for _, name := range []string{".local/share/opencode/auth.json", ".config/opencode/opencode.json", ".config/opencode/opencode.jsonc"} {
		if info, err := os.Stat(filepath.Join(home, name)); err == nil && info.Size() > 4 {
			return "~/" + name
		}
	}
	for _, name := range []string{"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "OPENCODE_CONFIG"} {
		if os.Getenv(name) != "" {
			return "$" + name
		}
	}
	return ""
}

// link shows the QR code at this terminal and takes the digits there.
func link(ctx context.Context, l *lab.Lab, d *lab.Desktop) error {
	say("The link below works on this machine: give it to `bin/surface link` in a second terminal. A phone needs the broker on a\n" +
		"public https name: run `broker serve` on a server (README, \"Use it for real\") and enrol this desktop there.\n")
	cmd := exec.CommandContext(ctx, filepath.Join(l.Bin, "desktop-agent"), "--state", d.Dir(), "link", "--qr")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		cmd.Args = append(cmd.Args, "--no-decide", "--show-only")
	}
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "no device was linked; the desktop goes on running")
		return nil
	}
	return err
}
