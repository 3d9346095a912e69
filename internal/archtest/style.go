package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// checkSize bounds files and functions outside tests.
func checkSize(f *file) []string {
	if f.test {
		return nil
	}
	var found []string
	if f.lines > maxFileLines {
		found = append(found, fmt.Sprintf("%s: %d lines, at most %d", f.path, f.lines, maxFileLines))
	}
	for _, d := range f.tree.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			if n := f.fset.Position(fn.End()).Line - f.line(fn.Name) + 1; n > maxFuncLines {
				found = append(found, fmt.Sprintf("%s:%d: func %s has %d lines, at most %d", f.path, f.line(fn.Name), fn.Name.Name, n, maxFuncLines))
			}
		}
	}
	return found
}

// A callRule keeps calls of a package's functions out of some files.
type callRule struct {
	names   []string // "time.Now": import path, dot, function
	applies func(p *pkg, f *file) bool
	polling bool // allowed in a for loop, between two looks at what is waited for
	why     string
}

var callRules = []callRule{
	{
		names:   []string{"time.Now", "time.Since", "time.Until"},
		applies: func(p *pkg, f *file) bool { return !f.test && slices.Contains(timeless, p.name) },
		why:     "the time is a parameter here",
	},
	{
		names:   []string{"time.Sleep"},
		applies: func(p *pkg, f *file) bool { return !f.test && !helper(p.name) },
		why:     "wait on a timer and the context, so that stopping works",
	},
	{
		names:   []string{"time.Sleep"},
		applies: func(_ *pkg, f *file) bool { return f.test && !bubbled(f) },
		polling: true,
		why:     "a sleep proves nothing; use testing/synctest, where it costs nothing, or wait for the thing itself",
	},
	{
		names:   []string{"os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln"},
		applies: func(p *pkg, f *file) bool { return !f.test && !helper(p.name) && !strings.HasPrefix(p.name, "cmd/") },
		why:     "only a program ends the process; return an error",
	},
	{
		names: []string{"os.Getenv", "os.LookupEnv"},
		applies: func(p *pkg, f *file) bool {
			chaos := f.path == "internal/telemetry/chaos.go" // never in a release binary, as its test shows
			return !f.test && !chaos && !helper(p.name) && !strings.HasPrefix(p.name, "cmd/")
		},
		why: "only the programs read the environment; take a configuration",
	},
}

// bubbled says whether a test file's clock is testing/synctest's.
func bubbled(f *file) bool {
	return f.importsPath("testing/synctest") || f.importsPath(module+"/pkg/tunnel/tunneltest")
}

// checkCalls applies callRules, forbids skipped tests, and looks for SQL in string literals that asks the time.
func checkCalls(p *pkg, f *file) []string {
	var found []string
	complain := func(n ast.Node, what, why string) {
		found = append(found, fmt.Sprintf("%s:%d: %s: %s", f.path, f.line(n), what, why))
	}
	imported := importNames(f)
	sql := slices.Contains(p.imports, "database/sql")
	var loops []*ast.ForStmt
	looped := func(n ast.Node) bool {
		return slices.ContainsFunc(loops, func(l *ast.ForStmt) bool { return l.Pos() <= n.Pos() && n.End() <= l.End() })
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ForStmt:
			loops = append(loops, n)
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			name := imported[x.Name] + "." + n.Sel.Name
			for _, r := range callRules {
				if slices.Contains(r.names, name) && r.applies(p, f) && !(r.polling && looped(n)) {
					complain(n, name, r.why)
				}
			}
			if f.test && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, n.Sel.Name) && slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) && !under(p.name, []string{"e2e/faults"}) {
				complain(n, x.Name+"."+n.Sel.Name, "a test that is skipped shows nothing; say what it needs with a build tag")
			}
		case *ast.BasicLit:
			if sql && n.Kind == token.STRING && asksTime.MatchString(n.Value) {
				complain(n, "SQL asks the time", "pass it as a parameter")
			}
		}
		return true
	})
	return found
}

// importNames maps the names under which a file knows its imports to their paths.
func importNames(f *file) map[string]string {
	names := make(map[string]string, len(f.tree.Imports))
	for _, i := range f.tree.Imports {
		full := unquote(i.Path.Value)
		name := full[strings.LastIndex(full, "/")+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		names[name] = full
	}
	return names
}

// promise finds comments that put something off.
var promise = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

func checkComments(f *file) []string {
	var found []string
	for _, g := range f.tree.Comments {
		for _, c := range g.List {
			if word := promise.FindString(c.Text); word != "" && !strings.HasPrefix(f.path, "internal/archtest/") {
				found = append(found, fmt.Sprintf("%s:%d: %s: do it, or write an issue", f.path, f.line(c), word))
			}
		}
	}
	return found
}
