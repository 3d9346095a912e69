package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"cowork.example.com/broker/certs"
	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/telemetry"
	ucli "github.com/urfave/cli/v2"
)

func certsCommand() *ucli.Command {
	return &ucli.Command{Name: "certs", Usage: "TLS for a trial", Subcommands: []*ucli.Command{{
		Name: "init", Usage: "make a development authority and a certificate for this broker", ArgsUsage: "[HOST...]", Action: initCerts,
		Flags: []ucli.Flag{&ucli.PathFlag{Name: "dir", Usage: "`FOLDER` for the files (default: certs in the state folder)", EnvVars: env("certs-dir")}},
	}}}
}

// maxHosts bounds the names in one certificate.
const maxHosts = 50

func initCerts(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, maxHosts); err != nil {
		return err
	}
	dir := c.Path("dir")
	if dir == "" {
		state, err := cli.StateDir(c, program)
		if err != nil {
			return err
		}
		if err := cli.MakeDir(state); err != nil {
			return err
		}
		dir = filepath.Join(state, "certs")
	}
	err := certs.Init(dir, c.Args().Slice(), telemetry.Now())
	if errors.Is(err, certs.ErrHosts) {
		return cli.Fail(cli.Usage, err, "make another authority in another folder: --dir FOLDER")
	}
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	_, err = fmt.Fprintf(c.App.Writer, "trust this authority on the devices of the trial: %s\nbroker serve --tls-cert %s --tls-key %s\n",
		at(certs.CAFile), at(certs.LeafFile), at(certs.LeafKey))
	return err
}
