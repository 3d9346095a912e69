package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	ucli "github.com/urfave/cli/v2"
)

const completionFlag = "--generate-bash-completion"

// Main runs app with args (args[0] is the program) and returns the exit code.
// It is the whole life of a program: an interrupt or SIGTERM cancels the
// context of the command, a second one ends the process at once. A command
// that ends nil after a signal, as a server does, exits with OK.
// An App may be run once.
func Main(app *ucli.App, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	app.Reader, app.Writer, app.ErrWriter = stdin, stdout, stderr
	return report(ctx, run(ctx, app, args, os.LookupEnv), stderr)
}

// run arranges the arguments and hands them to the library, which then sees
// only what it parses without surprises.
func run(ctx context.Context, app *ucli.App, args []string, env lookup) error {
	prepare(app)
	if args[len(args)-1] == completionFlag {
		return app.RunContext(ctx, args)
	}
	arranged, err := arrange(app, args, env)
	if err != nil {
		return err
	}
	return app.RunContext(ctx, arranged)
}

// prepare sets what every program wants the same of the library.
func prepare(app *ucli.App) {
	app.EnableBashCompletion = true
	app.HideHelpCommand = true // arrange understands "help COMMAND" at any depth
	app.HideVersion = true     // the version command says it
	app.DisableSliceFlagSeparator = true
	app.ExitErrHandler = func(*ucli.Context, error) {} // Main reports, the library never exits
	app.OnUsageError = badUsage
	app.CustomAppHelpTemplate = ucli.AppHelpTemplate + "\nEXIT CODES:\n" + CodeTable()
	for _, c := range app.Commands {
		prepareCommand(c)
	}
}

// prepareCommand does the same below the root. Without HideHelpCommand the
// library would take the text of `surface prompt help` for a command.
func prepareCommand(c *ucli.Command) {
	c.HideHelpCommand = true
	c.OnUsageError = badUsage
	if len(c.Subcommands) == 0 {
		c.CustomHelpTemplate = ucli.CommandHelpTemplate
	} else if c.Action == nil {
		c.Action = needsSubcommand
	}
	for _, sub := range c.Subcommands {
		prepareCommand(sub)
	}
}

func badUsage(c *ucli.Context, err error, _ bool) error {
	return Fail(Usage, err, helpHint(c.Command.HelpName))
}

func needsSubcommand(c *ucli.Context) error {
	names := visibleNames(c.Command.Subcommands)
	return usage(c.Command.Name+" needs one of: "+strings.Join(names, ", "), helpHint(c.Command.HelpName))
}

func visibleNames(commands []*ucli.Command) []string {
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func helpHint(path string) string { return "`" + path + " --help` shows how it is used" }

// Need returns the value of a string flag, or says that it is missing and the
// variable or setting that could also give it.
func Need(c *ucli.Context, flag string) (string, error) {
	if v := c.String(flag); v != "" {
		return v, nil
	}
	hint := helpHint(c.Command.HelpName)
	for _, at := range c.Lineage() {
		if at.Command == nil {
			continue
		}
		if f := findFlag(at.Command.Flags, flag); f != nil && len(envVars(f)) > 0 {
			hint = "or set " + envVars(f)[0] + " in the environment or the configuration file"
		}
	}
	return "", usage("--"+flag+" is missing", hint)
}

// WantArgs refuses a command line with fewer than min or more than max
// arguments. Flags were taken out before.
func WantArgs(c *ucli.Context, min, max int) error {
	n := c.NArg()
	if n >= min && n <= max {
		return nil
	}
	hint := "usage: " + strings.TrimSpace(c.Command.HelpName+" "+c.Command.ArgsUsage)
	if n < min {
		return usage(c.Command.Name+" needs an argument", hint)
	}
	return usage(c.Command.Name+" takes fewer arguments than given", hint)
}
