package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/pairing"
)

func surfacesCommand() *ucli.Command {
	return &ucli.Command{
		Name: "surfaces", Usage: "the devices that are linked to this desktop",
		Subcommands: []*ucli.Command{
			{Name: "list", Usage: "list them", Flags: []ucli.Flag{cli.JSONFlag(), &ucli.BoolFlag{Name: "all", Usage: "revoked ones too"}}, Action: listSurfaces},
			{
				Name: "revoke", Usage: "end a device at once and for good", ArgsUsage: "SURFACE",
				Flags: []ucli.Flag{&ucli.BoolFlag{Name: "yes", Usage: "do not ask"}}, Action: revokeSurface,
			},
		},
	}
}

func listSurfaces(c *ucli.Context) error {
	cl, err := client(c)
	if err != nil {
		return err
	}
	all, err := cl.Surfaces(c.Context, c.String("pairing"))
	if err != nil {
		return fail(err)
	}
	shown := []agent.SurfaceView{}
	for _, s := range all {
		if c.Bool("all") || s.Revoked.IsZero() {
			shown = append(shown, s)
		}
	}
	return cli.Print(c, shown, func(w io.Writer) error {
		rows := make([][]string, len(shown))
		now := telemetry.Now()
		for i, s := range shown {
			state := "until " + s.NotAfter.Format("2006-01-02")
			if !s.Revoked.IsZero() {
				state = "revoked " + cli.Relative(now, s.Revoked) + " by " + s.RevokedBy
			}
			rows[i] = []string{s.Label, strings.Join(s.Scopes, ","), cli.Relative(now, s.LastUse), state, s.ID}
		}
		return cli.Table(w, []string{"DEVICE", "MAY", "LAST USED", "GRANT", "SURFACE"}, rows)
	})
}

func revokeSurface(c *ucli.Context) error {
	if err := cli.WantArgs(c, 1, 1); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	if err := cli.Confirm(c, "End this device? It must be linked again to be used.", "yes"); err != nil {
		return err
	}
	if err := cl.RevokeSurface(c.Context, c.Args().First()); err != nil {
		return fail(err)
	}
	_, err = fmt.Fprintln(c.App.ErrWriter, "revoked")
	return err
}

func policyCommand() *ucli.Command {
	return &ucli.Command{
		Name: "policy", Usage: "what your devices may do here",
		Subcommands: []*ucli.Command{
			{Name: "show", Usage: "show the policy", Flags: []ucli.Flag{cli.JSONFlag()}, Action: showPolicy},
			{
				Name: "set", Usage: "change fields of the policy", ArgsUsage: "FIELD=VALUE...",
				Description: "For example: desktop-agent policy set remoteApprovals=local_confirmation allowRemoteAttachments=true",
				Flags:       []ucli.Flag{cli.JSONFlag(), &ucli.BoolFlag{Name: "yes", Usage: "do not ask, even when devices may decide afterwards"}}, Action: setPolicy,
			},
		},
	}
}

func showPolicy(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	view, err := cl.Policy(c.Context, c.String("pairing"))
	if err != nil {
		return fail(err)
	}
	return printPolicy(c, view)
}

func printPolicy(c *ucli.Context, view agent.PolicyView) error {
	return cli.Print(c, view, func(w io.Writer) error {
		if view.Problem != "" {
			if _, err := fmt.Fprintf(w, "the stored policy cannot be read, so it counts as no: %s\n", cli.Clean(view.Problem)); err != nil {
				return err
			}
		}
		fields, err := fieldsOf(view.Policy)
		if err != nil {
			return err
		}
		rows := make([][]string, 0, len(fields))
		for _, name := range pairing.PolicyFields() {
			rows = append(rows, []string{name, strings.Trim(string(fields[name]), `"`)})
		}
		return cli.Table(w, []string{"FIELD", "VALUE"}, rows)
	})
}

func fieldsOf(p pairing.Policy) (map[string]json.RawMessage, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	return fields, json.Unmarshal(raw, &fields)
}

func setPolicy(c *ucli.Context) error {
	if c.NArg() == 0 {
		return cli.Usagef("name at least one FIELD=VALUE")
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	old, err := cl.Policy(c.Context, c.String("pairing"))
	if err != nil {
		return fail(err)
	}
	document, next, err := changed(old.Policy, c.Args().Slice())
	if err != nil {
		return err
	}
	if next.Elevates(old.Policy) {
		if err := cli.Confirm(c, "Your devices can then let commands run without anyone at this desktop. Is that meant?", "yes"); err != nil {
			return err
		}
	}
	view, err := cl.SetPolicy(c.Context, c.String("pairing"), document)
	if err != nil {
		return fail(err)
	}
	return printPolicy(c, view)
}

// changed applies FIELD=VALUE to a policy. Values are true, false, or one of the policy's words.
func changed(old pairing.Policy, changes []string) ([]byte, pairing.Policy, error) {
	fields, err := fieldsOf(old)
	if err != nil {
		return nil, old, err
	}
	for _, change := range changes {
		name, value, ok := strings.Cut(change, "=")
		if _, known := fields[name]; !ok || !known {
			return nil, old, cli.Fail(cli.Usage, fmt.Errorf("%s is not FIELD=VALUE of a policy", cli.Clean(change)), "`desktop-agent policy show` lists the fields")
		}
		fields[name] = json.RawMessage(value)
		if value != "true" && value != "false" {
			if fields[name], err = json.Marshal(value); err != nil {
				return nil, old, err
			}
		}
	}
	document, err := json.Marshal(fields)
	if err != nil {
		return nil, old, err
	}
	next, err := pairing.ParsePolicy(document)
	if err != nil {
		return nil, old, cli.Fail(cli.Usage, err)
	}
	return document, next, nil
}

func pendingCommand() *ucli.Command {
	return &ucli.Command{
		Name: "pending", Usage: "show what your devices asked for and what waits for your yes at this desktop", Flags: []ucli.Flag{cli.JSONFlag()},
		Action: func(c *ucli.Context) error {
			if err := cli.WantArgs(c, 0, 0); err != nil {
				return err
			}
			cl, err := client(c)
			if err != nil {
				return err
			}
			all, err := cl.Pending(c.Context)
			if err != nil {
				return fail(err)
			}
			return cli.Print(c, all, func(w io.Writer) error { return writePending(w, all) })
		},
	}
}

func writePending(w io.Writer, all []agent.PendingCommand) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "nothing waits for you")
		return err
	}
	now := telemetry.Now()
	var out error
	for _, p := range all {
		_, err := fmt.Fprintf(w, "%s  %s says: %s  (%s, ends %s)\n", cli.Clean(p.ID), cli.Clean(p.Label), cli.Clean(p.Kind+" "+p.Decision),
			cli.Relative(now, p.Received), cli.Relative(now, p.Expires))
		out = errors.Join(out, err)
		for _, line := range append(strings.Split(p.Request, "\n"), p.Answers...) {
			if line != "" {
				_, err := fmt.Fprintln(w, "    "+cli.Clean(line))
				out = errors.Join(out, err)
			}
		}
	}
	_, err := fmt.Fprintln(w, "\n`desktop-agent allow ID` carries one out, `desktop-agent deny ID` ends it")
	return errors.Join(out, err)
}

func allowCommand() *ucli.Command {
	return &ucli.Command{Name: "allow", Usage: "carry out what waits", ArgsUsage: "ID", Action: func(c *ucli.Context) error { return settle(c, true) }}
}

func denyCommand() *ucli.Command {
	return &ucli.Command{Name: "deny", Usage: "end what waits without doing it", ArgsUsage: "ID", Action: func(c *ucli.Context) error { return settle(c, false) }}
}

func settle(c *ucli.Context, allow bool) error {
	if err := cli.WantArgs(c, 1, 1); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	do, word := cl.Deny, "denied"
	if allow {
		do, word = cl.Allow, "allowed"
	}
	if err := do(c.Context, c.Args().First()); err != nil {
		return fail(err)
	}
	_, err = fmt.Fprintln(c.App.ErrWriter, word)
	return err
}

func auditCommand() *ucli.Command {
	return &ucli.Command{
		Name: "audit", Usage: "this desktop's own record",
		Subcommands: []*ucli.Command{{
			Name: "tail", Usage: "show the newest lines",
			Flags: []ucli.Flag{
				cli.JSONFlag(), &ucli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on as lines are written"},
				&ucli.Uint64Flag{Name: "after", Usage: "begin after this `NUMBER`"}, &ucli.IntFlag{Name: "limit", Value: 100, Usage: "at most `N` lines at once"},
			},
			Action: auditTail,
		}},
	}
}

func auditTail(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	for after := c.Uint64("after"); ; {
		wait := 0
		if c.Bool("follow") {
			wait = eventWait
		}
		lines, err := cl.AuditTail(c.Context, after, c.Int("limit"), wait)
		if err != nil {
			return fail(err)
		}
		for _, l := range lines {
			after = l.Seq
			if err := printAudit(c, l); err != nil {
				return err
			}
		}
		if !c.Bool("follow") && len(lines) < c.Int("limit") {
			return nil
		}
	}
}

// printAudit writes the exact line as JSON, or what a person reads of it.
func printAudit(c *ucli.Context, l agent.AuditView) error {
	if c.Bool("json") {
		_, err := fmt.Fprintln(c.App.Writer, l.Line)
		return err
	}
	var line struct {
		Time, Type, Outcome, Reason string
		Actor                       struct{ Kind, ID, Label string }
		Target                      struct{ Kind, ID string }
	}
	if err := json.Unmarshal([]byte(l.Line), &line); err != nil {
		return err
	}
	who := line.Actor.Kind
	if text := l.Values[line.Actor.Label]; text != "" {
		who += " " + text
	}
	at, _ := time.Parse(time.RFC3339Nano, line.Time) // a line that we wrote
	_, err := fmt.Fprintf(c.App.Writer, "%6d  %s  %-24s %-8s %s  %s %s %s\n", l.Seq, at.Local().Format("Jan 2 15:04:05"), line.Type, line.Outcome,
		cli.Clean(who), line.Target.Kind, cli.Clean(line.Target.ID), cli.Clean(line.Reason))
	return err
}
