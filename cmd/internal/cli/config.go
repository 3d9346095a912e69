package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/internal/redact"
)

const (
	configFlag = "config"
	// MaxConfig is the most a configuration file may hold, in bytes.
	MaxConfig = 64 << 10
)

// ConfigFlag returns the flag of the program itself that names its
// configuration file. With it, a setting is taken from the flag, else from the
// environment, else from the file.
//
// The file has lines NAME=VALUE, where NAME is the variable a flag lists in
// EnvVars; a repeatable flag may be named on many lines; # begins a comment.
// It is the format of systemd's EnvironmentFile, so one file serves both.
// A file others may write, or read while it holds a secret, is refused.
func ConfigFlag(program string) ucli.Flag {
	return &ucli.PathFlag{
		Name: configFlag, EnvVars: []string{EnvName(program, configFlag)}, Value: defaultConfig(program),
		Usage: "read settings from `FILE` (lines NAME=VALUE, names as in brackets here)",
	}
}

// EnvName returns the variable for a flag: ("desktop-agent", "log-level") is
// DESKTOP_AGENT_LOG_LEVEL.
func EnvName(program, flag string) string {
	return strings.ToUpper(strings.ReplaceAll(program+"_"+flag, "-", "_"))
}

// defaultConfig is $CONFIGURATION_DIRECTORY (systemd), else the user's
// configuration folder.
func defaultConfig(program string) string {
	if dir := firstOf(os.Getenv("CONFIGURATION_DIRECTORY")); dir != "" {
		return filepath.Join(dir, program+".conf")
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, program, program+".conf")
}

// setting is one line of a configuration file.
type setting struct {
	name, value string
	line        int
}

// settings adds what the configuration file says to the levels of this line.
func (a *arranger) settings(app *ucli.App, env lookup) error {
	f := findFlag(app.Flags, configFlag)
	if f == nil {
		return nil
	}
	path, named := a.configPath(f, env)
	list, err := readConfig(path, allNames(app))
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return err
	}
	for _, l := range a.levels {
		l.apply(list, env)
	}
	return nil
}

// configPath returns the file and whether a person named it.
func (a *arranger) configPath(f ucli.Flag, env lookup) (string, bool) {
	for _, given := range a.levels[0].given {
		if v, ok := strings.CutPrefix(given, "--"+configFlag+"="); ok {
			return v, true
		}
	}
	for _, name := range envVars(f) {
		if v, ok := env(name); ok && v != "" {
			return v, true
		}
	}
	return f.(*ucli.PathFlag).Value, false
}

// apply adds the settings for flags that neither argv nor the environment has.
func (l *level) apply(list []setting, env lookup) {
	for _, f := range l.flags {
		if l.set[f] || anySet(envVars(f), env) {
			continue
		}
		for _, s := range list {
			if slices.Contains(envVars(f), s.name) {
				l.given = append(l.given, "--"+f.Names()[0]+"="+s.value)
			}
		}
	}
}

func anySet(names []string, env lookup) bool {
	for _, name := range names {
		if _, ok := env(name); ok {
			return true
		}
	}
	return false
}

// allNames lists every variable of the program: what a file may set.
func allNames(app *ucli.App) []string {
	var names []string
	var add func(flags []ucli.Flag, commands []*ucli.Command)
	add = func(flags []ucli.Flag, commands []*ucli.Command) {
		for _, f := range flags {
			names = append(names, envVars(f)...)
		}
		for _, c := range commands {
			add(c.Flags, c.Subcommands)
		}
	}
	add(app.Flags, app.Commands)
	return names
}

// readConfig reads and checks a configuration file.
func readConfig(path string, known []string) ([]setting, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, Fail(Usage, fmt.Errorf("configuration file: %w", err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	if len(data) > MaxConfig {
		return nil, usage(fmt.Sprintf("configuration file %s is larger than %d bytes", path, MaxConfig))
	}
	list, err := parseConfig(path, string(data), known)
	if err != nil {
		return nil, err
	}
	return list, configMode(path, info.Mode().Perm(), list)
}

func parseConfig(path, text string, known []string) ([]setting, error) {
	var list []setting
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, usage(fmt.Sprintf("%s line %d is not NAME=VALUE", path, n))
		}
		name = strings.TrimSpace(name)
		if !slices.Contains(known, name) {
			return nil, unknownSetting(path, n, name, known)
		}
		list = append(list, setting{name, unquote(strings.TrimSpace(value)), n})
	}
	return list, nil
}

func unknownSetting(path string, line int, name string, known []string) error {
	hint := "`--help` shows the names in brackets"
	if near := nearest(name, known); near != "" {
		hint = "did you mean " + near + "?"
	}
	return usage(fmt.Sprintf("%s line %d: unknown setting %s", path, line, quote(name)), hint)
}

func unquote(v string) string {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}

// configMode refuses a file that others can change, and one that others can
// read when it holds a secret.
func configMode(path string, mode fs.FileMode, list []setting) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	if mode&0o022 != 0 {
		return usage(path+" can be changed by others", "chmod go-w "+path)
	}
	if mode&0o077 == 0 {
		return nil
	}
	for _, s := range list {
		if holdsSecret(s.name, s.value) {
			return usage(fmt.Sprintf("%s can be read by others and line %d holds a secret", path, s.line), "chmod 600 "+path)
		}
	}
	return nil
}

// holdsSecret judges a setting by its name and its value. That of a file is
// none.
func holdsSecret(name, value string) bool {
	return redact.HasSecret(name+"="+value) && !strings.HasSuffix(name, "_FILE")
}
