package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/pkg/wire"
	ucli "github.com/urfave/cli/v2"
)

func pairingsCommand() *ucli.Command {
	return &ucli.Command{Name: "pairings", Usage: "enrolled desktops", Subcommands: []*ucli.Command{
		{Name: "list", Usage: "show all pairings", Action: listPairings, Flags: []ucli.Flag{cli.JSONFlag()}},
		{Name: "show", Usage: "show one pairing", ArgsUsage: "PAIRING", Action: showPairing, Flags: []ucli.Flag{cli.JSONFlag()}},
		{
			Name: "lock", Usage: "disconnect a desktop, and refuse it and its surfaces until it is unlocked", ArgsUsage: "PAIRING",
			Action: onPairing(wire.PathOpPairingLock, "locked"),
		},
		{Name: "unlock", Usage: "let a locked desktop come back", ArgsUsage: "PAIRING", Action: onPairing(wire.PathOpPairingUnlock, "unlocked")},
		{
			Name: "revoke", Usage: "end a pairing for good", ArgsUsage: "PAIRING",
			Flags:  []ucli.Flag{&ucli.BoolFlag{Name: "yes", Usage: "do not ask"}},
			Action: revokePairing,
		},
	}}
}

func onPairing(path, did string) ucli.ActionFunc {
	return func(c *ucli.Context) error {
		if err := cli.WantArgs(c, 1, 1); err != nil {
			return err
		}
		return post(c, path, did+" pairing "+c.Args().First())
	}
}

func revokePairing(c *ucli.Context) error {
	if err := cli.WantArgs(c, 1, 1); err != nil {
		return err
	}
	if !c.Bool("yes") {
		if err := cli.Confirm(c, "End this pairing for good? The desktop must be enrolled and every device linked again.", "yes"); err != nil {
			return err
		}
	}
	return post(c, wire.PathOpPairingRevoke, "revoked pairing "+c.Args().First())
}

func listPairings(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	var pairings []wire.OperatorPairing
	if err := get(c, wire.PathOpPairings, &pairings); err != nil {
		return err
	}
	return cli.Print(c, pairings, func(w io.Writer) error {
		var rows [][]string
		for _, p := range pairings {
			rows = append(rows, []string{p.Pairing, p.Host, state(p.State, p.Reason), online(p), strconv.Itoa(p.Surfaces), strconv.Itoa(p.Open), p.Executor})
		}
		return cli.Table(w, []string{"PAIRING", "HOST", "STATE", "CONNECTED", "SURFACES", "OPEN", "EXECUTOR"}, rows)
	})
}

func showPairing(c *ucli.Context) error {
	if err := cli.WantArgs(c, 1, 1); err != nil {
		return err
	}
	var p wire.OperatorPairing
	if err := get(c, wire.PathOpPairing, &p, c.Args().First()); err != nil {
		return err
	}
	return cli.Print(c, p, func(w io.Writer) error {
		sealed := "yes: this broker cannot read it"
		if !p.Sealed {
			sealed = "no: this broker reads it"
		}
		return cli.Table(w, []string{"PAIRING", p.Pairing}, [][]string{
			{"host", p.Host},
			{"state", state(p.State, p.Reason)},
			{"connected", online(p)},
			{"enrolled", when(p.Created)},
			{"executor", p.Executor},
			{"sealed", sealed},
			{"surfaces", strconv.Itoa(p.Surfaces)},
			{"open commands", strconv.Itoa(p.Open)},
		})
	})
}

func state(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + " (" + reason + ")"
}

func online(p wire.OperatorPairing) string {
	switch {
	case p.Since == 0:
		return "never"
	case p.Online:
		return "since " + when(p.Since)
	}
	return "no, last " + when(p.Since)
}

func surfacesCommand() *ucli.Command {
	return &ucli.Command{Name: "surfaces", Usage: "linked surfaces of a pairing", Subcommands: []*ucli.Command{
		{Name: "list", Usage: "show them", ArgsUsage: "PAIRING", Action: listSurfaces, Flags: []ucli.Flag{cli.JSONFlag()}},
		{Name: "revoke", Usage: "end one; its streams end within a second", ArgsUsage: "PAIRING SURFACE", Action: revokeSurface},
	}}
}

func listSurfaces(c *ucli.Context) error {
	if err := cli.WantArgs(c, 1, 1); err != nil {
		return err
	}
	var surfaces []wire.OperatorSurface
	if err := get(c, wire.PathOpSurfaces, &surfaces, c.Args().First()); err != nil {
		return err
	}
	return cli.Print(c, surfaces, func(w io.Writer) error {
		var rows [][]string
		for _, s := range surfaces {
			rows = append(rows, []string{s.Surface, s.Label, s.State, strings.Join(s.Scopes, " "), when(s.Created), when(s.LastUsed), when(s.NotAfter)})
		}
		return cli.Table(w, []string{"SURFACE", "LABEL", "STATE", "SCOPES", "LINKED", "USED", "ENDS"}, rows)
	})
}

func revokeSurface(c *ucli.Context) error {
	if err := cli.WantArgs(c, 2, 2); err != nil {
		return err
	}
	return post(c, wire.PathOpSurfaceRevoke, fmt.Sprintf("revoked surface %s", c.Args().Get(1)))
}
