package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/telemetry"
)

func statusCommand() *ucli.Command {
	return &ucli.Command{
		Name: "status", Usage: "show how the running agent is", Flags: []ucli.Flag{cli.JSONFlag()},
		Action: func(c *ucli.Context) error {
			if err := cli.WantArgs(c, 0, 0); err != nil {
				return err
			}
			cl, err := client(c)
			if err != nil {
				return err
			}
			s, err := cl.Status(c.Context)
			if err != nil {
				return fail(err)
			}
			return cli.Print(c, s, func(w io.Writer) error { _, err := io.WriteString(w, block(s)); return err })
		},
	}
}

// block is the status page: one line a fact, the next useful command last.
func block(s agent.Status) string {
	now := telemetry.Now()
	var b strings.Builder
	line := func(name, format string, a ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, cli.Clean(fmt.Sprintf(format, a...)))
	}
	line("agent", "%s, running since %s", s.Version, cli.Relative(now, s.Since))
	line("executor", "%s %s %s %s", s.Executor.Executor, s.Executor.Mode, s.Executor.Version, s.Executor.State)
	if s.Executor.Executor == executorEcho {
		line("", "echo answers each prompt with itself and runs nothing")
	}
	if s.Executor.Problem != "" {
		line("", "%s", s.Executor.Problem)
	}
	for _, p := range s.Executor.Projects {
		line("project", "%s = %s", p.Name, p.Dir)
		for _, l := range p.LoosenedBy {
			line("", "loosens permissions: %s", l)
		}
	}
	for _, at := range s.Listens {
		line("listens", "%s (this machine only)", at)
	}
	if s.Executor.Executor == executorOpenCode {
		line("network", "the agent dials its brokers only; what OpenCode dials is OpenCode's")
	}
	for _, p := range s.Pairings {
		pairingBlock(line, p, now)
	}
	if len(s.Pairings) == 0 {
		line("next", "desktop-agent enrol")
	}
	return b.String()
}

func pairingBlock(line func(name, format string, a ...any), p agent.PairingStatus, now time.Time) {
	line("pairing", "%s as %s (%s)", p.Broker, p.Host, p.ID)
	switch {
	case p.Revoked:
		line("", "revoked; enrol again to use it")
		return
	case p.Locked != "":
		line("", "locked: %s", p.Locked)
		line("next", "desktop-agent recover")
		return
	}
	line("link", "%s since %s", p.Link.State, cli.Relative(now, p.Link.Since))
	if p.Link.Problem != "" {
		line("", "%s", p.Link.Problem)
	}
	if !p.Link.NextTry.IsZero() {
		line("", "next try %s", cli.Relative(now, p.Link.NextTry))
	}
	line("devices", "%d linked; approvals %s, questions %s", p.Surfaces, p.Policy.Policy.RemoteApprovals, p.Policy.Policy.RemoteQuestions)
	line("work", "%d running, %d wait for you here, %d approvals open, %d results and %d events to send", p.Running, p.Waiting, p.Requests, p.Results, p.Events)
	switch {
	case p.Surfaces == 0:
		line("next", "desktop-agent link")
	case p.Waiting > 0:
		line("next", "desktop-agent pending")
	}
}
