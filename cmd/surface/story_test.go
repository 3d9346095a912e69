package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cowork.example.com/broker/cmd/internal/cli"
)

func TestProgramFollowsTheConventions(t *testing.T) {
	if err := cli.Check(newApp()); err != nil {
		t.Error(err)
	}
}

func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("SURFACE_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("SURFACE_LABEL", "terminal")
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "conf"))
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each program waits a second to end
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"desk": deskCommand, "ticket": ticketCommand, "link": linkCommandOf, "field": fieldCommand, "watch": watchStory,
		},
	})
}

func TestLabel(t *testing.T) {
	for host, want := range map[string]string{
		"laptop": "laptop", "": "terminal", "jane's mac": "jane-s-mac", "ä": "-",
		"a-very-long-host-name-that-goes-on-and-on-and-on.example.com": "a-very-long-host-name-that-goes-on-and-o",
	} {
		if got := label(host); got != want {
			t.Errorf("%q: %q, want %q", host, got, want)
		}
	}
}

func TestCleanKeepsLines(t *testing.T) {
	if got := clean("a\x1b[2Jb\nc"); got == "a\x1b[2Jb\nc" || len(got) < 4 {
		t.Errorf("%q", got)
	}
}
