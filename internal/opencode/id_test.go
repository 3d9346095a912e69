package opencode

import (
	"sync"
	"testing"
	"time"
)

// A message id that the real OpenCode 1.18.33 made, and the time it stored with it.
const (
	realID     = "msg_20f14478b001Dh6OioxTUJF4g6"
	realMillis = 1795549317003
)

func TestIDTime(t *testing.T) {
	now := time.UnixMilli(realMillis).Add(48 * time.Hour)
	if got := idTime(realID, now); got.UnixMilli() != realMillis {
		t.Errorf("time of a real id %v", got)
	}
	// Around the moment where the 36 bits come round, both sides are right.
	edge := time.UnixMilli((realMillis/idMillis + 1) * idMillis)
	var m minter
	for _, at := range []time.Time{edge.Add(-time.Minute), edge.Add(time.Minute)} {
		for _, seen := range []time.Time{edge.Add(-2 * time.Minute), edge.Add(2 * time.Minute)} {
			m = minter{}
			if got := idTime(m.next(at), seen); !got.Equal(at) {
				t.Errorf("made at %v, seen at %v: %v", at, seen, got)
			}
		}
	}
	for _, bad := range []string{"", "msg_", "msg_zzzzzzzzzzzz00000000000000"} {
		if got := idTime(bad, now); !got.IsZero() {
			t.Errorf("time of %q: %v", bad, got)
		}
	}
}

func TestMinter(t *testing.T) {
	now := time.UnixMilli(realMillis)
	var m minter
	first := m.next(now)
	if first[:16] != realID[:16] || len(first) != len(realID) || !messageID.MatchString(first) {
		t.Errorf("made %q, OpenCode made %q at the same time", first, realID)
	}
	if later := m.next(now.Add(-time.Hour)); later <= first {
		t.Errorf("the clock stepped back: %q after %q", later, first)
	}
	var mu sync.Mutex
	seen := map[string]bool{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				id := m.next(now)
				mu.Lock()
				seen[id[:16]] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(seen) != 800 {
		t.Errorf("%d different times for 800 ids", len(seen))
	}
}

func TestIDForms(t *testing.T) {
	for _, bad := range []string{"", "ses_", "ses_a/b", "ses_a?b", "ses_../x", "msg_1", "ses_a\n"} {
		if sessionID.MatchString(bad) {
			t.Errorf("%q passes as a session id", bad)
		}
	}
}
