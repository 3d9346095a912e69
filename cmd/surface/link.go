package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/pkg/surface"
)

func linkCommand() *ucli.Command {
	return &ucli.Command{
		Name: "link", Usage: "link this surface to a desktop", ArgsUsage: "[-|FILE]",
		Description: "Asks for the link or code that `desktop-agent link` shows, or reads it from standard input (-) or a file\n" +
			"that only you can read. Then type the digits shown here into the desktop.",
		Flags: []ucli.Flag{
			cli.JSONFlag(),
			&ucli.StringFlag{Name: "broker", EnvVars: []string{cli.EnvName(program, "broker")}, Usage: "the broker's `URL`; needed for a typed code"},
			&ucli.StringFlag{Name: "label", EnvVars: []string{cli.EnvName(program, "label")}, Usage: "what this surface is called at the desktop (default: the host name)"},
			&ucli.StringFlag{Name: "scope", Value: "decide", Usage: "the most to ask for: observe, prompt or decide; the desktop's owner has the last word"},
		},
		Action: link,
	}
}

func link(c *ucli.Context) error {
	o, err := options(c)
	if err != nil {
		return err
	}
	text, err := cli.SecretArg(c, "the link or code")
	if err != nil {
		return err
	}
	req := surface.LinkRequest{Text: text.Reveal(), Broker: c.String("broker"), Label: c.String("label"), Scope: c.String("scope")}
	if !strings.Contains(req.Text, "#") && req.Broker == "" {
		return cli.Fail(cli.Usage, errors.New("a typed code needs the broker's address"), "add --broker https://broker.example.com")
	}
	if req.Label == "" {
		host, _ := os.Hostname()
		req.Label = label(host)
	}
	s, err := surface.Link(c.Context, o, req, &person{c: c})
	if err != nil {
		return linkFailed(err)
	}
	info, err := s.Info()
	if err != nil {
		return err
	}
	return cli.Print(c, info, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "linked to %s as %q, may %s until %s\n", cli.Clean(info.Host), info.Label,
			strings.Join(info.Scopes, ", "), info.NotAfter.Format("2006-01-02"))
		return err
	})
}

// linkFailed keeps the one hint that always helps.
func linkFailed(err error) error {
	exit, ok := errors.AsType[*cli.Exit](fail(err))
	if !ok {
		return err
	}
	exit.Hints = append(exit.Hints, "a link or code works once and for three minutes; start again at the desktop with `desktop-agent link`")
	return exit
}

// label makes a host name fit the rule for labels.
func label(host string) string {
	ok := strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, host)
	if ok = ok[:min(len(ok), 40)]; ok == "" {
		return "terminal"
	}
	return ok
}

// person is whoever sits at this terminal.
type person struct{ c *ucli.Context }

func (p *person) ShowDigits(digits, host, policy string) {
	w := p.c.App.ErrWriter
	_, _ = fmt.Fprintf(w, "desktop: %s\nwhat its owner allows: %s\n\nType these digits into the desktop:  %s\n\n", cli.Clean(host), cli.Clean(policy), spaced(digits))
	_, _ = fmt.Fprintln(w, "waiting for the desktop ...")
}

// spaced groups digits in the middle, as people read them.
func spaced(digits string) string { return digits[:len(digits)/2] + " " + digits[len(digits)/2:] }

func (p *person) FinishCode(ctx context.Context, digits int) (string, error) {
	return cli.Ask(p.c, fmt.Sprintf("The desktop shows %d digits now. Type them here:", digits))
}
