//go:build e2e

package kill

import (
	"context"
	"path/filepath"
	"testing"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/pkg/wire"
)

// The write-ahead logs that must reach the disk.
const (
	brokerWAL = broker.StoreFile + "-wal"
	agentWAL  = agent.JournalName + "-wal"
)

// TestFsyncBeforeAck follows the system calls of broker and agent while one prompt runs: whatever says "I have it" leaves
// after the fsync of the file in which it stands (product.md, invariant 4).
func TestFsyncBeforeAck(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	r := newRig(ctx, t, func(*lab.Lab) []string { return []string{"--executor", agent.ExecutorEcho} })
	h := r.hands(ctx, 1)[0]
	session, err := h.create(ctx, "traced")
	check(t, err)
	r.atRest(ctx)

	brokers, agents := attach(t, r, r.broker), attach(t, r, r.agent)
	o, err := h.prompt(ctx, session, "durable?")
	check(t, err)
	end, err := h.await(ctx, o)
	check(t, err)
	if end.State() != wire.StateCompleted {
		t.Fatalf("the prompt ended as %s", end.State())
	}
	r.atRest(ctx)
	b, a := brokers.stop(), agents.stop()
	sentAfterSync(t, b)
	acknowledgedAfterSync(t, b, brokerWAL, wire.FrameResult, wire.FrameBatch)
	delivered := acknowledgedAfterSync(t, a, agentWAL, wire.FrameDeliver)
	reportedAfterSync(t, a, delivered)
}

// atRest waits until broker and agent have nothing more to tell each other.
func (r *rig) atRest(ctx context.Context) {
	r.t.Helper()
	for quiet := 0; quiet < 10; {
		s, err := r.control.Status(ctx)
		check(r.t, err)
		if p := s.Pairings[0]; p.Events+p.Results+p.Running == 0 {
			quiet++
		} else {
			quiet = 0
		}
		check(r.t, pause(ctx, 5*look))
	}
}

// sentAfterSync looks at the broker's answer to the surface that posted the command.
func sentAfterSync(t *testing.T, calls []call) {
	t.Helper()
	in, out := flows(calls)
	for fd, f := range in {
		asked, ok := f.at("POST /api/v1/pairings/", -1)
		if !ok {
			continue
		}
		answered, ok := out[fd].at("HTTP/1.1 20", asked)
		if !ok {
			t.Fatal("the post of the command has no answer in the trace")
		}
		n := syncs(calls, brokerWAL, asked, answered)
		t.Logf("broker: %d syncs of the store between the post of a command and its answer", n)
		if n == 0 {
			t.Error("the broker answered for a command before it was on the disk")
		}
		return
	}
	t.Fatal("no post of a command is in the trace")
}

// acknowledgedAfterSync looks at every request of the types named that came over the tunnel, and returns the last.
func acknowledgedAfterSync(t *testing.T, calls []call, wal string, types ...string) (last request) {
	t.Helper()
	in, out := flows(calls)
	fd, tunnel := carrying(t, in, types[0])
	replies := out[fd].unframed()
	for _, q := range tunnel.requests(t, types...) {
		line, body := replies.reply(t, q)
		n := syncs(calls, wal, q.line, line)
		t.Logf("%s: %d syncs between %s and its reply %s", filepath.Base(wal), n, q.kind, body)
		if n == 0 {
			t.Errorf("%s was acknowledged before it was on the disk", q.kind)
		}
		last = q
	}
	return last
}

// reportedAfterSync looks at the agent's result: received, started and done are three commits, each synced, before it
// leaves.
func reportedAfterSync(t *testing.T, calls []call, delivered request) {
	t.Helper()
	_, out := flows(calls)
	_, tunnel := carrying(t, out, wire.FrameResult)
	results := tunnel.requests(t, wire.FrameResult)
	if len(results) != 1 {
		t.Fatalf("%d results left the desktop", len(results))
	}
	n := syncs(calls, agentWAL, delivered.line, results[0].first)
	t.Logf("agent: %d syncs of the journal between the delivery and the result", n)
	if n < 3 {
		t.Errorf("the result left after %d syncs; received, started and done need one each", n)
	}
}
