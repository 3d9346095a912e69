package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/pkg/wire"
	ucli "github.com/urfave/cli/v2"
)

// auditPage is how many lines one call asks for.
const auditPage = 500

func auditCommand() *ucli.Command {
	return &ucli.Command{Name: "audit", Usage: "who did what, when, and what came of it", Subcommands: []*ucli.Command{{
		Name: "tail", Usage: "show audit lines", Action: tailAudit,
		Flags: []ucli.Flag{
			&ucli.Uint64Flag{Name: "after", Usage: "begin behind line number `SEQ`"},
			&ucli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on as lines come, until interrupted"},
			cli.JSONFlag(),
		},
	}}}
}

func tailAudit(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	op, err := connect(c)
	if err != nil {
		return err
	}
	after := c.Uint64("after")
	for {
		wait := time.Duration(0)
		if c.Bool("follow") {
			wait = wire.MaxWaitSeconds * time.Second
		}
		page, err := readAudit(c, op, after, wait)
		if err != nil {
			if c.Context.Err() != nil {
				return nil // interrupted while following: that is how it ends
			}
			return err
		}
		if err := showLines(c, page.Lines); err != nil {
			return err
		}
		if len(page.Lines) == 0 && !c.Bool("follow") {
			return nil
		}
		after = page.Next
	}
}

func readAudit(c *ucli.Context, op *operator, after uint64, wait time.Duration) (page wire.AuditPage, err error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "limit": {strconv.Itoa(auditPage)}}
	if wait > 0 {
		q.Set("wait", strconv.Itoa(int(wait/time.Second)))
	}
	return page, op.call(c.Context, http.MethodGet, wire.PathOpAudit+"?"+q.Encode(), wait, nil, &page)
}

// showLines prints lines exactly as they are stored with --json, else one short line each.
func showLines(c *ucli.Context, lines []json.RawMessage) error {
	for _, raw := range lines {
		if c.Bool("json") {
			if _, err := fmt.Fprintf(c.App.Writer, "%s\n", raw); err != nil {
				return err
			}
			continue
		}
		var line wire.AuditLine
		if err := json.Unmarshal(raw, &line); err != nil {
			return fmt.Errorf("an audit line is not readable: %w", err)
		}
		if err := showLine(c.App.Writer, line); err != nil {
			return err
		}
	}
	return nil
}

func showLine(w io.Writer, l wire.AuditLine) error {
	text := fmt.Sprintf("%d %s %s %s", l.Seq, l.Time, l.Type, l.Outcome)
	for _, part := range []struct{ name, value string }{
		{"reason", l.Reason}, {"pairing", l.Pairing}, {l.Actor.Kind, l.Actor.ID}, {l.Target.Kind, l.Target.ID},
	} {
		if part.name != "" && part.value != "" {
			text += " " + part.name + "=" + part.value
		}
	}
	if l.Command != nil {
		text += " kind=" + l.Command.Kind
	}
	_, err := fmt.Fprintln(w, cli.Clean(text))
	return err
}
