package model

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// maxStates ends an exploration that has grown out of hand.
const maxStates = 5_000_000

// Result is what an exploration has found.
type Result struct {
	States   int
	Complete bool                // false: it was cut off at maxStates, which says nothing
	Wrong    map[string][]string // what must never be, and the shortest way to it
	Stuck    []string            // the way to a state that can end only by giving up; nil when there is none
}

// Safe says that everything was seen and nothing is wrong.
func (r Result) Safe() bool { return r.Complete && len(r.Wrong) == 0 && r.Stuck == nil }

// exploration is a breadth-first walk, so that the first way to a state is a shortest one.
type exploration struct {
	states []state
	index  map[state]int32
	parent []int32
	name   []string  // of the edge from the parent
	back   [][]int32 // predecessors over edges that are no faults and do not give up
}

// Explore walks everything that can happen in a world under some rules.
func Explore(r Rules, w World) Result { return explore(r, w, false) }

// FirstWrong walks until something is wrong; only when nothing is, everything was seen.
func FirstWrong(r Rules, w World) Result { return explore(r, w, true) }

func explore(r Rules, w World, first bool) Result {
	e := &exploration{index: map[state]int32{}}
	e.visit(initial(w), -1, "")
	res := Result{Wrong: map[string][]string{}, Complete: true}
	for i := 0; i < len(e.states); i++ {
		if len(e.states) > maxStates {
			res.Complete = false
			break
		}
		s := e.states[i]
		if what := s.wrong(); what != "" {
			if _, known := res.Wrong[what]; !known {
				res.Wrong[what] = e.way(i)
			}
			if first {
				res.States = len(e.states)
				return res
			}
		}
		if s.ran > 1 {
			continue
		}
		x := stepper{Rules: r, World: w, s: s}
		x.agent()
		x.broker()
		for _, edge := range x.out {
			n := e.visit(edge.to, int32(i), edge.name)
			if !edge.fault && edge.name != givesUp {
				e.back[n] = append(e.back[n], int32(i))
			}
		}
	}
	res.States = len(e.states)
	if res.Complete {
		res.Stuck = e.stuck()
	}
	return res
}

func (e *exploration) visit(s state, from int32, name string) int32 {
	if n, known := e.index[s]; known {
		return n
	}
	n := int32(len(e.states))
	e.index[s] = n
	e.states, e.parent, e.name, e.back = append(e.states, s), append(e.parent, from), append(e.name, name), append(e.back, nil)
	return n
}

// way is how a state was reached.
func (e *exploration) way(i int) []string {
	var way []string
	for n := int32(i); e.parent[n] >= 0; n = e.parent[n] {
		way = append(way, e.name[n])
	}
	slices.Reverse(way)
	return way
}

// stuck looks for a state from which no terminal one can be reached, without faults and without giving up.
func (e *exploration) stuck() []string {
	ends := make([]bool, len(e.states))
	var queue []int32
	for i, s := range e.states {
		if s.b.Terminal() {
			ends[i] = true
			queue = append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, p := range e.back[n] {
			if !ends[p] {
				ends[p] = true
				queue = append(queue, p)
			}
		}
	}
	for i, s := range e.states {
		if !ends[i] && s.within() {
			return e.way(i)
		}
	}
	return nil
}

// Print writes what was found, with the ways to it.
func (r Result) Print(w io.Writer, title string) {
	fmt.Fprintf(w, "%-58s %8d states, %d wrong, %s\n", title, r.States, len(r.Wrong), map[bool]string{true: "stuck", false: "nothing stuck"}[r.Stuck != nil])
	if !r.Complete {
		fmt.Fprintln(w, "   CUT OFF: not everything was seen")
	}
	for _, what := range slices.Sorted(maps.Keys(r.Wrong)) {
		fmt.Fprintf(w, "   %s: %s\n", strings.ToUpper(what), strings.Join(r.Wrong[what], "; "))
	}
	if r.Stuck != nil {
		fmt.Fprintf(w, "   STUCK: %s\n", strings.Join(r.Stuck, "; "))
	}
}
