//go:build e2e

package hostile

import (
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/pkg/wire"
)

// ages lets days pass for everyone; the desktop sleeps through the change of its clock.
func (w *world) ages(by string) {
	w.t.Helper()
	check(w.t, w.agent.Stop(20*time.Second))
	for _, who := range []string{"broker", "desktop-agent", "surface"} {
		check(w.t, w.Shift(who, by))
	}
	var err error
	w.agent, err = w.desktop.Start(w.ctx)
	check(w.t, err)
}

// program prompts by the program of a surface, which reads the shifted clock.
func (w *world) program(p *phone, text string) lab.Result {
	w.t.Helper()
	r, err := p.cli.Run(w.ctx, "prompt", text)
	check(w.t, err)
	return r
}

// TestRollback: keys and grants that the desktop has replaced are refused when the broker shows them again, and commands
// from before a restart, or kept back for a day, do not run. The chaos programs let days pass.
func TestRollback(t *testing.T) {
	w := newWorld(t, "bin/chaos", echo...)
	p := w.link("phone", false)
	w.begin(p)
	a := &attack{world: w, phone: p}
	d := a.hold("once")
	a.deliver(d, "received")
	a.awaitEnd(d.Command)
	a.honest()
	kept := a.hold("kept back")
	a.honest()
	old, err := p.State(w.ctx)
	check(t, err)

	w.ages("25h")
	t.Run("kept back for a day", func(t *testing.T) {
		started := w.started()
		a.deliver(kept, "refused")
		if n := w.started(); n != started {
			t.Errorf("%d commands were started", n-started)
		}
		wantLines(t, w.audit(), []string{"command.refused refused expired"})
	})
	first := w.program(p, "under the next key")
	if first.Code != 0 {
		t.Fatalf("exit %d: %s", first.Code, first.Stderr)
	}
	shows := func(name, want string, lie func(*wire.PairingState)) {
		t.Run(name, func(t *testing.T) {
			started := w.started()
			honest := w.liar.lie(func(l *liar) { l.after = on(aboutPairing, lie) })
			r := w.program(p, name)
			honest()
			if r.Code == 0 || !strings.Contains(r.Stderr, want) {
				t.Errorf("exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
			}
			if n := w.started(); n != started {
				t.Errorf("%d commands were started for it", n-started)
			}
		})
	}
	shows("a key from before", "a key of the desktop that is over", func(s *wire.PairingState) { s.Bundle = old.Bundle })

	t.Run("replayed to a restarted desktop", func(t *testing.T) {
		started := w.started()
		a.deliver(d, "duplicate")
		a.deliver(under(d, d.Envelope), "duplicate")
		if n := w.started(); n != started {
			t.Errorf("%d commands were started again", n-started)
		}
	})
	w.ages("192h") // a grant is renewed by use when it is a week old
	for range 2 {
		if r := w.program(p, "renews"); r.Code != 0 {
			t.Fatalf("exit %d: %s", r.Code, r.Stderr)
		}
		w.await("the renewed grant", func() bool {
			for _, l := range w.audit() {
				if l.Type == "surface.renewed" {
					return true
				}
			}
			return false
		})
	}
	shows("a grant from before", "an older grant than this surface has", func(s *wire.PairingState) { s.Grant = old.Grant })
}

// started counts every command that was started at the desktop.
func (w *world) started() (n int) {
	for _, l := range w.audit() {
		if l.Type == "command.started" {
			n++
		}
	}
	return n
}
