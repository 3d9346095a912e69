package cli_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"demo": func() {
		os.Exit(cli.Main(demo(), os.Args, os.Stdin, os.Stdout, os.Stderr))
	}})
}

func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: func(e *testscript.Env) error {
		e.Setenv("HOME", e.WorkDir)
		e.Setenv("GORACE", "atexit_sleep_ms=0") // else each program waits a second to end
		e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/conf")
		return nil
	}})
}

// demo is a program with one command for each thing the package does.
func demo() *ucli.App {
	return &ucli.App{
		Name: "demo", Usage: "show the edge",
		Flags: []ucli.Flag{
			cli.ConfigFlag("demo"), cli.StateFlag("demo"),
			&ucli.StringFlag{Name: "broker", Usage: "`URL`", EnvVars: []string{"DEMO_BROKER"}},
		},
		Commands: []*ucli.Command{
			{Name: "codes", Usage: "pairing codes", Subcommands: []*ucli.Command{
				{Name: "issue", Usage: "make one", Flags: []ucli.Flag{cli.JSONFlag(), lifetime()}, Action: show},
				{Name: "revoke", Usage: "end one", ArgsUsage: "ID", Flags: []ucli.Flag{cli.JSONFlag()}, Action: show},
			}},
			{Name: "prompt", Usage: "send a task", ArgsUsage: "TEXT", Action: show, Flags: []ucli.Flag{
				cli.JSONFlag(), lifetime(),
				&ucli.StringSliceFlag{Name: "project", Aliases: []string{"p"}, Usage: "`NAME=DIR`", EnvVars: []string{"DEMO_PROJECT"}},
			}},
			{Name: "link", Usage: "link this surface", ArgsUsage: "[-|FILE]", Action: link},
			{Name: "need", Usage: "needs the broker", Action: need},
			{Name: "one", Usage: "takes one argument", ArgsUsage: "ID", Action: one},
			{Name: "state", Usage: "say where state is kept", Action: state},
			{Name: "end", Usage: "end in a certain way", ArgsUsage: "HOW", Action: end},
			{Name: "ask", Usage: "ask twice", Action: ask},
			{Name: "wipe", Usage: "needs a yes", Flags: []ucli.Flag{&ucli.BoolFlag{Name: "yes", Usage: "do not ask"}}, Action: wipe},
			{Name: "wait", Usage: "wait for a signal", Action: wait},
			cli.VersionCommand(cli.Build{Version: "1.2.3", Commit: "abc", Go: "go1.26", Platform: "linux/amd64", ProtocolMin: 1, ProtocolMax: 2}),
			cli.CompletionCommand(),
		},
	}
}

func lifetime() ucli.Flag {
	return &ucli.IntFlag{Name: "lifetime", Aliases: []string{"l"}, Usage: "`MINUTES`", EnvVars: []string{"DEMO_LIFETIME"}}
}

func show(c *ucli.Context) error {
	_, err := fmt.Fprintf(c.App.Writer, "%s json=%v lifetime=%d broker=%s project=%q args=%q\n",
		c.Command.Name, c.Bool("json"), c.Int("lifetime"), c.String("broker"), c.StringSlice("project"), c.Args().Slice())
	return err
}

func link(c *ucli.Context) error {
	secret, err := cli.SecretArg(c, "the link")
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%d characters, shown as %v %q %x\n", len(secret.Reveal()), secret, secret, secret)
	return nil
}

func need(c *ucli.Context) error {
	v, err := cli.Need(c, "broker")
	fmt.Fprintln(c.App.Writer, v)
	return err
}

func one(c *ucli.Context) error { return cli.WantArgs(c, 1, 1) }

func state(c *ucli.Context) error {
	dir, err := cli.StateDir(c, "demo")
	if err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, dir)
	return cli.MakeDir(dir)
}

func end(c *ucli.Context) error {
	how := c.Args().First()
	err := errors.New("it is\nso: " + how)
	switch how {
	case "dial":
		_, err := net.Dial("unix", "/nonexistent/agent.sock")
		return fmt.Errorf("the agent: %w", err)
	case "refused":
		return cli.Fail(cli.Refused, err, "ask the owner", "or \x1b[31mnot")
	case "unknown":
		return fmt.Errorf("wrapped: %w", cli.Fail(cli.Unknown, err))
	}
	return err
}

func ask(c *ucli.Context) error {
	for range 2 {
		answer, err := cli.Ask(c, "digits?")
		if err != nil {
			return err
		}
		fmt.Fprintln(c.App.Writer, strings.ToUpper(answer))
	}
	return nil
}

func wipe(c *ucli.Context) error { return cli.Confirm(c, "wipe?", "yes") }

func wait(c *ucli.Context) error {
	fmt.Fprintln(c.App.Writer, "waiting")
	<-c.Context.Done()
	return c.Context.Err()
}

func TestDemoKeepsTheConventions(t *testing.T) {
	if err := cli.Check(demo()); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	app := &ucli.App{Name: "bad", Flags: []ucli.Flag{&ucli.BoolFlag{Name: "json", Usage: "x"}}, Commands: []*ucli.Command{
		{Name: "a", Usage: "a", Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "pairing-code", Usage: "x"},
			&ucli.StringFlag{Name: "must", Usage: "x", Required: true},
			&ucli.BoolFlag{Name: "json", Usage: "x"},
			&ucli.BoolFlag{Name: "h", Usage: "x"},
			&ucli.BoolFlag{Name: "mute"},
			&ucli.PathFlag{Name: "token", Usage: "a path may be named so"},
			&ucli.BoolFlag{Name: "no-link", Usage: "a switch too"},
		}},
		{Name: "b", Action: show, Subcommands: []*ucli.Command{{Name: "c", Usage: "c"}}},
	}}
	err := cli.Check(app)
	if err == nil {
		t.Fatal("nothing found")
	}
	want := []string{
		"bad a: --pairing-code would put a secret into argv", "bad a: --must is Required", "bad a: --json stands twice",
		"bad a: --h is taken", "bad a: --mute: no usage text", "bad b: no usage text", "bad b: both an action",
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("missing %q", w)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != len(want) {
		t.Errorf("%d findings, want %d:\n%v", n, len(want), err)
	}
}
