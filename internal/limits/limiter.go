package limits

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// MaxKeys bounds the keys remembered per rule. When it is reached and no key has refilled, strangers share one
// bucket, so that a flood of addresses neither grows memory nor pushes out those who are already counted.
const MaxKeys = 50_000

const shared = "\x00shared"

// Limiter enforces a table. All methods are safe for concurrent use; counts live in memory and start anew with
// the process.
type Limiter struct {
	now   func() time.Time
	rules map[Name]Rule

	mu    sync.Mutex
	rates map[Name]map[string]time.Time // when the bucket is full again
	held  map[Name]map[string]int
}

// New returns a limiter for table. now is the clock of the rates.
func New(table []Rule, now func() time.Time) *Limiter {
	l := &Limiter{
		now: now, rules: map[Name]Rule{}, rates: map[Name]map[string]time.Time{}, held: map[Name]map[string]int{},
	}
	for _, r := range table {
		l.rules[r.Name] = r
		l.rates[r.Name] = map[string]time.Time{}
		l.held[r.Name] = map[string]int{}
	}
	return l
}

// Table returns the rules that are enforced, in order of their names.
func (l *Limiter) Table() []Rule {
	return slices.SortedFunc(maps.Values(l.rules), func(a, b Rule) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
}

// Allow counts one hit on every key, or on none and says how long to wait. A rule that the table lacks allows
// nothing: deny by default.
func (l *Limiter) Allow(name Name, keys ...string) (wait time.Duration, ok bool) {
	return l.hit(name, keys, true)
}

// Exceeded says whether Allow would refuse, and counts nothing.
func (l *Limiter) Exceeded(name Name, keys ...string) bool {
	_, ok := l.hit(name, keys, false)
	return !ok
}

func (l *Limiter) hit(name Name, keys []string, count bool) (time.Duration, bool) {
	r, known := l.rules[name]
	if !known || r.Window <= 0 || r.Max <= 0 {
		return time.Minute, false
	}
	step := r.Window / time.Duration(r.Max)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	bucket := l.rates[name]
	keys = slices.Clone(keys)
	full := make([]time.Time, len(keys))
	for i := range keys {
		keys[i] = place(bucket, keys[i], now)
		full[i] = later(r.sane(bucket[keys[i]], now), now).Add(step)
		if over := full[i].Sub(now) - r.Window; over > 0 {
			return over, false
		}
	}
	for i, k := range keys {
		if count {
			bucket[k] = full[i]
		}
	}
	return 0, true
}

// sane forgets a count from the future: a bucket is never further than its window from being full, unless the clock
// was set back.
func (r Rule) sane(full, now time.Time) time.Time {
	if full.Sub(now) > r.Window {
		return now
	}
	return full
}

// place returns the key to count under: its own while there is room.
func place(bucket map[string]time.Time, key string, now time.Time) string {
	if _, ok := bucket[key]; ok || len(bucket) < MaxKeys {
		return key
	}
	maps.DeleteFunc(bucket, func(_ string, full time.Time) bool { return !full.After(now) })
	if len(bucket) < MaxKeys {
		return key
	}
	return shared
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Hold takes one of a budget, or says no. release gives it back; calling it twice is safe.
func (l *Limiter) Hold(name Name, key string) (release func(), ok bool) {
	r, known := l.rules[name]
	if !known || r.Window != 0 {
		return nil, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.held[name]
	if held[key] >= r.Max {
		return nil, false
	}
	held[key]++
	return sync.OnceFunc(func() { l.give(held, key) }), true
}

func (l *Limiter) give(held map[string]int, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held[key]--; held[key] <= 0 {
		delete(held, key)
	}
}
