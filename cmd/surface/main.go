// Command surface is a surface for the terminal, for scripts and for gateways: it sends tasks to a desktop's coding
// agent and answers its approvals. See README.md.
package main

import (
	"net/http"
	"os"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/telemetry"
)

const program = "surface"

func main() { os.Exit(cli.Main(newApp(), os.Args, os.Stdin, os.Stdout, os.Stderr)) }

func newApp() *ucli.App {
	return &ucli.App{
		Name:  program,
		Usage: "sends tasks to a desktop's coding agent, watches it work and answers its approvals",
		Flags: []ucli.Flag{
			cli.ConfigFlag(program), cli.StateFlag(program), keystoreFlag(), caFlag(),
			&ucli.StringFlag{
				Name: "desktop", EnvVars: []string{cli.EnvName(program, "desktop")},
				Usage: "use the desktop with this host `NAME` (or the beginning of its pairing)",
			},
		},
		Commands: []*ucli.Command{
			linkCommand(), promptCommand(), watchCommand(), sessionsCommand(), historyCommand(), requestsCommand(),
			approveCommand(), denyCommand(), answerCommand(), abortCommand(), resolveCommand(), revokeCommand(), statusCommand(),
			cli.VersionCommand(cli.Build(telemetry.BuildInfo())), cli.CompletionCommand(),
		},
	}
}

func caFlag() ucli.Flag {
	return &ucli.PathFlag{
		Name: "ca", EnvVars: []string{cli.EnvName(program, "ca")},
		Usage: "trust the certificates in this PEM `FILE` beside the system's",
	}
}

// httpClient trusts what --ca names. It has no timeout of its own: streams are long, and calls have their deadlines.
func httpClient(c *ucli.Context) (*http.Client, error) {
	path := c.Path("ca")
	if path == "" {
		return nil, nil
	}
	pool, err := certPool(path)
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = pool
	return &http.Client{Transport: t}, nil
}
