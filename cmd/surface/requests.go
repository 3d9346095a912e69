package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

func requestsCommand() *ucli.Command {
	return &ucli.Command{
		Name: "requests", Usage: "show the approvals and questions that wait, oldest first", Flags: []ucli.Flag{cli.JSONFlag()},
		Action: func(c *ucli.Context) error {
			if err := cli.WantArgs(c, 0, 0); err != nil {
				return err
			}
			s, err := open(c)
			if err != nil {
				return fail(err)
			}
			all, err := s.Requests(c.Context)
			if err != nil {
				return fail(err)
			}
			return cli.Print(c, forJSON(all), func(w io.Writer) error { return writeRequests(w, all) })
		},
	}
}

// jsonRequest is one request of `requests --json`.
type jsonRequest struct {
	wire.RequestSummary
	Full   *wire.Request `json:"full,omitempty"`
	SHA256 string        `json:"sha256,omitempty"`
}

func forJSON(all []surface.Request) []jsonRequest {
	out := make([]jsonRequest, len(all))
	for i, r := range all {
		out[i] = jsonRequest{RequestSummary: r.RequestSummary, Full: r.Full}
		if r.Full != nil {
			out[i].SHA256 = r.Digest.String()
		}
	}
	return out
}

func writeRequests(w io.Writer, all []surface.Request) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "nothing waits for you")
		return err
	}
	var out error
	for _, r := range all {
		_, err := fmt.Fprintf(w, "%s  asked %s\n%s\n\n", cli.Clean(r.ID), cli.Relative(telemetry.Now(), time.UnixMilli(r.Asked)), clean(describe(r)))
		out = errors.Join(out, err)
	}
	return out
}

// describe is the exact text of a request, or what little is known of it.
func describe(r surface.Request) string {
	if r.Full == nil {
		return "  " + r.Kind + " " + r.Action + " (this surface is not shown what it asks)"
	}
	var lines []string
	add := func(name, value string) {
		if value != "" {
			lines = append(lines, "  "+name+": "+strings.ReplaceAll(value, "\n", "\n    "))
		}
	}
	add("wants", r.Full.Action)
	add("project", r.Full.Project)
	add("command", r.Full.Command)
	add("file", r.Full.Path)
	add("url", r.Full.URL)
	add("diff", r.Full.Diff)
	add("patterns", strings.Join(r.Full.Patterns, ", "))
	add("details", string(r.Full.Extra))
	for i, q := range r.Full.Questions {
		add(fmt.Sprintf("question %d", i+1), q.Question)
		for _, o := range q.Options {
			add("  option", o.Label+"  "+o.Description)
		}
	}
	return strings.Join(lines, "\n")
}

func requestLine(r surface.Request) string {
	return r.ID + " " + strings.Join(strings.Fields(describe(r)), " ")
}

func approveCommand() *ucli.Command {
	return &ucli.Command{
		Name: "approve", Usage: "let exactly what a request shows happen, once", ArgsUsage: "REQUEST",
		Flags: []ucli.Flag{cli.JSONFlag(), &ucli.BoolFlag{Name: "yes", Usage: "do not ask again"}},
		Action: func(c *ucli.Context) error {
			return decide(c, "permission", func(surface.Request) (surface.Answer, error) { return surface.Answer{Decision: "allow"}, nil })
		},
	}
}

func denyCommand() *ucli.Command {
	return &ucli.Command{
		Name: "deny", Usage: "refuse what a request shows, or reject a question", ArgsUsage: "REQUEST",
		Flags: []ucli.Flag{cli.JSONFlag(), &ucli.StringFlag{Name: "reason", Usage: "tell the coding agent why; it then goes on"}},
		Action: func(c *ucli.Context) error {
			return decide(c, "", func(r surface.Request) (surface.Answer, error) {
				if r.Kind == "question" {
					return surface.Answer{Decision: "reject", Reason: c.String("reason")}, nil
				}
				return surface.Answer{Decision: "deny", Reason: c.String("reason")}, nil
			})
		},
	}
}

func answerCommand() *ucli.Command {
	return &ucli.Command{
		Name: "answer", Usage: "answer a question; one ANSWER for each of its questions, several choices apart by |",
		ArgsUsage: "REQUEST ANSWER...", Flags: []ucli.Flag{cli.JSONFlag()},
		Action: func(c *ucli.Context) error {
			return decide(c, "question", func(r surface.Request) (surface.Answer, error) { return answersOf(c, r) })
		},
	}
}

func answersOf(c *ucli.Context, r surface.Request) (surface.Answer, error) {
	given := c.Args().Slice()[1:]
	if r.Full != nil && len(given) != len(r.Full.Questions) {
		return surface.Answer{}, cli.Usagef("this request has %d questions, and %d answers were given", len(r.Full.Questions), len(given))
	}
	a := surface.Answer{Decision: "answer"}
	for _, text := range given {
		a.Answers = append(a.Answers, strings.Split(text, "|"))
	}
	return a, nil
}

// decide shows the exact request and sends the answer to it.
func decide(c *ucli.Context, kind string, with func(surface.Request) (surface.Answer, error)) error {
	most := 1
	if c.Command.Name == "answer" {
		most = 64
	}
	if err := cli.WantArgs(c, 1, most); err != nil {
		return err
	}
	s, err := open(c)
	if err != nil {
		return fail(err)
	}
	r, err := s.Request(c.Context, c.Args().First())
	if errors.Is(err, surface.ErrNoRequest) {
		return cli.Fail(cli.Refused, err)
	}
	if err != nil {
		return fail(err)
	}
	if kind != "" && r.Kind != kind {
		return cli.Usagef("%s is a %s; see `surface %s --help`", cli.Clean(r.ID), cli.Clean(r.Kind), map[bool]string{true: "answer", false: "approve"}[r.Kind == "question"])
	}
	a, err := with(r)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(c.App.ErrWriter, clean(describe(r)))
	if c.Command.Name == "approve" && cli.IsTerminal(c.App.Reader) {
		if err := cli.Confirm(c, "Let this happen, once?", "yes"); err != nil {
			return err
		}
	}
	tell, stop := steps(c.App.ErrWriter)
	defer stop()
	o, err := s.Decide(c.Context, r, a, tell)
	if errors.Is(err, surface.ErrNoText) {
		return cli.Fail(cli.Refused, err, "link it again with a yes to \"May this device also answer approvals?\"")
	}
	return finish(c, o, err)
}
