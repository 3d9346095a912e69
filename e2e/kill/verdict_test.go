//go:build e2e

package kill

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// verdict is what became of all commands, and what OpenCode holds of them.
type verdict struct {
	orders    []*order
	states    map[string]map[string]int // by kind and state
	messages  int                       // of users, in OpenCode
	sessions  int
	doubled   int // texts, sessions and shell commands that are there twice
	lines     int // which approved commands wrote
	decisions int
	unknown   int // decisions in outcome_unknown
}

// String is the line of counters.
func (v *verdict) String() string {
	var kinds []string
	for kind, states := range v.states {
		var all []string
		for state, n := range states {
			all = append(all, fmt.Sprintf("%s:%d", state, n))
		}
		slices.Sort(all)
		kinds = append(kinds, kind+"{"+strings.Join(all, ",")+"}")
	}
	slices.Sort(kinds)
	return fmt.Sprintf("commands=%d %s messages=%d sessions=%d shell_lines=%d doubled=%d unknown_decisions=%d/%d",
		len(v.orders), strings.Join(kinds, " "), v.messages, v.sessions, v.lines, v.doubled, v.unknown, v.decisions)
}

// verify holds the signed end of every command against what OpenCode has: exactly one execution of what is completed,
// none of what is not. OpenCode has lived all the time.
func verify(ctx context.Context, t *testing.T, r *rig, hands []*hand, runtime int) *verdict {
	t.Helper()
	v := &verdict{states: map[string]map[string]int{}}
	for _, h := range hands {
		v.orders = append(v.orders, h.all()...)
	}
	if len(v.orders) < 200 {
		t.Errorf("only %d commands were sent", len(v.orders))
	}
	if pid := r.onlyRuntime(); pid != runtime {
		t.Errorf("OpenCode is process %d, and was %d", pid, runtime)
	}
	r.quiet(ctx, v)
	got, err := openRuntime(t, r).count(ctx)
	check(t, err)
	v.sessions = len(got.ids)
	for _, o := range v.orders {
		v.countState(o)
		v.judge(t, o, got, r.written())
	}
	for text, n := range got.texts {
		v.messages += n
		if n > 1 {
			v.doubled++
			t.Errorf("%q stands %d times in OpenCode", text, n)
		}
	}
	for command, n := range got.sessions {
		if n > 1 {
			v.doubled++
			t.Errorf("command %s made %d sessions", command, n)
		}
	}
	for word, n := range r.written() {
		v.lines += n
		if n > 1 {
			v.doubled++
			t.Errorf("the shell wrote %q %d times", word, n)
		}
	}
	if v.unknown*50 > v.decisions {
		t.Errorf("%d of %d decisions are in outcome_unknown", v.unknown, v.decisions)
	}
	return v
}

// quiet waits until the shell commands that were allowed have run: a decision is done before that.
func (r *rig) quiet(ctx context.Context, v *verdict) {
	want := 0
	for _, o := range v.orders {
		if strings.HasPrefix(o.text, "allow ") && o.end.State() == wire.StateCompleted {
			want++
		}
	}
	deadline := time.Now().Add(time.Minute)
	for len(r.written()) < want && time.Now().Before(deadline) && pause(ctx, look) == nil {
	}
}

func (v *verdict) countState(o *order) {
	kind := o.kind.String()
	if v.states[kind] == nil {
		v.states[kind] = map[string]int{}
	}
	v.states[kind][o.end.State()]++
	if o.kind == proof.PermissionRespond {
		v.decisions++
		if o.end.State() == wire.StateOutcomeUnknown {
			v.unknown++
		}
	}
}

// judge looks at one command.
func (v *verdict) judge(t *testing.T, o *order, got tally, written map[string]int) {
	t.Helper()
	state := o.end.State()
	if !o.over || !o.end.Done() || !o.end.Signed {
		t.Errorf("%s %q ended as %s, signed %v", o.kind, o.text, state, o.end.Signed)
	}
	want := 0
	if state == wire.StateCompleted {
		want = 1
	}
	switch o.kind {
	case proof.Prompt:
		if n := got.texts[o.text]; n != want {
			t.Errorf("prompt %q is %s and ran %d times", o.text, state, n)
		}
	case proof.CreateSession:
		if n := got.sessions[hex.EncodeToString(o.hash[:])]; n != want {
			t.Errorf("create_session %q is %s and ran %d times", o.text, state, n)
		}
	case proof.PermissionRespond:
		word, allowed := allowedWord(o.text)
		if n := written[word]; state != wire.StateOutcomeUnknown && n != want*allowed {
			t.Errorf("decision %q is %s and its command ran %d times", o.text, state, n)
		}
		if state == wire.StateOutcomeUnknown {
			return
		}
	case proof.Abort: // of a turn that ended by itself
		if state == wire.StateFailed && o.end.Body.Code == wire.ExecNotRunning {
			return
		}
	}
	if state != wire.StateCompleted {
		t.Errorf("%s %q ended as %s: %s %s", o.kind, o.text, state, o.end.Body.Code, o.end.Body.Message)
	}
}

// allowedWord is the word that a decision is about, and 1 if it was allowed.
func allowedWord(text string) (word string, allowed int) {
	decision, command, _ := strings.Cut(text, " ")
	if decision == "allow" {
		allowed = 1
	}
	return strings.Fields(command)[1], allowed
}

// compareFiles holds what the surfaces were told against the files of broker and agent.
func (v *verdict) compareFiles(ctx context.Context, t *testing.T, r *rig) {
	t.Helper()
	atBroker, atDesktop := r.ended(ctx)
	if len(atBroker) != len(v.orders) {
		t.Errorf("the broker has %d commands, %d were sent", len(atBroker), len(v.orders))
	}
	for _, o := range v.orders {
		envelope := hex.EncodeToString(o.hash[:])
		if b, d := atBroker[envelope], atDesktop[envelope]; b != o.end.State() || d != o.end.State() {
			t.Errorf("%s %q ended as %s; the broker's file says %q, the desktop's %q", o.kind, o.text, o.end.State(), b, d)
		}
	}
}
