package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// checkPlace wants every package in the table, under a name that says something.
func checkPlace(p *pkg) []string {
	var found []string
	if slices.Contains(vague, path.Base(p.name)) {
		found = append(found, fmt.Sprintf("%s: a package is named after what it is for, not %q", p.name, path.Base(p.name)))
	}
	if _, ok := rows[p.name]; !ok && !helper(p.name) && len(p.files) > 0 {
		found = append(found, fmt.Sprintf("%s: not in the import table (internal/archtest/table.go and docs/architecture.md)", p.name))
	}
	return found
}

// checkImports compares direct imports of ours with the row.
func checkImports(p *pkg) []string {
	r, ok := rows[p.name]
	if !ok {
		return nil
	}
	var found []string
	for _, i := range p.imports {
		target, ours := rows[i]
		switch {
		case helper(i) && isOurs(i):
			found = append(found, fmt.Sprintf("%s: imports %s, which is for tests only", p.name, i))
		case !ours:
			// Of another module, or a package of ours that checkPlace already names.
		case r.named != nil && !slices.Contains(r.named, i):
			found = append(found, fmt.Sprintf("%s: imports %s, its row names only %s", p.name, i, list(r.named)))
		case r.named == nil && target.tier >= r.tier:
			found = append(found, fmt.Sprintf("%s: is of tier %d and imports %s of tier %d", p.name, r.tier, i, target.tier))
		}
	}
	return found
}

// checkNever follows the imports of ours as far as they go.
func checkNever(p *pkg, packages map[string]*pkg) []string {
	r := rows[p.name]
	if len(r.never) == 0 {
		return nil
	}
	ways := reach(p.name, packages)
	var found []string
	for _, never := range r.never {
		if way := ways[never]; way != nil {
			found = append(found, fmt.Sprintf("%s: must never contain %s, but: %s", p.name, never, strings.Join(way, " > ")))
		}
	}
	return found
}

// reach returns a shortest chain of imports from a package to each package of ours that it contains.
func reach(from string, packages map[string]*pkg) map[string][]string {
	ways := map[string][]string{from: {from}}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := packages[queue[0]]
		if at == nil {
			continue
		}
		for _, i := range at.imports {
			if _, seen := ways[i]; !seen && packages[i] != nil {
				ways[i] = append(slices.Clone(ways[queue[0]]), i)
				queue = append(queue, i)
			}
		}
	}
	delete(ways, from)
	return ways
}

// checkLibraries holds third-party modules, and some of the standard library, in the packages that they were chosen for.
func checkLibraries(p *pkg) []string {
	if helper(p.name) {
		return nil
	}
	var found []string
	for _, i := range p.imports {
		if slices.Contains(pure, p.name) && slices.Contains(impure, i) {
			found = append(found, fmt.Sprintf("%s: does no input or output, so it may not import %s", p.name, i))
			continue
		}
		folders, known := librariesFor(i)
		switch {
		case known && !under(p.name, folders):
			found = append(found, fmt.Sprintf("%s: imports %s, which only %s may", p.name, i, list(folders)))
		case !known && thirdParty(i):
			found = append(found, fmt.Sprintf("%s: imports %s, which is not in the table of libraries", p.name, i))
		}
	}
	return found
}

// librariesFor finds the folders of the longest prefix of an import path.
func librariesFor(importPath string) ([]string, bool) {
	for prefix := importPath; prefix != "." && prefix != "/"; prefix = path.Dir(prefix) {
		if folders, ok := libraries[prefix]; ok {
			return folders, true
		}
	}
	return nil, false
}

// thirdParty says whether an import path is of another module: only those have a dot in their first element.
func thirdParty(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return strings.Contains(first, ".") && !isOurs(importPath)
}

// isOurs says whether an import, as load keeps it, is a package of this module.
func isOurs(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return slices.Contains([]string{"cmd", "pkg", "internal", "api", "web", "certs", "e2e", "bench", "tools"}, first)
}

func list(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}
