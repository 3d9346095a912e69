// Package cli is what the three programs share at their edge: flags before
// and after arguments, settings from flags, environment and a file, errors as
// one line and hints, exit codes, progress, secrets that never stand in argv,
// tables, JSON, completion.
//
// A program builds a urfave/cli App and returns Main's value:
//
//	func main() { os.Exit(cli.Main(newApp(), os.Args, os.Stdin, os.Stdout, os.Stderr)) }
//
// Conventions a program follows, and Check holds in its test:
//   - the value of a flag that may come from outside argv names its variable
//     in EnvVars; the configuration file uses the same names
//   - no flag is Required (the library prints its help for it): use Need
//   - a flag that names a file is a PathFlag; no other kind may carry a secret
package cli
