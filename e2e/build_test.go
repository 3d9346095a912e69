//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
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
