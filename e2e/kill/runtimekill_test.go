//go:build e2e

package kill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

const runtimeKills = 5

// TestOpenCodeKilled kills OpenCode itself five times, each time with a turn that runs, a request that waits and prompts
// that are on their way (mailbox.md, "At the desktop").
func TestOpenCodeKilled(t *testing.T) {
	t.Parallel() // they wait more than they work
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	began := time.Now()
	r := newRig(ctx, t, isolated(t))
	h := r.hands(ctx, 1)[0]
	f := follow(ctx, t, h)
	k := &runtimeKiller{rig: r, hand: h, watch: f}
	for _, session := range []*string{&k.busy, &k.asking, &k.crowded} {
		var err error
		*session, err = h.create(ctx, "session")
		check(t, err)
	}
	for i := range runtimeKills {
		k.round(ctx, i)
	}
	check(t, settle(ctx, []*hand{h}))
	k.verify(ctx)
	if left := r.stop(); left > 0 {
		t.Errorf("%d OpenCode processes are left after the agent was stopped", left)
	}
	t.Logf("OpenCode killed: seed=%d kills=%d interrupted=%d lost=%d commands=%d took=%s",
		seed(t), runtimeKills, f.count("interrupted"), f.count("lost"), len(h.all()), time.Since(began).Round(time.Second))
}

// runtimeKiller is one surface that works while its OpenCode dies.
type runtimeKiller struct {
	*rig
	hand                  *hand
	watch                 *watcher
	busy, asking, crowded string // sessions
}

// round is one death of OpenCode.
func (k *runtimeKiller) round(ctx context.Context, i int) {
	t := k.t
	t.Helper()
	slow := k.completed(ctx, k.busy, fmt.Sprintf("slow: 100\nslow-%d", i))
	word := fmt.Sprintf("never-%d", i)
	ask := k.completed(ctx, k.asking, "run: "+shell(word))
	request, err := k.hand.request(ctx, k.asking, shell(word))
	check(t, err)
	for n := range 3 { // these may be anywhere when it dies
		_, err := k.hand.prompt(ctx, k.crowded, fmt.Sprintf("say: crowd-%d-%d", i, n))
		check(t, err)
	}
	check(t, pause(ctx, upTo(k.rng, 200*time.Millisecond)))
	old := k.onlyRuntime()
	check(t, endNow(old))
	died := time.Now()

	for _, turn := range []string{slow, ask} {
		if got := k.watch.await(ctx, turn); got != wire.OutcomeInterrupted {
			t.Errorf("round %d: the turn ended as %q", i, got)
		}
	}
	if got := k.watch.await(ctx, request.ID); got != wire.DecisionLost {
		t.Errorf("round %d: the request ended as %q", i, got)
	}
	o, err := k.hand.decide(ctx, request, "allow")
	check(t, err)
	end, err := k.hand.await(ctx, o)
	check(t, err)
	if end.State() != wire.StateFailed {
		t.Errorf("round %d: a decision for a lost request ended as %s %+v", i, end.State(), end.Body)
	}
	told := time.Since(died)
	for _, session := range []string{k.busy, k.asking, k.crowded} {
		turn := k.completed(ctx, session, fmt.Sprintf("say: after-%d-%s", i, session))
		if got := k.watch.await(ctx, turn); got != wire.OutcomeDone {
			t.Errorf("round %d: a turn after the restart ended as %q", i, got)
		}
	}
	t.Logf("round %d: the ends were told after %s, all worked again after %s", i, told.Round(time.Second), time.Since(died).Round(time.Second))
	if now := k.onlyRuntime(); now == old {
		t.Errorf("round %d: OpenCode is still process %d", i, now)
	}
}

func endNow(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// completed sends a prompt and returns the turn that it began.
func (k *runtimeKiller) completed(ctx context.Context, session, text string) string {
	k.t.Helper()
	o, err := k.hand.prompt(ctx, session, text)
	check(k.t, err)
	end, err := k.hand.await(ctx, o)
	check(k.t, err)
	if end.State() != wire.StateCompleted {
		k.t.Fatalf("%q ended as %s: %s", text, end.State(), end.Body.Message)
	}
	return end.Body.TurnID
}

// verify counts: nothing was sent twice, what is completed is there once and its turn has an end, and what nobody
// allowed has not run.
func (k *runtimeKiller) verify(ctx context.Context) {
	t := k.t
	t.Helper()
	got, err := openRuntime(t, k.rig).count(ctx)
	check(t, err)
	for _, o := range k.hand.all() {
		state, n := o.end.State(), got.texts[o.text]
		switch {
		case o.kind != proof.Prompt:
		case n > 1, state == wire.StateCompleted && n != 1, state != wire.StateCompleted && state != wire.StateOutcomeUnknown && n != 0:
			t.Errorf("prompt %q is %s and ran %d times", o.text, state, n)
		case state == wire.StateCompleted:
			if k.watch.await(ctx, o.end.Body.TurnID) == "" {
				t.Errorf("the turn of %q has no end", o.text)
			}
		}
	}
	if ran := k.written(); len(ran) > 0 {
		t.Errorf("commands ran that nobody allowed: %v", ran)
	}
}

// watcher keeps how turns and requests ended, by their ids, as the surface's stream tells.
type watcher struct {
	t    *testing.T
	mu   sync.Mutex
	ends map[string]string
}

// follow watches until the test ends.
func follow(ctx context.Context, t *testing.T, h *hand) *watcher {
	w := &watcher{t: t, ends: map[string]string{}}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	after := uint64(0)
	go func() { done <- h.Watch(ctx, &after, w.take) }()
	t.Cleanup(func() {
		cancel()
		check(t, <-done)
	})
	return w
}

var errTwice = errors.New("ended twice")

func (w *watcher) take(u surface.Update) error {
	if u.Event == nil {
		return nil
	}
	var end struct {
		ID      string `json:"id"`
		Turn    string `json:"turn_id"`
		Outcome string `json:"outcome"`
	}
	switch u.Event.Type {
	case wire.EventTurnEnded, wire.EventRequestClosed:
		if err := json.Unmarshal(u.Event.Data, &end); err != nil {
			return err
		}
	default:
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	id := end.ID + end.Turn
	if was, twice := w.ends[id]; twice {
		return fmt.Errorf("%s %w: %s, %s", id, errTwice, was, end.Outcome)
	}
	w.ends[id] = end.Outcome
	return nil
}

// await returns how a turn or request ended; empty when it has not in a minute and a half.
func (w *watcher) await(ctx context.Context, id string) string {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for {
		w.mu.Lock()
		outcome, ok := w.ends[id]
		w.mu.Unlock()
		if ok || pause(ctx, look) != nil {
			return outcome
		}
	}
}

func (w *watcher) count(outcome string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.ends {
		if o == outcome {
			n++
		}
	}
	return n
}
