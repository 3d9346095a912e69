package opencode

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxConfig bounds a project's configuration file.
const maxConfig = 1 << 20

// LoosenedBy lists what a folder's own OpenCode configuration allows without asking, or
// runs by itself, one sentence each and sorted; nil when there is nothing. It reads
// opencode.json(c) of the folder, of its .opencode, and of the folders above up to the
// root of the repository, as OpenCode does. A file that it cannot read is named: what it
// allows is not known.
func LoosenedBy(dir string) []string {
	var found []string
	for at := dir; ; at = filepath.Dir(at) {
		for _, name := range []string{"opencode.json", "opencode.jsonc", ".opencode/opencode.json", ".opencode/opencode.jsonc"} {
			found = append(found, loosenedByFile(dir, filepath.Join(at, name))...)
		}
		for _, name := range []string{".opencode/plugin", ".opencode/plugins", ".opencode/agent", ".opencode/agents", ".opencode/tool", ".opencode/tools"} {
			if entries, err := os.ReadDir(filepath.Join(at, name)); err == nil && len(entries) > 0 {
				found = append(found, fmt.Sprintf("%s: holds files that OpenCode loads", short(dir, filepath.Join(at, name))))
			}
		}
		_, err := os.Stat(filepath.Join(at, ".git"))
		if err == nil || filepath.Dir(at) == at {
			break
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// short names a file relative to the project.
func short(dir, path string) string {
	if rel, err := filepath.Rel(dir, path); err == nil {
		return rel
	}
	return path
}

// loosenedByFile reads one configuration file.
func loosenedByFile(dir, path string) (found []string) {
	say := func(format string, args ...any) {
		found = append(found, short(dir, path)+": "+fmt.Sprintf(format, args...))
	}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		say("cannot be read, so what it allows is not known")
		return found
	}
	defer f.Close()
	b, err := readAll(f, maxConfig)
	var config struct {
		Permission json.RawMessage `json:"permission"`
		Agent      map[string]struct {
			Permission json.RawMessage `json:"permission"`
		} `json:"agent"`
		MCP    map[string]json.RawMessage `json:"mcp"`
		Plugin []json.RawMessage          `json:"plugin"`
	}
	if err != nil || json.Unmarshal(plainJSON(b), &config) != nil {
		say("is not understood, so what it allows is not known")
		return found
	}
	for _, what := range allows(config.Permission) {
		say("%s is allowed without asking", what)
	}
	for _, name := range slices.Sorted(maps.Keys(config.Agent)) {
		for _, what := range allows(config.Agent[name].Permission) {
			say("agent %s: %s is allowed without asking", name, what)
		}
	}
	if len(config.MCP) > 0 {
		say("starts or connects %d MCP server(s)", len(config.MCP))
	}
	if len(config.Plugin) > 0 {
		say("loads %d plugin(s)", len(config.Plugin))
	}
	return found
}

// allows lists what a permission setting allows: one word for all, or a word or patterns
// for each tool.
func allows(raw json.RawMessage) (found []string) {
	var word string
	if json.Unmarshal(raw, &word) == nil {
		if word == "allow" {
			return []string{"everything"}
		}
		return nil
	}
	var tools map[string]json.RawMessage
	if json.Unmarshal(raw, &tools) != nil {
		return nil
	}
	for _, tool := range slices.Sorted(maps.Keys(tools)) {
		name := tool
		if tool == "*" {
			name = "everything else"
		}
		if json.Unmarshal(tools[tool], &word) == nil {
			if word == "allow" {
				found = append(found, name)
			}
			continue
		}
		var patterns map[string]string
		if json.Unmarshal(tools[tool], &patterns) != nil {
			continue
		}
		for _, pattern := range slices.Sorted(maps.Keys(patterns)) {
			if patterns[pattern] == "allow" {
				found = append(found, fmt.Sprintf("%s %q", name, pattern))
			}
		}
	}
	return found
}

// plainJSON takes comments and trailing commas out of JSONC, leaving strings alone.
func plainJSON(b []byte) []byte {
	var out strings.Builder
	for i := 0; i < len(b); {
		rest := string(b[i:min(i+2, len(b))])
		switch {
		case b[i] == '"':
			n := stringEnd(b[i:])
			out.Write(b[i : i+n])
			i += n
		case rest == "//":
			i = skipTo(b, i, "\n")
		case rest == "/*":
			i = skipTo(b, i+2, "*/")
		case b[i] == ',' && trailing(b[i+1:]):
			i++
		default:
			out.WriteByte(b[i])
			i++
		}
	}
	return []byte(out.String())
}

// stringEnd is the length of the string literal at the beginning of b.
func stringEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// skipTo is the index behind the next end, or the length of b.
func skipTo(b []byte, from int, end string) int {
	if n := strings.Index(string(b[min(from, len(b)):]), end); n >= 0 {
		return from + n + len(end)
	}
	return len(b)
}

// trailing says whether nothing but space and comments is left before a closing bracket.
func trailing(b []byte) bool {
	for i := 0; i < len(b); {
		switch rest := string(b[i:min(i+2, len(b))]); {
		case strings.ContainsRune(" \t\r\n", rune(b[i])):
			i++
		case rest == "//":
			i = skipTo(b, i, "\n")
		case rest == "/*":
			i = skipTo(b, i+2, "*/")
		default:
			return b[i] == '}' || b[i] == ']'
		}
	}
	return false
}
