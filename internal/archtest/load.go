package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// module is the product's module path; dev tools and benchmarks are modules of their own below it.
const module = "cowork.example.com/broker"

// pkg is one folder with Go files.
type pkg struct {
	name     string // folder relative to the module's root, with slashes: "pkg/wire"
	files    []*file
	imports  []string // what its non-test files import, sorted, each once; ours relative like name
	sqlClock []string // SQL of this folder that asks the time, as complaints
}

// file is one parsed Go file.
type file struct {
	path  string
	test  bool
	lines int
	fset  *token.FileSet
	tree  *ast.File
}

// line is where a node begins.
func (f *file) line(n ast.Node) int { return f.fset.Position(n.Pos()).Line }

// importsPath says whether the file imports the package of that full path.
func (f *file) importsPath(full string) bool {
	return slices.ContainsFunc(f.tree.Imports, func(i *ast.ImportSpec) bool { return unquote(i.Path.Value) == full })
}

// skipped are folders that hold nothing of ours, or another language.
var skipped = []string{"node_modules", "testdata", "build", "bin", "dist"}

// load parses every Go file under root, except in [skipped] and hidden folders.
func load(root fs.FS) (map[string]*pkg, error) {
	packages := make(map[string]*pkg)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			base := path.Base(name)
			if name != "." && (strings.HasPrefix(base, ".") || slices.Contains(skipped, base)) {
				return fs.SkipDir
			}
			return nil
		}
		return loadFile(root, name, packages)
	})
	for _, p := range packages {
		slices.Sort(p.imports)
		p.imports = slices.Compact(p.imports)
	}
	return packages, err
}

func loadFile(root fs.FS, name string, packages map[string]*pkg) error {
	ext := path.Ext(name)
	if ext != ".go" && ext != ".sql" {
		return nil
	}
	source, err := fs.ReadFile(root, name)
	if err != nil {
		return err
	}
	if ext == ".sql" {
		addSQL(packageOf(packages, path.Dir(path.Dir(name))), name, source)
		return nil
	}
	f := &file{path: name, test: strings.HasSuffix(name, "_test.go"), lines: bytes.Count(source, []byte("\n")), fset: token.NewFileSet()}
	if f.tree, err = parser.ParseFile(f.fset, name, source, parser.ParseComments|parser.SkipObjectResolution); err != nil {
		return fmt.Errorf("parse: %w", err)
	}
	p := packageOf(packages, path.Dir(name))
	p.files = append(p.files, f)
	if f.test {
		return nil
	}
	for _, i := range f.tree.Imports {
		p.imports = append(p.imports, relative(unquote(i.Path.Value)))
	}
	return nil
}

// asksTime finds SQL that reads the clock: the time is always a parameter, so that a test can choose it.
var asksTime = regexp.MustCompile(`(?i)\bcurrent_(timestamp|time|date)\b|\b(datetime|date|time|julianday|unixepoch|strftime)\s*\([^)]*'now'|\bunixepoch\(\s*\)|\bnow\(\s*\)`)

func addSQL(p *pkg, name string, source []byte) {
	for i, line := range strings.Split(string(source), "\n") {
		if code, _, _ := strings.Cut(line, "--"); asksTime.MatchString(code) {
			p.sqlClock = append(p.sqlClock, fmt.Sprintf("%s:%d: SQL asks the time; pass it as a parameter", name, i+1))
		}
	}
}

func packageOf(packages map[string]*pkg, name string) *pkg {
	if packages[name] == nil {
		packages[name] = &pkg{name: name}
	}
	return packages[name]
}

// relative cuts the module's path off an import of ours and leaves any other as it is.
func relative(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

func unquote(s string) string {
	u, err := strconv.Unquote(s)
	if err != nil {
		return s // the parser accepted it, so this is an import path in a form that no rule knows
	}
	return u
}
