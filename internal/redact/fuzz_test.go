package redact

import (
	"encoding/json"
	"strings"
	"testing"
)

// planted are secrets and paths that are put into whatever the fuzzer makes.
// Their texts are found nowhere else.
var planted = []struct{ text, hidden string }{
	{"ghp_" + "Zq9" + strings.Repeat("wV4x", 9), "Zq9wV4x"},
	{"password=Zq9wV4xPw", "Zq9wV4xPw"},
	{"Authorization: Bearer Zq9wV4xZq9wV4xZq9wV4x", "Zq9wV4x"},
	{"https://u:Zq9wV4xPw@h.example/", "Zq9wV4xPw"},
	{"AKIAZQ9WV4XZQ9WV4X22", "ZQ9WV4X"},
	{"/home/zq9wv4x/plan.md", "zq9wv4x"},
	{`C:\Users\zq9wv4x\plan.md`, "zq9wv4x"},
	{"file:///home/zq9wv4x/plan.md", "zq9wv4x"},
}

func FuzzText(f *testing.F) {
	for _, name := range []string{"secrets.txt", "paths.txt", "innocent.txt"} {
		for i, s := range load(f, name, 1) {
			f.Add(s.text, uint(i), uint8(i))
		}
	}
	f.Add(strings.Repeat("a b/", MaxText/3), uint(MaxText-20), uint8(1))
	r := New(Options{Home: "/home/jane", Projects: map[string]string{"/home/jane/app": "app"}})
	f.Fuzz(func(t *testing.T, s string, at uint, which uint8) {
		once := r.Text(s)
		if len(once) > MaxText {
			t.Fatalf("%d bytes became %d", len(s), len(once))
		}
		if twice := r.Text(once); twice != once {
			t.Fatalf("not stable: %q\nonce  %q\ntwice %q", s, once, twice)
		}
		p := planted[int(which)%len(planted)]
		i := int(at % uint(len(s)+1))
		if got := r.Text(s[:i] + "\n" + p.text + "\n" + s[i:]); strings.Contains(got, p.hidden) {
			t.Fatalf("%q leaks: %q", p.text, got)
		}
	})
}

func FuzzJSON(f *testing.F) {
	for _, name := range []string{"secrets.txt", "paths.txt", "innocent.txt"} {
		for _, s := range load(f, name, 1) {
			if doc, ok := strings.CutPrefix(s.text, "J "); ok {
				f.Add([]byte(doc))
			}
		}
	}
	f.Add([]byte(`[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]`))
	f.Add([]byte(`{"[truncated]":{"/home/a/x":1,"/home/b/x":2},"mcp":{"command":["a"],"args":[]}}`))
	r := New(Options{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		once, err := r.JSON(raw)
		if err != nil {
			return
		}
		if !json.Valid(once) {
			t.Fatalf("not JSON: %q", once)
		}
		twice, err := r.JSON(once)
		if err != nil || string(twice) != string(once) {
			t.Fatalf("not stable: %q\nonce  %q\ntwice %q, %v", raw, once, twice, err)
		}
		for _, p := range planted {
			var v any
			if json.Unmarshal(raw, &v) != nil {
				return
			}
			got, err := json.Marshal(r.Value(map[string]any{"v": v, "a": "x " + p.text, "x " + p.text: 1}))
			if err != nil || strings.Contains(string(got), p.hidden) {
				t.Fatalf("%q leaks: %s, %v", p.text, got, err)
			}
		}
	})
}
