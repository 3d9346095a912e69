package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"
)

// secretWords in a flag's name mean that its value could be a secret, unless
// the flag is a PathFlag or takes no value.
var secretWords = []string{"token", "code", "link", "secret", "password", "passphrase", "pepper", "digits"}

// Check returns what is wrong with the commands and flags of a program, nil if
// nothing: a test of each program calls it.
func Check(app *ucli.App) error {
	var errs []error
	checkLevel(app.Name, app.Flags, app.Commands, nil, &errs)
	return errors.Join(errs...)
}

func checkLevel(path string, flags []ucli.Flag, commands []*ucli.Command, above []string, errs *[]error) {
	for _, f := range flags {
		if err := checkFlag(f, above); err != nil {
			*errs = append(*errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	for _, f := range flags {
		above = append(above[:len(above):len(above)], f.Names()...)
	}
	for _, c := range commands {
		sub := path + " " + c.Name
		if c.Usage == "" {
			*errs = append(*errs, fmt.Errorf("%s: no usage text", sub))
		}
		if len(c.Subcommands) > 0 && c.Action != nil {
			*errs = append(*errs, fmt.Errorf("%s: both an action and commands below it", sub))
		}
		checkLevel(sub, c.Flags, c.Subcommands, above, errs)
	}
}

func checkFlag(f ucli.Flag, above []string) error {
	name := f.Names()[0]
	if r, ok := f.(ucli.RequiredFlag); ok && r.IsRequired() {
		return fmt.Errorf("--%s is Required: use Need", name)
	}
	for _, n := range f.Names() {
		if slices.Contains(above, n) {
			return fmt.Errorf("--%s stands twice on one line of commands", n)
		}
		if slices.Contains([]string{"help", "h", "version"}, n) {
			return fmt.Errorf("--%s is taken", n)
		}
	}
	if d, ok := f.(ucli.DocGenerationFlag); ok && d.GetUsage() == "" {
		return fmt.Errorf("--%s: no usage text", name)
	}
	_, isPath := f.(*ucli.PathFlag)
	if isPath || !takesValue(f) {
		return nil
	}
	for _, word := range secretWords {
		if slices.Contains(strings.Split(name, "-"), word) {
			return fmt.Errorf("--%s would put a secret into argv: make it a PathFlag", name)
		}
	}
	return nil
}
