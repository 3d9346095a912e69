// Package archtest holds the rules of docs/architecture.md as a test: who may import whom, which third-party library may
// be used where, how large a file or a function may grow, and which calls belong to one place only.
//
// It reads the sources of the whole tree without regard to build tags, so that what is compiled only on another platform
// or only for the fault tests obeys as well. The rules are tables in table.go; [Check] applies them.
package archtest

import (
	"io/fs"
	"maps"
	"slices"
)

// Check reads the Go and SQL sources under root and returns what breaks a rule, one sorted line each that begins with the
// file or the package; nil means that every rule holds. The error says that root could not be read or a file not parsed.
func Check(root fs.FS) ([]string, error) {
	packages, err := load(root)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		p := packages[name]
		found = append(found, checkPlace(p)...)
		found = append(found, checkImports(p)...)
		found = append(found, checkLibraries(p)...)
		found = append(found, checkNever(p, packages)...)
		for _, f := range p.files {
			found = append(found, checkSize(f)...)
			found = append(found, checkCalls(p, f)...)
			found = append(found, checkComments(f)...)
		}
		found = append(found, p.sqlClock...)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}
