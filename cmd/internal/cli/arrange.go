package cli

import (
	"encoding/base64"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"
)

type lookup = func(string) (string, bool)

// level is one command on the way from the program to the command that runs,
// with the flags that belong to it.
type level struct {
	name  string
	path  string
	flags []ucli.Flag
	subs  []*ucli.Command
	runs  bool // has an action of its own and so takes arguments
	given []string
	set   map[ucli.Flag]bool
}

// arranger sorts a command line into levels and arguments.
type arranger struct {
	levels []*level
	args   []string
	help   bool
}

// arrange returns args in the only order the library understands: each
// command followed by its flags, then "--", then the arguments. A flag may
// stand anywhere after its command. Settings from the configuration file are
// added as flags where neither argv nor the environment has them.
func arrange(app *ucli.App, args []string, env lookup) ([]string, error) {
	a := &arranger{levels: []*level{{
		name: args[0], path: app.Name, flags: app.Flags, subs: app.Commands,
		runs: app.Action != nil, set: map[ucli.Flag]bool{},
	}}}
	if err := a.walk(args[1:]); err != nil {
		return nil, err
	}
	if a.help {
		a.here().given, a.args = []string{"--help"}, nil
	} else if err := a.settings(app, env); err != nil {
		return nil, err
	}
	return a.line(), nil
}

func (a *arranger) here() *level { return a.levels[len(a.levels)-1] }

func (a *arranger) line() []string {
	var out []string
	for _, l := range a.levels {
		out = append(append(out, l.name), l.given...)
	}
	if len(a.args) > 0 {
		out = append(append(out, "--"), a.args...)
	}
	return out
}

func (a *arranger) walk(args []string) error {
	for len(args) > 0 {
		word, rest := args[0], args[1:]
		switch {
		case word == "--":
			a.args = append(a.args, rest...)
			return nil
		case len(word) > 1 && word[0] == '-' && !isID(word):
			used, err := a.flag(word, rest)
			if err != nil {
				return err
			}
			rest = rest[used:]
		default:
			if err := a.word(word); err != nil {
				return err
			}
		}
		args = rest
	}
	return nil
}

// isID reports whether a word is the base64url of 16 bytes, as ids of pairings and surfaces are. One in 64 of them begins
// with a dash; people paste it, and no flag with one dash is that long.
func isID(word string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(word)
	return err == nil && len(b) == 16 && len(word) == 22 && !strings.HasPrefix(word, "--")
}

// word takes a command name or an argument.
func (a *arranger) word(word string) error {
	l := a.here()
	if len(l.subs) == 0 || len(a.args) > 0 {
		a.args = append(a.args, word)
		return nil
	}
	if len(a.levels) == 1 && (word == "help" || word == "h") {
		a.help = true
		return nil
	}
	if i := slices.IndexFunc(l.subs, func(c *ucli.Command) bool { return c.HasName(word) }); i >= 0 {
		a.descend(l.subs[i])
		return nil
	}
	if l.runs {
		a.args = append(a.args, word)
		return nil
	}
	hints := []string{"`" + l.path + " --help` lists the commands"}
	if near := nearest(word, visibleNames(l.subs)); near != "" {
		hints = []string{"did you mean `" + l.path + " " + near + "`?"}
	}
	return usage("unknown command "+quote(word), hints...)
}

func (a *arranger) descend(c *ucli.Command) {
	a.levels = append(a.levels, &level{
		name: c.Name, path: a.here().path + " " + c.Name, flags: c.Flags, subs: c.Subcommands,
		runs: c.Action != nil && len(c.Subcommands) == 0, set: map[ucli.Flag]bool{},
	})
}

// flag takes one flag and returns how many of the words after it are its value.
func (a *arranger) flag(word string, rest []string) (int, error) {
	name, value, inline := strings.Cut(strings.TrimLeft(word, "-"), "=")
	switch {
	case name == "help" || name == "h":
		a.help = true
		return 0, nil
	case name == "version" && len(a.levels) == 1 && !inline:
		return 0, a.word("version")
	}
	l, f := a.find(name)
	if f == nil {
		return 0, a.unknown(word, name)
	}
	l.set[f] = true
	canonical := "--" + f.Names()[0] // the library refuses a mix of long and short
	if !inline && !takesValue(f) {
		l.given = append(l.given, canonical)
		return 0, nil
	}
	used := 0
	if !inline {
		var err error
		if value, err = a.value(name, rest); err != nil {
			return 0, err
		}
		used = 1
	}
	l.given = append(l.given, canonical+"="+value)
	return used, nil
}

// value refuses to swallow a flag as the value of another.
func (a *arranger) value(name string, rest []string) (string, error) {
	if len(rest) == 0 {
		return "", usage("--"+name+" needs a value", helpHint(a.here().path))
	}
	next := rest[0]
	if len(next) > 1 && next[0] == '-' {
		following, _, _ := strings.Cut(strings.TrimLeft(next, "-"), "=")
		if _, f := a.find(following); f != nil || next == "--" {
			return "", usage("--"+name+" needs a value", "if "+quote(next)+" is its value, write --"+name+"="+next)
		}
	}
	return next, nil
}

// find looks for a flag at this command and the ones above it.
func (a *arranger) find(name string) (*level, ucli.Flag) {
	for _, l := range slices.Backward(a.levels) {
		if f := findFlag(l.flags, name); f != nil {
			return l, f
		}
	}
	return nil, nil
}

func (a *arranger) unknown(word, name string) error {
	shown, _, _ := strings.Cut(word, "=") // its value may be a secret
	l := a.here()
	hints := []string{"an argument that begins with a dash goes after --"}
	var names []string
	for _, up := range a.levels {
		for _, f := range up.flags {
			names = append(names, f.Names()...)
		}
	}
	if sub := below(l.subs, name); sub != nil {
		hints = []string{"it belongs after the command: `" + l.path + " " + sub.Name + " --" + name + "`"}
	} else if near := nearest(name, append(names, "help")); near != "" {
		hints = append([]string{"did you mean --" + near + "?"}, hints...)
	}
	return usage("unknown flag "+quote(shown), append(hints, helpHint(l.path))...)
}

// below finds the first command under here that has the flag.
func below(commands []*ucli.Command, flag string) *ucli.Command {
	for _, c := range commands {
		if findFlag(c.Flags, flag) != nil || below(c.Subcommands, flag) != nil {
			return c
		}
	}
	return nil
}

func findFlag(flags []ucli.Flag, name string) ucli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f ucli.Flag) bool {
	d, ok := f.(ucli.DocGenerationFlag)
	return !ok || d.TakesValue()
}

func envVars(f ucli.Flag) []string {
	d, ok := f.(ucli.DocGenerationFlag)
	if !ok {
		return nil
	}
	return d.GetEnvVars()
}
