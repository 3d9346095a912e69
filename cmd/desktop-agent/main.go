// Command desktop-agent opens this desktop to its owner's surfaces through a broker: it dials out, runs what they send
// on OpenCode, and listens on nothing but a unix socket of its owner. See README.md.
package main

import (
	"context"
	"errors"
	"os"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/wire"
)

const program = "desktop-agent"

func main() { os.Exit(cli.Main(newApp(), os.Args, os.Stdin, os.Stdout, os.Stderr)) }

func newApp() *ucli.App {
	return &ucli.App{
		Name:  program,
		Usage: "opens this desktop to your own devices through a broker, and to nobody else",
		Flags: []ucli.Flag{cli.ConfigFlag(program), cli.StateFlag(program), keystoreFlag(), pairingFlag()},
		Commands: []*ucli.Command{
			enrolCommand(), runCommand(), recoverCommand(), linkCommand(), surfacesCommand(), policyCommand(), pendingCommand(),
			allowCommand(), denyCommand(), auditCommand(), statusCommand(),
			cli.VersionCommand(cli.Build(telemetry.BuildInfo())), cli.CompletionCommand(),
		},
	}
}

func keystoreFlag() ucli.Flag {
	return &ucli.StringFlag{
		Name: "keystore", EnvVars: []string{cli.EnvName(program, "keystore")}, Value: "file",
		Usage: "keep keys in the `os` keyring, or in a file that only you can read",
	}
}

func pairingFlag() ucli.Flag {
	return &ucli.StringFlag{
		Name: "pairing", EnvVars: []string{cli.EnvName(program, "pairing")},
		Usage: "the pairing `ID`, where this desktop has several",
	}
}

// client speaks to the running agent.
func client(c *ucli.Context) (*agent.Client, error) {
	dir, err := cli.StateDir(c, program)
	if err != nil {
		return nil, err
	}
	return agent.NewClient(dir), nil
}

// fail gives an error its exit code and a hint.
func fail(err error) error {
	var exit *cli.Exit
	refused, isRefused := errors.AsType[*agent.ControlError](err)
	problem, isProblem := errors.AsType[*wire.Problem](err)
	switch {
	case err == nil, errors.As(err, &exit), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, agent.ErrNotRunning):
		return cli.Fail(cli.NotReachable, err, "start it with `desktop-agent run`")
	case errors.Is(err, agent.ErrRunning):
		return cli.Fail(cli.Failed, err, "stop it first; what it does can be seen with `desktop-agent status`")
	case errors.Is(err, agent.ErrWrongBroker):
		return cli.Fail(cli.Refused, err, "check the address, or ask the operator for a new code")
	case isRefused:
		return cli.Fail(cli.Refused, errors.New(cli.Clean(refused.Message)))
	case isProblem && problem.Code == wire.CodeBadCode:
		return cli.Fail(cli.Refused, errors.New(cli.Clean(problem.Title)), "ask the operator for a new one: `broker codes issue`")
	case isProblem && problem.Code == wire.CodeClockSkew:
		return cli.Fail(cli.Refused, errors.New(cli.Clean(problem.Title)), "set the clock that is wrong, then try again")
	case isProblem:
		return cli.Fail(cli.Refused, errors.New(cli.Clean(problem.Title)))
	}
	return cli.Fail(cli.Failed, err)
}
