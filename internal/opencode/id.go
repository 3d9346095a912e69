package opencode

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// OpenCode's ids are a prefix, 12 hexadecimal digits of time and 14 characters of chance.
// The time is the lower 48 bits of milliseconds × 4096 + counter, so it comes round every
// 2^36 ms (795 days).
const (
	idTimeDigits = 12
	idChance     = 14
	idCounter    = 1 << 12
	idMillis     = 1 << 36
	base62       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

var (
	sessionID  = regexp.MustCompile(`^ses_[0-9A-Za-z]{1,64}$`)
	messageID  = regexp.MustCompile(`^msg_[0-9A-Za-z]{1,64}$`)
	permission = regexp.MustCompile(`^per_[0-9A-Za-z]{1,64}$`)
	question   = regexp.MustCompile(`^que_[0-9A-Za-z]{1,64}$`)
)

// minter makes message ids that sort by time, also within a millisecond and when the
// clock steps back. Safe for concurrent use.
type minter struct {
	mu   sync.Mutex
	last uint64
}

// next returns a new message id for the given time.
func (m *minter) next(now time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = max(m.last+1, uint64(now.UnixMilli())*idCounter+1)
	return fmt.Sprintf("msg_%012x%s", m.last&(1<<48-1), chance(idChance))
}

// chance returns n random characters of base62, each equally likely.
func chance(n int) string {
	out := make([]byte, 0, n)
	var b [32]byte
	for len(out) < n {
		rand.Read(b[:]) // never fails, see crypto/rand
		for _, x := range b {
			if x < 4*62 && len(out) < n {
				out = append(out, base62[x%62])
			}
		}
	}
	return string(out)
}

// idTime returns when an ascending id (msg_, per_, que_) was made, taking the round
// nearest to now. An id of another form gives the zero time.
func idTime(id string, now time.Time) time.Time {
	const prefix = len("msg_")
	if len(id) < prefix+idTimeDigits {
		return time.Time{}
	}
	v, err := strconv.ParseUint(id[prefix:prefix+idTimeDigits], 16, 64)
	if err != nil {
		return time.Time{}
	}
	ms := int64(v / idCounter)
	round := now.UnixMilli() / idMillis
	best := time.UnixMilli(round*idMillis + ms)
	for _, r := range []int64{round - 1, round + 1} {
		t := time.UnixMilli(r*idMillis + ms)
		if t.Sub(now).Abs() < best.Sub(now).Abs() {
			best = t
		}
	}
	return best
}
