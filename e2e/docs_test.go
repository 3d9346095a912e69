//go:build e2e

package e2e

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are all of the tree's Markdown files, as paths from this folder, and what stands in them.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, root := range []string{"../*.md", "../docs/*.md", "../docs/*/*.md", "../pkg/*/*.md"} {
		paths, err := filepath.Glob(root)
		check(t, err)
		for _, path := range paths {
			raw, err := os.ReadFile(path)
			check(t, err)
			all[path] = string(raw)
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d documents", len(all))
	}
	return all
}

// TestLinksOfDocuments: what a document links to is there, and has the heading that is named.
func TestLinksOfDocuments(t *testing.T) {
	all := documents(t)
	links := 0
	for path, text := range all {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			target, heading, _ := strings.Cut(link[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			there := path
			if target != "" {
				there = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(there); err != nil {
				t.Errorf("%s links to %s, which is not there", path, link[1])
			}
			if heading != "" && !slices.Contains(anchors(all[there]), heading) {
				t.Errorf("%s links to %s, which has no such heading", path, link[1])
			}
		}
	}
	if links < 15 {
		t.Errorf("only %d links were found", links)
	}
}

func anchors(text string) (all []string) {
	for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(h[1]), "")
		all = append(all, strings.ReplaceAll(plain, " ", "-"))
	}
	return all
}

// TestNamesInDocuments: a flag, a setting or a test that a document names as code exists.
func TestNamesInDocuments(t *testing.T) {
	help := strings.Join(slices.Collect(maps.Values(commands(t))), "\n")
	if !strings.Contains(help, "$BROKER_LISTEN") {
		t.Fatal("the help names no settings")
	}
	tests := sources(t, "_test.go")
	for path, text := range documents(t) {
		for _, setting := range regexp.MustCompile(`(?m)^(BROKER|DESKTOP_AGENT|SURFACE)_[A-Z_]+`).FindAllString(text, -1) {
			if !strings.Contains(help, "$"+setting) {
				t.Errorf("%s sets %s, and no command takes it", path, setting)
			}
		}
		for _, code := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(text, -1) {
			if program := regexp.MustCompile(`^(broker|desktop-agent|surface) .*(--[a-z-]+)`).FindStringSubmatch(code[1]); program != nil &&
				!strings.Contains(help, program[2]) {
				t.Errorf("%s names `%s`, and no command has that flag", path, code[1])
			}
			if name := regexp.MustCompile(`^(Test|Fuzz)\w+$`).FindString(code[1]); name != "" && !strings.Contains(tests, "func "+name+"(") {
				t.Errorf("%s names %s, which is not there", path, name)
			}
		}
	}
}

// TestExitCodesInDocuments: the table for operators is the one that the programs print.
func TestExitCodesInDocuments(t *testing.T) {
	ctx, l := newLab(t, "bin")
	for _, name := range []string{"broker", "desktop-agent", "surface"} {
		help, err := l.Must(ctx, "", name, "--help")
		check(t, err)
		_, table, _ := strings.Cut(help, "EXIT CODES:\n")
		rows := regexp.MustCompile(`(?m)^ +(\d+) +(.+)$`).FindAllStringSubmatch(table, -1)
		if len(rows) < 7 {
			t.Errorf("%s prints %d exit codes", name, len(rows))
		}
		for _, row := range rows {
			if want := "| " + row[1] + " | " + row[2] + " |"; !strings.Contains(documents(t)["../docs/operations.md"], want) {
				t.Errorf("docs/operations.md lacks %s", want)
			}
		}
	}
}

// commands are all commands of the three programs that do something, with their help.
func commands(t *testing.T) map[string]string {
	t.Helper()
	ctx, l := newLab(t, "bin")
	all := map[string]string{}
	var walk func(name string, path ...string)
	walk = func(name string, path ...string) {
		out, err := l.Must(ctx, "", name, append(path, "--help")...)
		check(t, err)
		_, list, group := strings.Cut(out, "\nCOMMANDS:\n")
		if !group {
			all[strings.Join(append([]string{name}, path...), " ")] = out
			return
		}
		list, _, _ = strings.Cut(list, "\n\n")
		for _, line := range regexp.MustCompile(`(?m)^   ([a-z-]+)`).FindAllStringSubmatch(list, -1) {
			walk(name, append(slices.Clone(path), line[1])...)
		}
	}
	for _, name := range []string{"broker", "desktop-agent", "surface"} {
		walk(name)
	}
	return all
}

// sources is the text of all files of the tree whose names end so.
func sources(t *testing.T, ends string) string {
	t.Helper()
	var all strings.Builder
	check(t, filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ends) {
			return err
		}
		raw, err := os.ReadFile(path)
		all.Write(raw)
		return err
	}))
	return all.String()
}

// TestEveryCommandIsTested: a story or an end-to-end test names every command that the programs' help lists.
func TestEveryCommandIsTested(t *testing.T) {
	all := commands(t)
	if len(all) < 35 {
		t.Fatalf("only %d commands were found", len(all))
	}
	stories, tests := sources(t, ".txt"), sources(t, "_test.go")
	for name := range all {
		words := strings.Fields(name)
		asArguments := `"` + strings.Join(words[1:], `", "`) + `"`
		if !strings.Contains(stories, name) && !strings.Contains(tests, asArguments) {
			t.Errorf("no story and no test names `%s`", name)
		}
	}
}
