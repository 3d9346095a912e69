package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	var b bytes.Buffer
	rows := [][]string{{"a", "Größe\x1b[2J", "x"}, {"longer", "", "y"}, {"z", "u\u202eevil", ""}}
	if err := Table(&b, []string{"ID", "LABEL", "STATE"}, rows); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"ID      LABEL      STATE",
		"a       Größe?[2J  x",
		"longer             y",
		"z       u?evil", "",
	}, "\n")
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	if rows[0][1] != "Größe\x1b[2J" {
		t.Error("Table changed its argument")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü 漢":            "plain ü 漢",
		"a\nb\tc\rd":           "a b c d",
		"\x1b]0;t\x07\x7f":     "?]0;t??",
		"\u202e\u2066\u200b":   "???",
		"\xff":                 "?",
		"\u2028":               "?",
		"👩\u200d👩":             "👩\u200d👩",
		"c1 control \u009b31m": "c1 control ?31m",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDurationAndRelative(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 999 * time.Millisecond: "999 ms", time.Second: "1 s", 59 * time.Second: "59 s",
		time.Minute: "1 min", 245 * time.Second: "4 min 5 s", 200 * time.Minute: "3 h 20 min", 52 * time.Hour: "2 d 4 h",
		-5 * time.Second: "5 s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local)
	for d, want := range map[time.Duration]string{
		0: "just now", time.Second: "1 s ago", 245 * time.Second: "4 min ago", -200 * time.Minute: "in 3 h",
		31 * 24 * time.Hour: "2026-10-24",
	} {
		if got := Relative(now, now.Add(-d)); got != want {
			t.Errorf("Relative(%v) = %q, want %q", d, got, want)
		}
	}
	if got := Relative(now, time.Time{}); got != "never" {
		t.Errorf("zero time: %q", got)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSONLine(&b, map[string]string{"a": "<&>"}); err != nil {
		t.Fatal(err)
	}
	if err := WriteJSON(&b, []int{1}); err != nil {
		t.Fatal(err)
	}
	if want := "{\"a\":\"<&>\"}\n[\n  1\n]\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"serve", "codes", "pairings", "surfaces", "version"}
	for in, want := range map[string]string{
		"srve": "serve", "serev": "serve", "code": "codes", "pair": "pairings", "surface": "surfaces",
		"vresion": "version", "zzz": "", "": "", "x": "", strings.Repeat("s", 65): "",
	} {
		if got := nearest(in, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestStateDir(t *testing.T) {
	for _, tc := range []struct {
		goos, home, want string
		env              map[string]string
	}{
		{"linux", "/h", "/h/.local/state/p", nil},
		{"darwin", "/h", "/h/Library/Application Support/p", nil},
		{"linux", "/h", "/x/p", map[string]string{"XDG_STATE_HOME": "/x"}},
		{"linux", "/h", "/h/.local/state/p", map[string]string{"XDG_STATE_HOME": "relative"}},
		{"linux", "/h", "/s/p", map[string]string{"STATE_DIRECTORY": "/s/p:/s/q", "XDG_STATE_HOME": "/x"}},
		{"windows", "/h", "/l/p", map[string]string{"LOCALAPPDATA": "/l"}},
		{"linux", "", "", nil},
	} {
		got := stateDir("p", tc.goos, tc.home, func(k string) string { return tc.env[k] })
		if got != tc.want {
			t.Errorf("%+v: got %q", tc, got)
		}
	}
}
