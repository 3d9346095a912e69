package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// figure is one row: the samples of one measurement, and what they are held against.
type figure struct {
	what    string
	unit    string
	samples []float64
	goal    *goal // nil: a baseline, or a figure without a goal
}

// goal is a bound on the median.
type goal struct {
	most bool // the figure may be at most value, else at least
	v    float64
}

func atMost(v float64) *goal  { return &goal{true, v} }
func atLeast(v float64) *goal { return &goal{false, v} }

// met holds the figure as it is shown against the goal: two digits behind the point are enough.
func (g *goal) met(v float64) bool {
	v = math.Round(v*100) / 100
	return g.most && v <= g.v || !g.most && v >= g.v
}

func (g *goal) String() string {
	sign := "≥"
	if g.most {
		sign = "≤"
	}
	return sign + " " + number(g.v)
}

// table is the rows as Markdown: the median, the spread, and how the median stands to its goal.
func table(figures []figure) string {
	var b strings.Builder
	b.WriteString("| what | median | lowest to highest | samples | goal | |\n|---|---|---|---|---|---|\n")
	for _, f := range figures {
		s := slices.Sorted(slices.Values(f.samples))
		m := at(s, 0.5)
		bound, verdict := "", ""
		if f.goal != nil {
			bound, verdict = f.goal.String()+" "+f.unit, "missed"
			if f.goal.met(m) {
				verdict = "met"
			}
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s to %s | %d | %s | %s |\n", f.what, number(m), f.unit, number(s[0]), number(s[len(s)-1]), len(s), bound, verdict)
	}
	return b.String()
}

// number shows three digits or all in front of the point.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// at is the quantile q of sorted values: the smallest of which at least q are not above.
func at(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// ms are durations as sorted milliseconds.
func ms(all []time.Duration) []float64 {
	out := make([]float64, len(all))
	for i, d := range all {
		out[i] = float64(d) / float64(time.Millisecond)
	}
	slices.Sort(out)
	return out
}
