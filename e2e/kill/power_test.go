//go:build e2e

package kill

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// TestPowerCut ends broker and agent in the same moment, and in the last round OpenCode too, as a power cut would: what
// the broker had taken is completed when they are back, once (product.md, invariant 4).
func TestPowerCut(t *testing.T) {
	t.Parallel() // they wait more than they work
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	began := time.Now()
	r := newRig(ctx, t, isolated(t))
	hands := r.hands(ctx, 2)
	var sessions []string
	for _, h := range hands {
		session, err := h.create(ctx, "before the cut")
		check(t, err)
		sessions = append(sessions, session)
	}
	open := 0
	for round := range 3 {
		for n := range 3 {
			for i, h := range hands {
				_, err := h.prompt(ctx, sessions[i], fmt.Sprintf("say: cut-%d-%d-%d", round, n, i))
				check(t, err)
			}
		}
		check(t, pause(ctx, upTo(r.rng, 60*time.Millisecond)))
		open += r.cut(ctx, round == 2)
	}
	check(t, settle(ctx, hands))
	if open == 0 {
		t.Error("no cut met a command that was accepted and not done")
	}
	r.allOnce(ctx, hands)
	if left := r.stop(); left > 0 {
		t.Errorf("%d OpenCode processes are left after the agent was stopped", left)
	}
	t.Logf("power cut: seed=%d cuts=3 open_at_a_cut=%d took=%s", seed(t), open, time.Since(began).Round(time.Second))
}

// cut ends the programs at once, counts what was open, and starts the programs again.
func (r *rig) cut(ctx context.Context, runtimeToo bool) (open int) {
	r.t.Helper()
	runtime := r.onlyRuntime()
	var wg sync.WaitGroup
	var broker, agent, opencode error
	wg.Go(func() { broker = r.broker.Kill() })
	wg.Go(func() { agent = r.agent.Kill() })
	if runtimeToo {
		wg.Go(func() { opencode = endNow(runtime) })
	}
	wg.Wait()
	check(r.t, errors.Join(broker, agent, opencode))
	atBroker, _ := r.ended(ctx)
	for _, state := range atBroker {
		switch state {
		case wire.StateQueued, wire.StateLeased, wire.StateAccepted:
			open++
		}
	}
	var err error
	r.broker, err = r.StartBroker()
	check(r.t, err)
	check(r.t, r.startAgent())
	check(r.t, r.desktop.AwaitOnline(ctx, r.agent))
	return open
}

// allOnce looks that every command is completed and every prompt is there once.
func (r *rig) allOnce(ctx context.Context, hands []*hand) {
	r.t.Helper()
	got, err := openRuntime(r.t, r).count(ctx)
	check(r.t, err)
	for _, h := range hands {
		for _, o := range h.all() {
			if o.end.State() != wire.StateCompleted {
				r.t.Errorf("%s %q ended as %s: %s", o.kind, o.text, o.end.State(), o.end.Body.Message)
			}
			if n := got.texts[o.text]; o.kind.String() == "prompt" && n != 1 {
				r.t.Errorf("prompt %q ran %d times", o.text, n)
			}
		}
	}
}
