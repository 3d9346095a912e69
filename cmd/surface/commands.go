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

// finish prints how a command ended.
func finish(c *ucli.Context, o surface.Outcome, err error) error {
	if err != nil {
		return fail(err)
	}
	if err := ended(o); err != nil {
		return err
	}
	if c.Bool("json") {
		return cli.WriteJSON(c.App.Writer, o.Body)
	}
	return nil
}

// ask sends a command without effect and returns its signed result.
func ask(c *ucli.Context, send func(*surface.Surface, func(surface.Outcome)) (surface.Outcome, error)) (wire.ResultBody, error) {
	s, err := open(c)
	if err != nil {
		return wire.ResultBody{}, fail(err)
	}
	p := cli.StartProgress(c.App.ErrWriter, "asking the desktop")
	defer p.Stop()
	o, err := send(s, func(o surface.Outcome) {
		if !o.Done() && !o.Command.DesktopOnline {
			p.Phase(asleep(o.Command))
		}
	})
	p.Stop()
	if err != nil {
		return o.Body, fail(err)
	}
	return o.Body, ended(o)
}

func sessionsCommand() *ucli.Command {
	return &ucli.Command{
		Name: "sessions", Usage: "list the desktop's sessions", Flags: []ucli.Flag{cli.JSONFlag()},
		Action: func(c *ucli.Context) error {
			if err := cli.WantArgs(c, 0, 0); err != nil {
				return err
			}
			body, err := ask(c, func(s *surface.Surface, tell func(surface.Outcome)) (surface.Outcome, error) {
				return s.Status(c.Context, tell)
			})
			if err != nil {
				return err
			}
			return cli.Print(c, body.Sessions, func(w io.Writer) error {
				rows := make([][]string, len(body.Sessions))
				for i, s := range body.Sessions {
					rows[i] = []string{s.ID, s.State, s.Project, cli.Relative(telemetry.Now(), time.UnixMilli(s.Updated)), s.Title}
				}
				return cli.Table(w, []string{"SESSION", "STATE", "PROJECT", "UPDATED", "TITLE"}, rows)
			})
		},
	}
}

func historyCommand() *ucli.Command {
	return &ucli.Command{
		Name: "history", Usage: "show a session's transcript, newest last", ArgsUsage: "SESSION",
		Flags: []ucli.Flag{
			cli.JSONFlag(), &ucli.StringFlag{Name: "before", Usage: "messages older than this message `ID`"},
			&ucli.IntFlag{Name: "limit", Value: 50, Usage: "at most `N` messages (1 to 100)"},
		},
		Action: func(c *ucli.Context) error {
			if err := cli.WantArgs(c, 1, 1); err != nil {
				return err
			}
			page := wire.History{SessionID: c.Args().First(), Before: c.String("before"), Limit: c.Int("limit")}
			body, err := ask(c, func(s *surface.Surface, tell func(surface.Outcome)) (surface.Outcome, error) {
				return s.History(c.Context, page, tell)
			})
			if err != nil {
				return err
			}
			return cli.Print(c, body, func(w io.Writer) error { return writeHistory(w, body) })
		},
	}
}

func writeHistory(w io.Writer, body wire.ResultBody) error {
	if body.More && len(body.Messages) > 0 {
		if _, err := fmt.Fprintf(w, "(older messages: --before %s)\n\n", body.Messages[0].ID); err != nil {
			return err
		}
	}
	for _, m := range body.Messages {
		if _, err := fmt.Fprintf(w, "%s  %s\n", m.Role, time.UnixMilli(m.Created).Local().Format("Jan 2 15:04:05")); err != nil {
			return err
		}
		for _, p := range m.Parts {
			if _, err := fmt.Fprintln(w, "  "+strings.ReplaceAll(clean(partLine(p)), "\n", "\n  ")); err != nil {
				return err
			}
		}
	}
	return nil
}

func abortCommand() *ucli.Command {
	return &ucli.Command{
		Name: "abort", Usage: "end the turn that runs in a session", ArgsUsage: "SESSION [TURN]", Flags: []ucli.Flag{cli.JSONFlag()},
		Action: func(c *ucli.Context) error {
			if err := cli.WantArgs(c, 1, 2); err != nil {
				return err
			}
			s, err := open(c)
			if err != nil {
				return fail(err)
			}
			turn := c.Args().Get(1)
			if turn == "" {
				if turn, err = runningTurn(c, s, c.Args().First()); err != nil {
					return err
				}
			}
			tell, stop := steps(c.App.ErrWriter)
			defer stop()
			o, err := s.Abort(c.Context, wire.Abort{SessionID: c.Args().First(), MessageID: turn}, tell)
			return finish(c, o, err)
		},
	}
}

// runningTurn asks which turn runs, so that an abort names it and can end no later one.
func runningTurn(c *ucli.Context, s *surface.Surface, session string) (string, error) {
	o, err := s.Status(c.Context, nil)
	if err != nil {
		return "", fail(err)
	}
	for _, each := range o.Body.Sessions {
		if each.ID == session && each.Turn != "" {
			return each.Turn, nil
		}
	}
	return "", cli.Fail(cli.Failed, errors.New("no turn runs in that session"), "`surface sessions` shows which are busy")
}

func resolveCommand() *ucli.Command {
	return &ucli.Command{
		Name: "resolve", Usage: "decide about a command of which it is not known whether it ran", ArgsUsage: "COMMAND",
		Flags: []ucli.Flag{
			cli.JSONFlag(), &ucli.BoolFlag{Name: "it-ran", Usage: "it did run; nothing is sent"},
			&ucli.BoolFlag{Name: "send-again", Usage: "it did not run; send it as a new command"},
		},
		Action: resolve,
	}
}

func resolve(c *ucli.Context) error {
	if err := cli.WantArgs(c, 1, 1); err != nil {
		return err
	}
	if c.Bool("it-ran") == c.Bool("send-again") {
		return cli.Usagef("say one of --it-ran and --send-again")
	}
	s, err := open(c)
	if err != nil {
		return fail(err)
	}
	id := c.Args().First()
	if c.Bool("it-ran") {
		cmd, err := s.ItRan(c.Context, id)
		if err != nil {
			return fail(err)
		}
		return cli.Print(c, cmd, func(w io.Writer) error { _, err := fmt.Fprintln(w, cmd.ID, cmd.State); return err })
	}
	sent, err := s.SendAgain(c.Context, id)
	if err != nil {
		return fail(err)
	}
	tell, stop := steps(c.App.ErrWriter)
	defer stop()
	o, err := s.Wait(c.Context, sent, tell)
	return finish(c, o, err)
}

func revokeCommand() *ucli.Command {
	return &ucli.Command{
		Name: "revoke", Usage: "end this surface, another one, or the whole pairing", ArgsUsage: "[SURFACE]",
		Description: "Without an argument this surface ends itself and erases its keys. Another one, and --pairing, need the decide scope.",
		Flags: []ucli.Flag{
			cli.JSONFlag(), &ucli.BoolFlag{Name: "pairing", Usage: "end the desktop's whole pairing"},
			&ucli.BoolFlag{Name: "yes", Usage: "do not ask"},
		},
		Action: revoke,
	}
}

func revoke(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 1); err != nil {
		return err
	}
	s, err := open(c)
	if err != nil {
		return fail(err)
	}
	info, err := s.Info()
	if err != nil {
		return fail(err)
	}
	target := c.Args().First()
	question := "End surface " + cli.Clean(target) + "?"
	switch {
	case c.Bool("pairing"):
		question = "End the pairing of " + cli.Clean(info.Host) + " with all its surfaces?"
	case target == "" || target == info.Surface:
		target = info.Surface
		question = "End this surface? It must be linked again to be used."
	}
	if err := cli.Confirm(c, question, "yes"); err != nil {
		return err
	}
	if c.Bool("pairing") {
		tell, stop := steps(c.App.ErrWriter)
		defer stop()
		o, err := s.RevokePairing(c.Context, tell)
		return finish(c, o, err)
	}
	if target != info.Surface {
		tell, stop := steps(c.App.ErrWriter)
		defer stop()
		o, err := s.RevokeSurface(c.Context, target, tell)
		return finish(c, o, err)
	}
	return endSelf(c, s)
}

// endSelf revokes this surface where it can be reached, and erases its keys in any case.
func endSelf(c *ucli.Context, s *surface.Surface) error {
	err := s.RevokeSelf(c.Context)
	if forget := s.Forget(c.Context); forget != nil {
		return forget
	}
	if err != nil {
		return cli.Fail(cli.NotReachable, fmt.Errorf("the keys are erased here, but the broker was not told: %w", err),
			"revoke it at the desktop too: `desktop-agent surfaces revoke`")
	}
	_, err = fmt.Fprintln(c.App.ErrWriter, "this surface has ended; its keys are erased")
	return err
}

func statusCommand() *ucli.Command {
	return &ucli.Command{
		Name: "status", Usage: "show the linked desktops and how they are", Flags: []ucli.Flag{cli.JSONFlag()},
		Action: status,
	}
}

// desktopStatus is one row of `status`.
type desktopStatus struct {
	surface.Info
	State *wire.PairingState `json:"state,omitempty"`
	Error string             `json:"error,omitempty"`
}

func status(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	o, err := options(c)
	if err != nil {
		return err
	}
	all, err := surface.List(o.Dir)
	if err != nil {
		return fail(err)
	}
	rows := make([]desktopStatus, len(all))
	for i, info := range all {
		rows[i] = statusOf(c, o, info)
	}
	return cli.Print(c, rows, func(w io.Writer) error {
		if len(rows) == 0 {
			_, err := fmt.Fprintln(w, "no desktop is linked here; run `desktop-agent link` at the desktop, then `surface link` here")
			return err
		}
		table := make([][]string, len(rows))
		for i, r := range rows {
			table[i] = []string{r.Host, r.word(), strings.Join(r.Scopes, ","), r.NotAfter.Format("2006-01-02"), r.Pairing}
		}
		return cli.Table(w, []string{"DESKTOP", "THE BROKER SAYS", "SCOPES", "GRANT ENDS", "PAIRING"}, table)
	})
}

func statusOf(c *ucli.Context, o surface.Options, info surface.Info) desktopStatus {
	out := desktopStatus{Info: info}
	s, err := surface.Open(c.Context, o, info.Pairing)
	if err == nil {
		var st wire.PairingState
		if st, err = s.State(c.Context); err == nil {
			out.State = &st
			return out
		}
	}
	out.Error = err.Error()
	return out
}

func (d desktopStatus) word() string {
	switch {
	case d.State == nil:
		return d.Error
	case d.State.Locked:
		return "locked"
	case d.State.Online:
		return "connected since " + cli.Relative(telemetry.Now(), time.UnixMilli(d.State.Since))
	}
	return "asleep or off since " + cli.Relative(telemetry.Now(), time.UnixMilli(d.State.Since))
}
