//go:build leak

// Package leak lets a broker, agents and surfaces meet and part thousands of times within one process: what is left of it
// in memory afterwards has leaked.
package leak

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	warmUp = 1_000  // cycles after which pools and caches have their size
	cycles = 10_000 // the warm-up among them
	desks  = 4      // at once; two cores are busy with four
	// mayGrow is the share by which the heap may differ at the end. The heap is small (1.5 MiB), so that one connection more
	// or less at the look is most of a percent, and the register of SQLite's cache pages grows with the databases until the
	// caches are full (27 KiB): 0 to 7 % were seen. A leak of 13 bytes a cycle fails.
	mayGrow = 0.08
)

// TestNothingIsLeftOfACycle: a desktop connects (nonce, upgrade, hello), a surface signs in, a command is delivered,
// executed and answered, and all of them part. State folders and their databases grow, as they must; the heap does not.
func TestNothingIsLeftOfACycle(t *testing.T) {
	w := newWorld(t)
	w.cycle(warmUp)
	before := measure(t)
	w.cycle(cycles - warmUp)
	after := measure(t)
	t.Logf("after %d cycles: %s; after %d: %s", warmUp, before, cycles, after)
	if after.goroutines > before.goroutines {
		stacks := make([]byte, 4<<20)
		t.Errorf("%d goroutines, and %d before\n%s", after.goroutines, before.goroutines, stacks[:runtime.Stack(stacks, true)])
	}
	if grown := float64(after.heap)/float64(before.heap) - 1; grown > mayGrow {
		t.Errorf("the heap grew by %.1f %%: %s, then %s", 100*grown, before, after)
	}
}

// cycle runs n cycles, spread over the desktops.
func (w *world) cycle(n int) {
	w.t.Helper()
	var next atomic.Int64
	errs := make([]error, len(w.desks))
	var wg sync.WaitGroup
	for i, d := range w.desks {
		wg.Go(func() {
			for errs[i] == nil && next.Add(1) <= int64(n) {
				errs[i] = d.cycle()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
}

// usage is what a process holds.
type usage struct {
	goroutines int
	heap       uint64 // bytes that are reachable
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines and %d KiB", u.goroutines, u.heap>>10)
}

// measure looks once nothing is at work any more, several times: what a timer or a pool still holds at one look is gone at
// another, and only what never goes has leaked.
func measure(t *testing.T) usage {
	t.Helper()
	u := usage{goroutines: settled(t), heap: 1 << 62}
	pause := time.NewTicker(300 * time.Millisecond)
	defer pause.Stop()
	for range 10 {
		for range 2 { // what a pool held goes with the second
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		u.heap = min(u.heap, m.HeapAlloc)
		<-pause.C
	}
	return u
}

// settled waits until the number of goroutines has stayed for half a second.
func settled(t *testing.T) int {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	n, same := runtime.NumGoroutine(), 0
	for range 3000 {
		<-tick.C
		if now := runtime.NumGoroutine(); now != n {
			n, same = now, 0
		} else if same++; same == 50 {
			return n
		}
	}
	t.Fatalf("the number of goroutines does not come to rest: %d", n)
	return 0
}
