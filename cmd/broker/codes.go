package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/pkg/wire"
	ucli "github.com/urfave/cli/v2"
)

func codesCommand() *ucli.Command {
	return &ucli.Command{Name: "codes", Usage: "enrolment codes: how a desktop becomes known", Subcommands: []*ucli.Command{
		{
			Name: "issue", Usage: "make a code for one desktop; it is shown once", Action: issueCode,
			Flags: []ucli.Flag{
				&ucli.DurationFlag{Name: "ttl", Usage: "how long it may be used, at most 24h", Value: 15 * time.Minute},
				&ucli.StringFlag{Name: "note", Usage: "`TEXT` for the list, for example whose desktop it is"},
				cli.JSONFlag(),
			},
		},
		{Name: "list", Usage: "show codes; never the code itself", Action: listCodes, Flags: []ucli.Flag{cli.JSONFlag()}},
		{Name: "revoke", Usage: "end a code that was not used", ArgsUsage: "ID", Action: revokeCode},
	}}
}

func issueCode(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	ttl := c.Duration("ttl")
	if ttl < time.Second || ttl > 24*time.Hour {
		return cli.Usagef("--ttl is between 1s and 24h")
	}
	op, err := connect(c)
	if err != nil {
		return err
	}
	var code wire.CodeIssued
	in := wire.CodeIssue{TTLSeconds: int(ttl / time.Second), Note: c.String("note")}
	if err := op.call(c.Context, http.MethodPost, wire.PathOpCodes, 0, in, &code); err != nil {
		return err
	}
	return cli.Print(c, code, func(w io.Writer) error { return showCode(w, code) })
}

func showCode(w io.Writer, code wire.CodeIssued) error {
	_, err := fmt.Fprintf(w, "enrolment code  %s\nor as a link    %s\nused once, until %s (%s)\non the desktop: desktop-agent enrol, and give it there when asked\n",
		code.Text, code.Link, time.UnixMilli(code.Expires).Format("15:04"), when(code.Expires))
	return err
}

func listCodes(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	var codes []wire.EnrolmentCode
	if err := get(c, wire.PathOpCodes, &codes); err != nil {
		return err
	}
	return cli.Print(c, codes, func(w io.Writer) error {
		var rows [][]string
		for _, k := range codes {
			rows = append(rows, []string{k.ID, k.State, strconv.Itoa(k.Tries), when(k.Created), when(k.Expires), k.Pairing, k.Note})
		}
		return cli.Table(w, []string{"ID", "STATE", "WRONG TRIES", "MADE", "ENDS", "PAIRING", "NOTE"}, rows)
	})
}

func revokeCode(c *ucli.Context) error {
	if err := cli.WantArgs(c, 1, 1); err != nil {
		return err
	}
	return post(c, wire.PathOpCodeRevoke, "revoked code "+c.Args().First())
}
