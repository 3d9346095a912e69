package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	ucli "github.com/urfave/cli/v2"
)

const stateFlag = "state"

// StateFlag returns the flag of the program itself that names its state folder.
func StateFlag(program string) ucli.Flag {
	return &ucli.PathFlag{
		Name: stateFlag, EnvVars: []string{EnvName(program, stateFlag)},
		Usage: "keep state in `DIR` (default: $STATE_DIRECTORY, else $XDG_STATE_HOME, else the user's state folder)",
	}
}

// StateDir returns the program's state folder: --state, else $STATE_DIRECTORY
// (systemd makes it), else $XDG_STATE_HOME/PROGRAM, else where the platform
// keeps such things. It does not make it; MakeDir does.
func StateDir(c *ucli.Context, program string) (string, error) {
	if dir := c.Path(stateFlag); dir != "" {
		return filepath.Abs(dir)
	}
	home, _ := os.UserHomeDir()
	dir := stateDir(program, runtime.GOOS, home, os.Getenv)
	if dir == "" {
		return "", usage("no state folder: neither HOME nor XDG_STATE_HOME nor STATE_DIRECTORY is set", "name one with --state DIR")
	}
	return dir, nil
}

func stateDir(program, goos, home string, env func(string) string) string {
	if dir := firstOf(env("STATE_DIRECTORY")); dir != "" {
		return dir
	}
	if dir := env("XDG_STATE_HOME"); filepath.IsAbs(dir) { // a relative one is to be ignored
		return filepath.Join(dir, program)
	}
	if dir := env("LOCALAPPDATA"); goos == "windows" && dir != "" {
		return filepath.Join(dir, program)
	}
	switch {
	case home == "":
		return ""
	case goos == "darwin":
		return filepath.Join(home, "Library", "Application Support", program)
	}
	return filepath.Join(home, ".local", "state", program)
}

// firstOf takes the first of a list of folders as systemd writes it.
func firstOf(list string) string {
	first, _, _ := strings.Cut(list, string(filepath.ListSeparator))
	return first
}

// MakeDir makes a folder that only its owner may enter, parents included. An
// existing one that others may change is refused.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Fail(Failed, err, "name another folder with --state DIR")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return Fail(Usage, errors.New(dir+" can be changed by others"), fmt.Sprintf("chmod 700 %s", dir))
	}
	return nil
}
