package broker

import (
	"math"
	"slices"
	"testing"
)

// quantile returns the q-quantile of all values.
func quantile(all map[string][]float64, q float64) float64 {
	var flat []float64
	for _, v := range all {
		flat = append(flat, v...)
	}
	slices.Sort(flat)
	return flat[int(q*float64(len(flat)-1))]
}

func below(values []float64, limit float64) []float64 {
	return slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v > limit })
}

// welch returns Welch's t of two samples.
func welch(a, b []float64) float64 {
	ma, va := moments(a)
	mb, vb := moments(b)
	return (ma - mb) / math.Sqrt(va/float64(len(a))+vb/float64(len(b)))
}

func moments(v []float64) (mean, variance float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		variance += (x - mean) * (x - mean) / float64(len(v)-1)
	}
	return mean, variance
}

// The comparison can fail: a difference of a tenth of the spread is found in as many values as the timing test has.
func TestWelchFindsADifference(t *testing.T) {
	var a, same, slower []float64
	for i := range timedCalls / 4 {
		noise := float64(i%97) - 48
		a, same, slower = append(a, noise), append(same, float64((i+31)%97)-48), append(slower, noise+4)
	}
	if got := math.Abs(welch(a, same)); got >= welchLimit {
		t.Errorf("equal samples: t = %.2f", got)
	}
	if got := math.Abs(welch(a, slower)); got < welchLimit {
		t.Errorf("different samples: t = %.2f", got)
	}
}
