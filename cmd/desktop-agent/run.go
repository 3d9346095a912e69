package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/wire"
)

const (
	executorOpenCode = "opencode"
	executorEcho     = agent.ExecutorEcho
)

func executorFlag() ucli.Flag {
	return &ucli.StringFlag{
		Name: "executor", EnvVars: []string{cli.EnvName(program, "executor")}, Value: executorOpenCode,
		Usage: "what runs commands: opencode, or echo (answers with the prompt; for trying things out)",
	}
}

func runCommand() *ucli.Command {
	return &ucli.Command{
		Name: "run", Usage: "dial out to the broker and run what your linked devices send",
		Description: "OpenCode modes: own (your own configuration and sessions, started and watched by the agent), isolated (a home of\n" +
			"its own, for servers and tests), attach (one that runs already, with --opencode-url and --opencode-password-file).",
		Flags: append(networkFlags(),
			executorFlag(),
			&ucli.StringFlag{Name: "opencode", EnvVars: []string{cli.EnvName(program, "opencode")}, Value: "own", Usage: "`MODE`: own, isolated or attach"},
			&ucli.PathFlag{Name: "opencode-bin", EnvVars: []string{"OPENCODE_BIN"}, Usage: "OpenCode's program `FILE` (default: opencode on PATH)"},
			&ucli.StringFlag{Name: "opencode-url", EnvVars: []string{cli.EnvName(program, "opencode-url")}, Usage: "`URL` of the OpenCode to attach to, on this machine"},
			&ucli.PathFlag{Name: "opencode-password-file", EnvVars: []string{cli.EnvName(program, "opencode-password-file")}, Usage: "its password, in a `FILE` that only you can read"},
			&ucli.StringSliceFlag{Name: "project", EnvVars: []string{cli.EnvName(program, "project")}, Usage: "a folder that devices may work in, as `NAME=DIR`; repeatable, the first is the default"},
			&ucli.StringFlag{Name: "log-level", EnvVars: []string{cli.EnvName(program, "log-level")}, Value: "info", Usage: "debug, info, warn or error"},
		),
		Action: run,
	}
}

func run(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	cfg, err := config(c)
	if err != nil {
		return err
	}
	a, err := agent.New(c.Context, cfg)
	if err != nil {
		return fail(err)
	}
	defer context.AfterFunc(c.Context, retryOnHangup(a))()
	cfg.Logger.Info("running", "state", cfg.StateDir, "version", cfg.Version, "next", "desktop-agent link")
	return fail(errors.Join(a.Run(c.Context), a.Close()))
}

// retryOnHangup dials at once on SIGHUP; what it returns ends that.
func retryOnHangup(a *agent.Agent) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for range hangup {
			a.RetryNow()
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(hangup)
	}
}

func config(c *ucli.Context) (agent.Config, error) {
	dir, err := cli.StateDir(c, program)
	if err != nil {
		return agent.Config{}, err
	}
	if err := cli.MakeDir(dir); err != nil {
		return agent.Config{}, err
	}
	level, err := telemetry.ParseLevel(c.String("log-level"))
	if err != nil {
		return agent.Config{}, cli.Fail(cli.Usage, err)
	}
	log, err := telemetry.NewLogger(c.App.ErrWriter, telemetry.LogAuto, level)
	if err != nil {
		return agent.Config{}, err
	}
	secrets, err := agent.OpenSecrets(c.String("keystore"), dir)
	if err != nil {
		return agent.Config{}, cli.Fail(cli.Usage, err)
	}
	client, pem, err := network(c)
	if err != nil {
		return agent.Config{}, err
	}
	executor, err := executorOf(c, dir, log)
	if err != nil {
		return agent.Config{}, err
	}
	return agent.Config{
		StateDir: dir, Secrets: secrets, Executor: executor, Machine: agent.MachineID(), Version: telemetry.BuildInfo().Version,
		Dial: agent.Network(pem, c.String("proxy")), HTTP: client, Logger: log, Now: telemetry.Now,
	}, nil
}

func executorOf(c *ucli.Context, dir string, log *slog.Logger) (func(agent.Seed) (agent.Executor, error), error) {
	switch c.String("executor") {
	case executorEcho:
		log.Warn("the echo executor answers each prompt with itself and runs nothing")
		return func(agent.Seed) (agent.Executor, error) { return agent.NewEcho(telemetry.Now), nil }, nil
	case executorOpenCode:
	default:
		return nil, cli.Usagef("--executor is opencode or echo")
	}
	projects, err := projectsOf(c, dir)
	if err != nil {
		return nil, err
	}
	for _, line := range agent.Loosened(projects) {
		log.Warn("a project's own configuration loosens permissions", "what", line)
	}
	o := agent.OpenCode{
		Mode: c.String("opencode"), URL: c.String("opencode-url"), PasswordFile: c.Path("opencode-password-file"),
		StateDir: dir, Projects: projects, Logger: log,
	}
	if o.Mode != "attach" {
		if o.Binary, err = openCodeBinary(c.Path("opencode-bin")); err != nil {
			return nil, err
		}
	}
	return o.Executor, nil
}

func openCodeBinary(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	found, err := exec.LookPath("opencode")
	if err != nil {
		return "", cli.Fail(cli.Usage, errors.New("OpenCode is not installed"),
			"install it (npm install -g opencode-ai), or name its program with --opencode-bin FILE",
			"or try things out without it: `desktop-agent run --executor echo`")
	}
	return found, nil
}

func recoverCommand() *ucli.Command {
	return &ucli.Command{
		Name: "recover", Usage: "go on after this desktop was restored from a backup",
		Description: "A restored or copied state folder locks its pairings (journal_changed). This makes new keys, erases the old ones,\n" +
			"and lets each device's next message say where it stands. The agent must be running.",
		Flags: []ucli.Flag{&ucli.BoolFlag{Name: "yes", Usage: "do not ask"}},
		Action: func(c *ucli.Context) error {
			if err := cli.WantArgs(c, 0, 0); err != nil {
				return err
			}
			cl, err := client(c)
			if err != nil {
				return err
			}
			if err := cli.Confirm(c, "Was this desktop restored from a backup, and does no copy of it run elsewhere?", "yes"); err != nil {
				return err
			}
			if err := cl.Recover(c.Context); err != nil {
				return fail(err)
			}
			_, err = fmt.Fprintln(c.App.ErrWriter, "recovered: new keys, new epoch; devices go on by themselves")
			return err
		},
	}
}

// names of projects as they leave the desktop.
func projectNames(all []wire.ExecProject) (names []string) {
	for _, p := range all {
		names = append(names, p.Name)
	}
	return names
}
