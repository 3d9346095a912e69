package archtest

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// tree makes a file system of path and content.
func tree(files map[string]string) fstest.MapFS {
	m := make(fstest.MapFS, len(files))
	for name, content := range files {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return m
}

// source is a Go file that imports the given paths; ours are relative to the module.
func source(imports ...string) string {
	var b strings.Builder
	b.WriteString("package x\n")
	for _, i := range imports {
		if isOurs(i) {
			i = module + "/" + i
		}
		b.WriteString("import _ \"" + i + "\"\n")
	}
	return b.String()
}

// body is a Go file with one function that does as told.
func body(imports, statements string) string {
	return "package x\n" + imports + "\nfunc f() {\n" + statements + "\n}\n"
}

func TestCheckComplains(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  []string // nil: nothing
	}{
		{
			name: "a sound tree",
			files: map[string]string{
				"pkg/wire/a.go":                   source("encoding/json", "time"),
				"pkg/proof/a.go":                  source("pkg/wire", "crypto/ed25519"),
				"pkg/seal/a.go":                   source("pkg/proof", "crypto/hpke"),
				"pkg/tunnel/a.go":                 source("pkg/wire", "nhooyr.io/websocket", "github.com/hashicorp/yamux"),
				"pkg/tunnel/tunneltest/a.go":      source("pkg/tunnel", "testing/synctest"),
				"pkg/tunnel/a_test.go":            source("pkg/tunnel/tunneltest", "internal/agent"),
				"internal/mailbox/a.go":           source("pkg/wire"),
				"internal/mailbox/model/cmd/a.go": source("internal/mailbox"),
				"internal/agent/a.go":             source("pkg/seal", "pkg/tunnel", "internal/journal"),
				"internal/journal/a.go":           source("pkg/proof"),
				"internal/broker/a.go":            source("pkg/proof", "internal/mailbox"),
				"cmd/broker/main.go":              source("internal/broker", "github.com/urfave/cli/v2", "os"),
				"e2e/a.go":                        source("internal/agent", "internal/broker"),
				"node_modules/x/a.go":             "not Go at all",
				"internal/mailbox/testdata/a.go":  "neither",
			},
		},
		{
			name:  "no place in the table",
			files: map[string]string{"internal/cache/a.go": source()},
			want:  []string{"internal/cache: not in the import table (internal/archtest/table.go and docs/architecture.md)"},
		},
		{
			name:  "a name that says nothing",
			files: map[string]string{"e2e/util/a.go": source()},
			want:  []string{`e2e/util: a package is named after what it is for, not "util"`},
		},
		{
			name:  "same tier",
			files: map[string]string{"pkg/tunnel/a.go": source("pkg/pairing"), "pkg/pairing/a.go": source()},
			want:  []string{"pkg/tunnel: is of tier 1 and imports pkg/pairing of tier 1"},
		},
		{
			name:  "higher tier",
			files: map[string]string{"internal/broker/a.go": source("cmd/broker"), "cmd/broker/main.go": source()},
			want:  []string{"internal/broker: is of tier 4 and imports cmd/broker of tier 5"},
		},
		{
			name:  "not named in the row",
			files: map[string]string{"pkg/proof/a.go": source("internal/redact")},
			want:  []string{"pkg/proof: imports internal/redact, its row names only pkg/wire"},
		},
		{
			name:  "the lowest import nothing of ours",
			files: map[string]string{"internal/redact/a.go": source("pkg/wire")},
			want:  []string{"internal/redact: imports pkg/wire, its row names only nothing"},
		},
		{
			name:  "a test helper in the product",
			files: map[string]string{"pkg/surface/a.go": source("pkg/tunnel/tunneltest"), "pkg/tunnel/tunneltest/a.go": source()},
			want:  []string{"pkg/surface: imports pkg/tunnel/tunneltest, which is for tests only"},
		},
		{
			name: "the broker's program reaches seal through others",
			files: map[string]string{
				"cmd/broker/main.go":            source("internal/broker"),
				"internal/broker/a.go":          source("internal/mailbox"),
				"internal/mailbox/a.go":         source("pkg/wire"),
				"internal/mailbox/b_windows.go": "//go:build windows\n\n" + source("pkg/seal"),
				"pkg/seal/a.go":                 source(),
				"pkg/wire/a.go":                 source(),
			},
			want: []string{
				"cmd/broker: must never contain pkg/seal, but: cmd/broker > internal/broker > internal/mailbox > pkg/seal",
				"internal/broker: must never contain pkg/seal, but: internal/broker > internal/mailbox > pkg/seal",
			},
		},
		{
			name: "the agent reaches the broker's store",
			files: map[string]string{
				"internal/agent/a.go":        source("pkg/pairing"),
				"pkg/pairing/a.go":           source("internal/store/sqlite"),
				"internal/store/sqlite/a.go": source(),
			},
			want: []string{
				"internal/agent: must never contain internal/store/sqlite, but: internal/agent > pkg/pairing > internal/store/sqlite",
				"pkg/pairing: is of tier 1 and imports internal/store/sqlite of tier 3",
			},
		},
		{
			name:  "a library away from home",
			files: map[string]string{"internal/httpapi/a.go": source("nhooyr.io/websocket/wsjson")},
			want:  []string{"internal/httpapi: imports nhooyr.io/websocket/wsjson, which only pkg/tunnel may"},
		},
		{
			name:  "a library that nobody chose",
			files: map[string]string{"internal/broker/a.go": source("github.com/google/uuid")},
			want:  []string{"internal/broker: imports github.com/google/uuid, which is not in the table of libraries"},
		},
		{
			name:  "part of a module was chosen",
			files: map[string]string{"pkg/seal/a.go": source("golang.org/x/crypto/nacl/box")},
			want:  []string{"pkg/seal: imports golang.org/x/crypto/nacl/box, which is not in the table of libraries"},
		},
		{
			name:  "input and output in a pure package",
			files: map[string]string{"pkg/pairing/a.go": source("net/http")},
			want:  []string{"pkg/pairing: does no input or output, so it may not import net/http"},
		},
		{
			name:  "the clock",
			files: map[string]string{"internal/mailbox/a.go": body(`import clock "time"`, "_ = clock.Now()")},
			want:  []string{"internal/mailbox/a.go:4: time.Now: the time is a parameter here"},
		},
		{
			name: "sleeping",
			files: map[string]string{
				"internal/broker/a.go":         body(`import "time"`, "time.Sleep(1)"),
				"internal/broker/a_test.go":    body(`import "time"`, "time.Sleep(1)"),
				"internal/broker/fake_test.go": body("import \"time\"\nimport _ \"testing/synctest\"", "time.Sleep(1)"),
				"internal/broker/poll_test.go": body(`import "time"`, "for !ready() { time.Sleep(1) }"),
			},
			want: []string{
				"internal/broker/a.go:4: time.Sleep: wait on a timer and the context, so that stopping works",
				"internal/broker/a_test.go:4: time.Sleep: a sleep proves nothing; use testing/synctest, where it costs nothing, or wait for the thing itself",
			},
		},
		{
			name: "ending the process, reading its environment",
			files: map[string]string{
				"internal/broker/a.go": body(`import "os"`, "os.Exit(1); os.Getenv(``)"),
				"cmd/broker/main.go":   body(`import "os"`, "os.Exit(1); os.Getenv(``)"),
			},
			want: []string{
				"internal/broker/a.go:4: os.Exit: only a program ends the process; return an error",
				"internal/broker/a.go:4: os.Getenv: only the programs read the environment; take a configuration",
			},
		},
		{
			name: "a skipped test",
			files: map[string]string{
				"pkg/wire/a_test.go":   body(`import "testing"`, "var t *testing.T; t.Skip()"),
				"e2e/faults/a_test.go": body(`import "testing"`, "var t *testing.T; t.Skip()"),
			},
			want: []string{"pkg/wire/a_test.go:4: t.Skip: a test that is skipped shows nothing; say what it needs with a build tag"},
		},
		{
			name: "SQL that asks the time",
			files: map[string]string{
				"internal/store/sqlite/a.go":                  body(`import _ "database/sql"`, "_ = `SELECT datetime('now')`"),
				"internal/store/sqlite/migrations/1.sql":      "-- now() in a comment\nCREATE TABLE a (at DEFAULT CURRENT_TIMESTAMP);\n",
				"internal/store/postgres/migrations/1.sql":    "SELECT now();\n",
				"internal/store/postgres/migrations/fine.sql": "SELECT known, expires_at FROM a;\n",
			},
			want: []string{
				"internal/store/postgres/migrations/1.sql:1: SQL asks the time; pass it as a parameter",
				"internal/store/sqlite/a.go:4: SQL asks the time: pass it as a parameter",
				"internal/store/sqlite/migrations/1.sql:2: SQL asks the time; pass it as a parameter",
			},
		},
		{
			name:  "a promise",
			files: map[string]string{"pkg/wire/a.go": "package wire\n\n// TO" + "DO: later.\nvar x = 1\n"},
			want:  []string{"pkg/wire/a.go:3: TO" + "DO: do it, or write an issue"},
		},
		{
			name: "size, one line over and just within",
			files: map[string]string{
				"pkg/wire/long.go":      "package wire\n" + strings.Repeat("//\n", maxFileLines),
				"pkg/wire/fits.go":      "package wire\n" + strings.Repeat("//\n", maxFileLines-1),
				"pkg/wire/long_test.go": "package wire\n" + strings.Repeat("//\n", maxFileLines),
				"pkg/proof/long.go":     body("", strings.Repeat("//\n", maxFuncLines-2)),
				"pkg/proof/fits.go":     body("", strings.Repeat("//\n", maxFuncLines-3)),
			},
			want: []string{
				"pkg/proof/long.go:3: func f has 81 lines, at most 80",
				"pkg/wire/long.go: 501 lines, at most 500",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Check(tree(tt.files))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("complaints (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckNamesAFileThatDoesNotParse(t *testing.T) {
	_, err := Check(tree(map[string]string{"pkg/wire/broken.go": "package"}))
	if err == nil || !strings.Contains(err.Error(), "pkg/wire/broken.go") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

// Every row's names have rows themselves, or the row would allow what does not exist under that name.
func TestRowsNameRows(t *testing.T) {
	for name, r := range rows {
		for _, other := range append(append([]string{}, r.named...), r.never...) {
			if _, ok := rows[other]; !ok {
				t.Errorf("row %s names %s, which has no row", name, other)
			}
			if o := rows[other]; r.tier < o.tier {
				t.Errorf("row %s of tier %d names %s of tier %d", name, r.tier, other, o.tier)
			}
		}
	}
}
