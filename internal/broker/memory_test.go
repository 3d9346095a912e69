package broker

import (
	"runtime/metrics"
	"slices"
	"testing"
	"time"
)

func TestMemoryIsGivenBackAfterABusyTimeAndNotForEver(t *testing.T) {
	const live = 80
	var r rest
	var got []bool
	for _, allocated := range []uint64{1000, 1010, 1020, 1030, 1040, 1051, 1052, 1063, 1064} {
		got = append(got, r.due(allocated, live))
	}
	// The first look follows the start, which was busy; then quiet, three times and no more; 11 of 80 bytes are busy.
	want := []bool{false, true, true, true, false, false, true, false, true}
	if !slices.Equal(got, want) {
		t.Errorf("given back: %v, want %v", got, want)
	}
}

func TestRestReadsWhatTheRuntimeHas(t *testing.T) {
	var r rest
	if err := r.job(t.Context(), time.Now()); err != nil || r.allocated == 0 {
		t.Errorf("it saw %d bytes allocated, %v", r.allocated, err)
	}
	for _, s := range []string{"/gc/heap/allocs:bytes", "/gc/heap/live:bytes"} {
		if !slices.ContainsFunc(metrics.All(), func(d metrics.Description) bool { return d.Name == s && d.Kind == metrics.KindUint64 }) {
			t.Errorf("this runtime has no %s", s)
		}
	}
}
