package opencode

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLoosenedBy(t *testing.T) {
	const unknown = "opencode.json: is not understood, so what it allows is not known"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"nothing", nil, nil},
		{"asks", map[string]string{"opencode.json": `{"permission":{"bash":"ask","edit":"deny"},"model":"x"}`}, nil},
		{"one tool", map[string]string{"opencode.json": `{"permission":{"bash":"allow","edit":"ask"}}`}, []string{
			"opencode.json: bash is allowed without asking",
		}},
		{"everything", map[string]string{"opencode.json": `{"permission":"allow"}`}, []string{"opencode.json: everything is allowed without asking"}},
		{"star and patterns", map[string]string{"opencode.json": `{"permission":{"*":"allow","bash":{"git *":"allow","rm *":"deny"}}}`}, []string{
			`opencode.json: bash "git *" is allowed without asking`,
			"opencode.json: everything else is allowed without asking",
		}},
		{"an agent", map[string]string{".opencode/opencode.json": `{"agent":{"build":{"permission":{"edit":"allow"}}}}`}, []string{
			".opencode/opencode.json: agent build: edit is allowed without asking",
		}},
		{"comments", map[string]string{"opencode.jsonc": "{ // \"permission\":\n /* \"x\" */ \"permission\": {\"bash\": \"allow\", /* c */ }, }"}, []string{
			"opencode.jsonc: bash is allowed without asking",
		}},
		{"what looks like a comment", map[string]string{"opencode.json": `{"$schema":"https://x/*","permission":{"bash":{"echo \"//\" *":"allow"}}}`}, []string{
			`opencode.json: bash "echo \"//\" *" is allowed without asking`,
		}},
		{"programs", map[string]string{"opencode.json": `{"mcp":{"a":{},"b":{}},"plugin":["p"]}`, ".opencode/plugin/x.ts": "x"}, []string{
			".opencode/plugin: holds files that OpenCode loads",
			"opencode.json: loads 1 plugin(s)",
			"opencode.json: starts or connects 2 MCP server(s)",
		}},
		{"above", map[string]string{"../opencode.json": `{"permission":{"edit":"allow"}}`, "../.git/HEAD": "x", "../../opencode.json": `{"permission":"allow"}`}, []string{
			"../opencode.json: edit is allowed without asking",
		}},
		{"broken", map[string]string{"opencode.json": `{"permission":`}, []string{unknown}},
		{"unterminated", map[string]string{"opencode.json": `{"permission": /*`}, []string{unknown}},
		{"one byte over", map[string]string{"opencode.json": `{}` + strings.Repeat(" ", maxConfig-1)}, []string{unknown}},
		{"largest", map[string]string{"opencode.json": `{}` + strings.Repeat(" ", maxConfig-2)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, content := range tt.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.want, LoosenedBy(dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzPlainJSON(f *testing.F) {
	f.Add(`{"a": "b\"//", /* x */ "c": [1,],}`)
	f.Add(`/*`)
	f.Add(`"\`)
	f.Fuzz(func(t *testing.T, s string) {
		if out := plainJSON([]byte(s)); len(out) > len(s) {
			t.Errorf("%q grew to %q", s, out)
		}
	})
}
