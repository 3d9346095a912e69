// Command broker connects surfaces with desktops that dial out to it. See docs/operations.md.
package main

import (
	"os"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/telemetry"
	ucli "github.com/urfave/cli/v2"
)

const program = "broker"

func main() { os.Exit(cli.Main(newApp(), os.Args, os.Stdin, os.Stdout, os.Stderr)) }

func newApp() *ucli.App {
	return &ucli.App{
		Name:  program,
		Usage: "connects surfaces with desktops that dial out; it routes what it cannot read",
		Flags: []ucli.Flag{cli.ConfigFlag(program), cli.StateFlag(program)},
		Commands: []*ucli.Command{
			serveCommand(), codesCommand(), pairingsCommand(), surfacesCommand(), auditCommand(), certsCommand(),
			cli.VersionCommand(build()), cli.CompletionCommand(),
		},
	}
}

func build() cli.Build { return cli.Build(telemetry.BuildInfo()) }
