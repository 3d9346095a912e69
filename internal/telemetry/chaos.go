//go:build chaos

package telemetry

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// chaosClockFile names the variable whose value is a file with the offset, a
// duration such as "-1h". It is read at each call, so that a test moves the
// clock of a running program.
const chaosClockFile = "ODP_CHAOS_CLOCK_FILE"

// shift moves t by the offset, none if there is no file. The monotonic reading
// goes, as it does not move when a wall clock is set.
func shift(t time.Time) time.Time {
	path := os.Getenv(chaosClockFile)
	if path == "" {
		return t
	}
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return t
	}
	if err != nil {
		panic(fmt.Sprintf("chaos clock: %v", err))
	}
	offset, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		panic(fmt.Sprintf("chaos clock: %v", err))
	}
	return t.Round(0).Add(offset)
}
