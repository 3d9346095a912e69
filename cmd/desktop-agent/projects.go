package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/pkg/wire"
)

// projectsFile keeps the answer to the question of the first start.
const projectsFile = "projects.json"

// projectsOf are the folders that devices may work in: --project, else what was answered at the first start, else it
// asks now.
func projectsOf(c *ucli.Context, dir string) ([]wire.ExecProject, error) {
	if given := c.StringSlice("project"); len(given) > 0 {
		return parseProjects(given)
	}
	path := filepath.Join(dir, projectsFile)
	raw, err := os.ReadFile(path)
	if err == nil {
		var kept []wire.ExecProject
		if json.Unmarshal(raw, &kept) != nil || len(kept) == 0 {
			return nil, cli.Fail(cli.Failed, fmt.Errorf("%s is damaged", path), "remove it, or give --project NAME=DIR")
		}
		return kept, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return askProject(c, path)
}

func askProject(c *ucli.Context, path string) ([]wire.ExecProject, error) {
	if !cli.IsTerminal(c.App.Reader) {
		return nil, cli.Fail(cli.Usage, errors.New("no folder is named for your devices to work in"), "give --project NAME=DIR")
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	dir, err := cli.Ask(c, "Which folder may your devices work in? ["+here+"]")
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = here
	}
	all, err := parseProjects([]string{cleanName(filepath.Base(dir)) + "=" + dir})
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return all, os.WriteFile(path, raw, 0o600)
}

// parseProjects reads NAME=DIR. Names leave the desktop, folders do not.
func parseProjects(given []string) ([]wire.ExecProject, error) {
	var all []wire.ExecProject
	for _, each := range given {
		name, dir, ok := strings.Cut(each, "=")
		if !ok || name == "" || dir == "" || cleanName(name) != name {
			return nil, cli.Fail(cli.Usage, fmt.Errorf("--project %s is not NAME=DIR", cli.Clean(each)), "a name has letters, digits and . _ - only")
		}
		if rest, home := strings.CutPrefix(dir, "~/"); home {
			at, err := os.UserHomeDir()
			if err != nil {
				return nil, err
			}
			dir = filepath.Join(at, rest)
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		if info, err := os.Stat(abs); err != nil || !info.IsDir() {
			return nil, cli.Usagef("--project %s: %s is not a folder", name, abs)
		}
		if slices.Contains(projectNames(all), name) {
			return nil, cli.Usagef("--project %s is given twice", name)
		}
		all = append(all, wire.ExecProject{Name: name, Dir: abs})
	}
	return all, nil
}

func cleanName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', strings.ContainsRune("._-", r):
			return r
		}
		return '-'
	}, s[:min(len(s), 40)])
}
