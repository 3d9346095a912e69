package redact

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProjectsAndHome(t *testing.T) {
	r := New(Options{Home: "/data/people/jane", Projects: map[string]string{
		"/data/people/jane/work/app": "app", "/data/people/jane/work/app/sub": "sub", "/srv/My Site": "site",
		`C:\work\acme`: "acme", "relative": "no", "/": "never",
	}})
	for in, want := range map[string]string{
		"/data/people/jane/work/app/main.go:12:5: x":    "app:main.go:12:5: x",
		"/data/people/jane/work/app":                    "app:.",
		"/data/people/jane/work/app/":                   "app:.",
		"/data/people/jane/work/app/sub/x":              "sub:x",
		"/data/people/jane/work/apple/x":                PathMark,
		"/data/people/jane/work/app/../../.ssh/id":      PathMark,
		"/data/people/jane":                             PathMark,
		"file:///C:/work/acme/x%20y.html?z":             "acme:x%20y.html?z",
		"file:///C:/other/x.html":                       PathMark,
		"PWD=/data/people/jane/work/app":                "PWD=app:.",
		"file:///data/people/jane/work/app/a.ts":        "app:a.ts",
		"open '/srv/My Site/index page.html'":           "open 'site:index page.html'",
		"/srv/My Site/index.html is old.":               "site:index.html is old.",
		`C:\work\acme\src\a.cs(4)`:                      "acme:src/a.cs(4)",
		"/data/people/jane/work/app/ghp_" + x(36):       Mark,
		"see app:main.go":                               "see app:main.go",
		"cd /data/people/jane/work/app && make":         "cd app:. && make",
		"a/data/people/jane/work/app/x":                 "a/data/people/jane/work/app/x",
		"{\"f\":\"/data/people/jane/work/app/a b.md\"}": "{\"f\":\"app:a b.md\"}",
	} {
		if got := r.Text(in); got != want {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
}

// x is n characters that a key may have.
func x(n int) string { return strings.Repeat("aB3dE6gH9k", n/10+1)[:n] }

func TestOptionsExpose(t *testing.T) {
	doc := `{"file":"/home/j/a","content":"text","u":"data:text/plain;base64,aGk=","mcp":{"s":{"command":["npx","x"],"cwd":"/home/j"}},` +
		`"env":{"A":"b"},"say":"AKIA` + "ABCDEFGH" + `IJKLMNOP"}`
	show := func(o Options) string {
		out, err := New(o).JSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	hidden := `{"content":"` + ArtifactMark + `","env":"` + MCPMark + `","file":"` + PathMark + `","mcp":{"s":{"command":"` + MCPMark +
		`","cwd":"` + MCPMark + `"}},"say":"` + Mark + `","u":"` + ArtifactMark + `"}`
	if diff := cmp.Diff(hidden, show(Options{})); diff != "" {
		t.Error(diff)
	}
	shown := `{"content":"text","env":{"A":"b"},"file":"/home/j/a","mcp":{"s":{"command":["npx","x"],"cwd":"/home/j"}},` +
		`"say":"` + Mark + `","u":"data:text/plain;base64,aGk="}`
	if diff := cmp.Diff(shown, show(Options{ExposePaths: true, ExposeArtifacts: true, ExposeMCP: true})); diff != "" {
		t.Error(diff)
	}
}

func TestMCPAndArtifacts(t *testing.T) {
	r := New(Options{})
	for in, want := range map[string]string{
		`{"command":"go test","description":"d"}`:           `{"command":"go test","description":"d"}`,
		`{"command":"npx","args":["x"]}`:                    `{"args":"M","command":"M"}`,
		`{"type":"local","command":"npx x"}`:                `{"command":"M","type":"local"}`,
		`{"mcpServers":{"a":{"command":"npx"}}}`:            `{"mcpServers":{"a":{"command":"M"}}}`,
		`{"pid":123,"serverPath":"x","stdio":1,"env":null}`: `{"env":null,"pid":"M","serverPath":"M","stdio":"M"}`,
		`{"content":"hi","role":"user"}`:                    `{"content":"hi","role":"user"}`,
		`{"content":"x = 1","filePath":"a.py"}`:             `{"content":"A","filePath":"a.py"}`,
		`{"body":"text","dataBase64":"aGk="}`:               `{"body":"A","dataBase64":"A"}`,
		`{"path":"a","text":{"value":"v","start":0}}`:       `{"path":"a","text":"A"}`,
		`["` + strings.Repeat("aB3/", 100) + `"]`:           `["A"]`,
	} {
		want = strings.NewReplacer(`"M"`, `"`+MCPMark+`"`, `"A"`, `"`+ArtifactMark+`"`).Replace(want)
		out, err := r.JSON([]byte(in))
		if err != nil || string(out) != want {
			t.Errorf("%s\n got %s, %v\nwant %s", in, out, err, want)
		}
	}
}

func TestLimits(t *testing.T) {
	r := New(Options{})
	word := "word and "
	long := strings.Repeat(word, MaxText)
	for _, s := range []string{long[:MaxText], long[:MaxText+1], long, strings.Repeat("ü", MaxText), strings.Repeat("/home/j/x ", 1<<12)} {
		got := r.Text(s)
		if len(got) > MaxText {
			t.Errorf("%d bytes became %d", len(s), len(got))
		}
		if whole := got == s; whole != (len(s) <= MaxText) {
			t.Errorf("%d bytes: whole is %v", len(s), whole)
		} else if !whole && !strings.HasSuffix(got, TruncatedMark) && !strings.HasSuffix(got, PathMark+" ") {
			t.Errorf("%d bytes end with %q", len(s), got[len(got)-30:])
		}
	}
	list := func(n int) []any { return make([]any, n) }
	for n, want := range map[int]int{MaxArray: MaxArray, MaxArray + 1: MaxArray, 1000: MaxArray} {
		got := r.Value(list(n)).([]any)
		if len(got) != want || (got[len(got)-1] == TruncatedMark) != (n > MaxArray) {
			t.Errorf("array of %d became %d: %v", n, len(got), got[len(got)-1])
		}
	}
	for n, want := range map[int]int{MaxObject: MaxObject, MaxObject + 1: MaxObject, 1000: MaxObject} {
		m := map[string]any{}
		for i := range n {
			m[fmt.Sprint("k", i)] = true
		}
		got := r.Value(m).(map[string]any)
		if _, cut := got[TruncatedMark]; len(got) != want || cut != (n > MaxObject) {
			t.Errorf("object of %d became %d, cut %v", n, len(got), cut)
		}
	}
	var deep any = "leaf"
	for range MaxDepth {
		deep = []any{deep}
	}
	if got, _ := json.Marshal(r.Value(deep)); !strings.Contains(string(got), "leaf") {
		t.Errorf("depth %d was cut: %s", MaxDepth, got)
	}
	if got, _ := json.Marshal(r.Value([]any{deep})); strings.Contains(string(got), "leaf") {
		t.Errorf("depth %d was not cut: %s", MaxDepth+1, got)
	}
}

func TestValueIsBounded(t *testing.T) {
	r := New(Options{})
	text := strings.Repeat("word and ", 1000)
	var leaves []any
	for range MaxArray {
		leaves = append(leaves, map[string]any{"a": text, "b": text})
	}
	out, err := json.Marshal(r.Value([]any{leaves, leaves, leaves}))
	if err != nil {
		t.Fatal(err)
	}
	if len(out) > 2*MaxValue {
		t.Errorf("%d bytes", len(out))
	}
	again, err := r.JSON(out)
	if err != nil || string(again) != string(out) {
		t.Errorf("cut twice: %d then %d bytes, %v", len(out), len(again), err)
	}
}

func TestJSONRefuses(t *testing.T) {
	r := New(Options{})
	for _, in := range []string{"", "{", "{} {}", "nul", `"` + strings.Repeat("x", MaxJSON) + `"`} {
		if out, err := r.JSON([]byte(in)); err == nil {
			t.Errorf("%.20q became %.20q", in, out)
		}
	}
	ok := `"` + strings.Repeat("x", MaxJSON-2) + `"`
	if _, err := r.JSON([]byte(ok)); err != nil {
		t.Error("a document at the limit was refused")
	}
	if out, err := r.JSON([]byte(`12345678901234567890.5`)); err != nil || string(out) != "12345678901234567890.5" {
		t.Errorf("a number became %s, %v", out, err)
	}
}

func TestSecretAcrossTheLimit(t *testing.T) {
	r := New(Options{})
	key := "ghp_" + x(36)
	for at := MaxText - 60; at < MaxText+5; at++ {
		text := strings.Repeat("a ", at/2) + key + strings.Repeat(" b", lookahead)
		if got := r.Text(text); strings.Contains(got, key[:12]) {
			t.Fatalf("a key at %d leaks: ...%q", at, got[len(got)-60:])
		}
	}
}

func TestKeysStayApart(t *testing.T) {
	got := New(Options{}).Value(map[string]any{"/home/a/x": 1.0, "/home/b/x": 2.0, "/home/c/x": 3.0})
	want := map[string]any{PathMark: 1.0, PathMark + " (2)": 2.0, PathMark + " (3)": 3.0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNameKind(t *testing.T) {
	for name, want := range map[string]kind{
		"password": secret, "DB_PASSWORD": secret, "PGPASSWORD": secret, "userPassword": secret, "apiKey": secret, "APIKey": secret,
		"x-api-key": secret, "accessToken": secret, "authtoken": secret, "token": secret, "Set-Cookie": secret, "refresh": secret,
		"refresh_token": secret, "client_secret": secret, "secret_id": secret, "credentials": secret, "privateKey": secret,
		"tokens": tokens, "input_tokens": tokens, "max_tokens": tokens, "max_token": tokens,
		"token_type": harmless, "tokenizer": harmless, "tokenCount": harmless, "passwordPolicy": harmless, "key": harmless,
		"monkey": harmless, "publicKey": harmless, "access_key_id": harmless, "refreshInterval": harmless, "secretName": harmless,
		"": harmless, "__": harmless, "author": harmless, "compass": harmless, Mark: harmless,
	} {
		if got := nameKind(name); got != want {
			t.Errorf("%q is %d, want %d", name, got, want)
		}
	}
}

func TestTableHasAtLeastTwentyShapes(t *testing.T) {
	names := map[string]bool{}
	for _, f := range shapes {
		names[f.name] = true
		if len(f.near) == 0 {
			t.Errorf("%s: nothing near", f.name)
		}
		for _, near := range f.near {
			if near != strings.ToLower(near) {
				t.Errorf("%s: %q is not lower case", f.name, near)
			}
		}
	}
	if len(names) < 20 || len(names) != len(shapes) {
		t.Errorf("%d names for %d shapes", len(names), len(shapes))
	}
}

// TestEachShapeIsNeeded shows that no row of the table is dead.
func TestEachShapeIsNeeded(t *testing.T) {
	hit := map[string]bool{}
	for _, s := range load(t, "secrets.txt", 1) {
		for i := range shapes {
			f, lower := &shapes[i], asciiLower(s.text)
			if f.behind != nil && len(f.findBehind(secretNames(s.text, lower), s.text, nil)) > 0 ||
				f.behind == nil && f.isNear(lower) && len(f.find(s.text, nil)) > 0 {
				hit[f.name] = true
			}
		}
	}
	for _, f := range shapes {
		if !hit[f.name] {
			t.Errorf("no line of the corpus has %q", f.name)
		}
	}
}

func TestSecretType(t *testing.T) {
	s := Secret("hunter2")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s)
	js, err := json.Marshal(map[string]any{"s": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(js) + s.String() + fmt.Sprintf("%v %s %q %x %#v %d %+v %v", s, s, s, s, s, s, s, []Secret{s}) + fmt.Sprint(struct{ S Secret }{s})
	if strings.Contains(all, "hunter2") || strings.Contains(all, "68756e746572") {
		t.Errorf("it shows: %s", all)
	}
	if s.Reveal() != "hunter2" || !s.Equal("hunter2") || s.Equal("hunter3") || s.Equal("") {
		t.Error("Reveal or Equal is wrong")
	}
}

func BenchmarkText(b *testing.B) {
	r := New(Options{Home: "/home/jane"})
	for name, s := range map[string]string{
		"delta":  "The build passes now; I changed the handler and ran the tests. ",
		"16 KiB": strings.Repeat("The file internal/a.go has a token count of 5 / 7. ", 330)[:MaxText],
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(s)))
			for b.Loop() {
				r.Text(s)
			}
		})
	}
}
