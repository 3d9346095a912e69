package telemetry

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// variable is written in parts, so that this test's own text is not found.
const variable = "ODP_CHAOS_" + "CLOCK_FILE"

func build(t *testing.T, args ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "clock")
	args = append([]string{"build", "-o", program}, append(args, "./testdata/clock")...)
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, out)
	}
	return program
}

// ahead returns by how much the clock of a program is ahead, with an offset in
// its file.
func ahead(t *testing.T, program, offset string) time.Duration {
	t.Helper()
	file := filepath.Join(t.TempDir(), "offset")
	if offset != "" {
		if err := os.WriteFile(file, []byte(offset+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), variable+"="+file)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	ms, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Until(time.UnixMilli(ms)).Round(time.Minute)
}

func TestOnlyChaosBinariesShiftTheClock(t *testing.T) {
	release, chaos := build(t), build(t, "-tags", "chaos")
	for program, want := range map[string]bool{release: false, chaos: true} {
		code, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(code, []byte(variable)); got != want {
			t.Errorf("%s holds the variable: %v, want %v", program, got, want)
		}
		symbols, err := exec.CommandContext(t.Context(), "go", "tool", "nm", program).Output()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(symbols, []byte("main.main")) {
			t.Fatal("the symbols cannot be read")
		}
		if got := bytes.Contains(symbols, []byte("telemetry.shift")); got != want {
			t.Errorf("%s holds the function: %v, want %v", program, got, want)
		}
	}
	for offset, want := range map[string]time.Duration{"": 0, "1h": time.Hour, "-10m": -10 * time.Minute} {
		if got := ahead(t, chaos, offset); got != want {
			t.Errorf("chaos with %q is ahead %v", offset, got)
		}
		if got := ahead(t, release, offset); got != 0 {
			t.Errorf("release with %q is ahead %v", offset, got)
		}
	}
}
