//go:build e2e

package kill

import (
	"context"
	"testing"
	"time"
)

const births = 16

// TestKilledWhileOpenCodeStarts kills the agent at random moments of OpenCode's own start, when the run file is not yet
// complete: there is never a second OpenCode, and none is left at the end.
func TestKilledWhileOpenCodeStarts(t *testing.T) {
	t.Parallel() // they wait more than they work
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	r := newRig(ctx, t, isolated(t))
	check(t, r.agent.Stop(30*time.Second))
	started := 0
	for i := range births {
		within := 1500 * time.Millisecond
		if i%2 == 0 { // every second birth begins with none, and ends about when its process is made
			within = 150 * time.Millisecond
			for _, pid := range r.runtimes() {
				check(t, endNow(pid))
			}
		}
		check(t, r.startAgent())
		check(t, pause(ctx, upTo(r.rng, within)))
		check(t, r.killAgent())
		pids := r.runtimes()
		if len(pids) > 1 {
			t.Fatalf("birth %d: OpenCode processes %v", i, pids)
		}
		started += len(pids)
	}
	check(t, r.startAgent())
	check(t, r.desktop.AwaitOnline(ctx, r.agent))
	s, err := r.control.Status(ctx)
	check(t, err)
	if pid := r.onlyRuntime(); pid != s.Executor.PID {
		t.Errorf("OpenCode is process %d, and status says %d", pid, s.Executor.PID)
	}
	if left := r.stop(); left > 0 {
		t.Errorf("%d OpenCode processes are left after the agent was stopped", left)
	}
	t.Logf("births: seed=%d kills=%d with_an_opencode=%d adopted=%v", seed(t), births, started, s.Executor.Adopted)
}
