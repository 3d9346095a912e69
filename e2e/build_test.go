//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReleaseHasNoChaos: the name of the variable that shifts the clock is in the chaos programs and in no release one.
func TestReleaseHasNoChaos(t *testing.T) {
	for _, name := range []string{"broker", "desktop-agent", "surface"} {
		for dir, want := range map[string]bool{"bin": false, "bin/chaos": true} {
			raw, err := os.ReadFile(filepath.Join("..", dir, name))
			check(t, err)
			if got := bytes.Contains(raw, []byte("ODP_CHAOS_CLOCK")); got != want {
				t.Errorf("%s/%s knows the chaos clock: %v", dir, name, got)
			}
		}
	}
}

// TestCompletion: bash takes what each program prints for it, and completes the program's commands.
func TestCompletion(t *testing.T) {
	ctx, l := newLab(t, "bin")
	for name, want := range map[string]string{"broker": "codes", "desktop-agent": "enrol", "surface": "prompt"} {
		script, err := l.Must(ctx, "", name, "completion", "bash")
		check(t, err)
		ask := script + "\nCOMP_WORDS=(" + name + " '') COMP_CWORD=1\n" +
			"$(complete -p " + name + " | sed 's/.*-F \\([^ ]*\\).*/\\1/')\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
		cmd := exec.CommandContext(ctx, "bash", "-c", ask)
		cmd.Env = append(os.Environ(), "PATH="+abs(t, l.Bin)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
