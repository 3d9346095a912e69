package redact

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// spent is the processor time of this thread, which other load leaves alone.
func spent(t *testing.T) time.Duration {
	t.Helper()
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &use); err != nil {
		t.Fatal(err)
	}
	return time.Duration(use.Utime.Nano())
}

// TestTimeIsLinear searches 64 KiB of each text that offers a match, or the
// beginning of one, at every step. It takes up to a tenth of a second, ten
// times that under the race detector; anything quadratic takes 64 Ki steps of
// 64 KiB and could not stay below the bound.
func TestTimeIsLinear(t *testing.T) {
	const size, bound = 64 << 10, 3 * time.Second
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := New(Options{})
	for _, unit := range []string{
		"/a ", "password=", "-----BEGIN PRIVATE KEY-----", "eyJaaaaaaaa.", `C:\a `, "://a:", "~/a/", "token: \"", "--token ",
		"data:a/b;", "%2Fhome%2F", "'/a b", "token_type=", "api key", "<password>", "token", "cookie: a=", "basic aaaaaaaa", "Bearer aaaaaaaa",
	} {
		start := spent(t)
		r.spans(strings.Repeat(unit, size/len(unit)))
		if took := spent(t) - start; took > bound {
			t.Errorf("%q: %v", unit, took)
		}
	}
}
