package broker

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// restEvery is how often rest looks whether the broker is quiet.
	restEvery = 10 * time.Second
	// quietShare of the live heap is what a quiet broker may allocate between two looks.
	quietShare = 8
	// givings is how often memory is given back after a busy time: each collection also halves the stacks that grew.
	givings = 3
)

// rest gives memory back to the system when a busy time is over. Links come in herds, and the runtime keeps what a herd
// needed for as long as the broker lives: a third of the memory of 5,000 idle desktops.
type rest struct {
	allocated uint64 // bytes in all, at the last look
	given     int    // since the last busy time
}

// due reports whether memory is to be given back now. allocated is all that was ever allocated, live what the last
// collection left, both in bytes.
func (r *rest) due(allocated, live uint64) bool {
	busy := allocated-r.allocated > live/quietShare
	r.allocated = allocated
	if busy {
		r.given = 0
		return false
	}
	r.given++
	return r.given <= givings
}

// job looks once.
func (r *rest) job(context.Context, time.Time) error {
	heap := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(heap)
	if r.due(heap[0].Value.Uint64(), heap[1].Value.Uint64()) {
		debug.FreeOSMemory()
	}
	return nil
}
