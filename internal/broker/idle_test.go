package broker

import (
	"encoding/json"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// An idle desktop costs what its tunnel costs: no goroutine of the dispatcher or the API waits for it.
func TestIdleDesktopsCostNoGoroutineOfOurs(t *testing.T) {
	w := startAlone(t, func(c *Config) { c.Limits = map[string]int{string(limits.Enrol): 1000} })
	const desks = 20
	for range desks {
		w.enrol().connect()
	}
	busy := func() (n int) {
		stacks := make([]byte, 8<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for one := range strings.SplitSeq(string(stacks), "\n\n") {
			if strings.Contains(one, "broker.(*desk)") || strings.Contains(one, "broker.(*pump)") || strings.Contains(one, "broker.(*desktops)") ||
				strings.Contains(one, "httpapi.(*Server).tunnel(") {
				n++
			}
		}
		return n
	}
	eventually(t, "nothing waits for idle desktops", func() bool { return busy() == 0 })
	var all []wire.OperatorPairing
	w.operate(http.MethodGet, wire.PathOpPairings, nil, &all)
	online := 0
	for _, p := range all {
		if p.Online {
			online++
		}
	}
	if online != desks {
		t.Errorf("%d of %d desktops are online", online, desks)
	}
}

func TestWaitsAreABudgetAndBeyondItNobodyWaits(t *testing.T) {
	w := start(t, func(c *Config) { c.Limits = map[string]int{string(limits.Waits): 1} })
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.hold = true
	c := s.prompt("x", "")
	id := receive(t, "delivery", d.got)
	answers := make(chan wire.Command, 2)
	for range 2 {
		go func() { answers <- s.get(c.ID, "?wait=20") }()
	}
	if got := receive(t, "the answer to who may not wait", answers); got.State == wire.StateCompleted {
		t.Errorf("it is %s before it was executed", got.State)
	}
	d.execute(d.rows[id])
	if got := receive(t, "the answer to who waits", answers); got.State != wire.StateCompleted {
		t.Errorf("it is %s", got.State)
	}
}

// FuzzFrame feeds frames to a link that said hello: whatever comes, the answer is a frame or a refusal with a code.
func FuzzFrame(f *testing.F) {
	f.Add([]byte(`{"type":"hello","body":{}}`), false)
	f.Add([]byte(`{"type":"result","body":{"command":"cmd_A","state":"completed","sealed":"AA"}}`), true)
	f.Add([]byte(`{"type":"epoch","body":{"epoch":"AAAAAAAAAAA","boxes":{"x":"AA"}}}`), true)
	f.Add([]byte(`{"type":"revoke","body":{"surface":"","by":"desktop","time":1}}`), true)
	f.Add([]byte(`{"type":"beat","body":{"pairing":"x","beat":"AA"}}`), true)
	f.Fuzz(func(t *testing.T, raw []byte, ready bool) {
		var frame wire.Frame
		if strict(raw, &frame) == nil {
			switch frame.Type { // those ask the store, which this link has not
			case wire.FrameReport, wire.FrameWaiting, wire.FrameAccepted, wire.FrameLinkGrant, wire.FrameLinkEnd, wire.FrameBundle,
				wire.FrameLinkOpen, wire.FrameEpoch, wire.FrameResult:
				return
			}
		}
		k := &desk{d: &desktops{now: time.Now, log: discard()}}
		k.ready.Store(ready)
		for _, class := range []tunnel.Class{tunnel.Control, tunnel.Events, tunnel.Command} {
			out, err := k.serve(t.Context(), class, raw)
			if err == nil && !json.Valid(out) {
				t.Errorf("%q was answered %q", raw, out)
			}
		}
	})
}
