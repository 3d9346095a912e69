package model

import (
	"bytes"
	"strings"
	"testing"
)

// One fault here, two in `make model`: a crash costs none, so that much can go wrong with one.
const faults = 1

func TestFullRulesAreSafe(t *testing.T) {
	for _, w := range Worlds(faults) {
		r := Explore(Full(), w)
		if !r.Safe() {
			var b bytes.Buffer
			r.Print(&b, w.String())
			t.Errorf("all rules: %s", b.String())
		}
		if r.States < 1000 {
			t.Errorf("%s: only %d states were seen", w, r.States)
		}
	}
}

// TestEachRuleIsNeeded takes the rules out one at a time and asserts the way to what then goes wrong.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, a := range Ablations() {
		rules := Full()
		a.Remove(&rules)
		if rules == Full() {
			t.Errorf("without %s: nothing was taken out", a.Name)
		}
		r, w, found := Needed(rules, faults)
		if !found {
			t.Errorf("without %s nothing was found", a.Name)
			continue
		}
		for what, way := range r.Wrong {
			if len(way) < 3 {
				t.Errorf("without %s: %s by %v", a.Name, what, way)
			}
		}
		if len(r.Wrong) == 0 && len(r.Stuck) == 0 {
			t.Errorf("without %s; %s: no way to what is wrong", a.Name, w)
		}
	}
}

// The three that the design names, with what they prevent.
func TestTheThreeThatMatter(t *testing.T) {
	for name, want := range map[string]struct {
		remove func(*Rules)
		wrong  string
		way    string
	}{
		"fencing token": {func(r *Rules) { r.Token = false }, "failed although it ran", "broker: result failed"},
		"report rule":   {func(r *Rules) { r.Report = false }, "it waits again although it ran", "broker applies the report"},
		"tombstone":     {func(r *Rules) { r.Tombstone = false }, "cancelled although it ran", "broker: it will never run"},
	} {
		rules := Full()
		want.remove(&rules)
		way := FirstWrong(rules, World{Faults: faults}).Wrong[want.wrong]
		if len(way) == 0 || way[len(way)-1] != want.way {
			t.Errorf("without the %s: %q is reached by %v", name, want.wrong, way)
			continue
		}
		if s := replay(t, rules, way); s.wrong() != want.wrong {
			t.Errorf("without the %s: the way does not lead there but to %q", name, s.wrong())
		}
	}
}

// replay walks a way again from the beginning: a counter-example is one only if it can be followed.
func replay(t *testing.T, r Rules, way []string) state {
	t.Helper()
	now := map[state]bool{initial(World{Faults: faults}): true}
	for _, name := range way {
		next := map[state]bool{}
		for s := range now {
			x := stepper{Rules: r, World: World{Faults: faults}, s: s}
			x.agent()
			x.broker()
			for _, e := range x.out {
				if e.name == name {
					next[e.to] = true
				}
			}
		}
		if len(next) == 0 {
			t.Fatalf("%q cannot happen here", name)
		}
		now = next
	}
	for s := range now {
		if s.wrong() != "" {
			return s
		}
	}
	return state{}
}

func TestPrint(t *testing.T) {
	rules := Full()
	rules.Tombstone = false
	var b bytes.Buffer
	Explore(rules, World{}).Print(&b, "title")
	if out := b.String(); !strings.HasPrefix(out, "title") || !strings.Contains(out, "CANCELLED ALTHOUGH IT RAN: agent connects") {
		t.Errorf("printed %q", out)
	}
}
