//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestDesktopOff: what is sent while the desktop is off waits at the broker, says so, and runs when it is back.
func TestDesktopOff(t *testing.T) {
	ctx, l := newLab(t, "bin")
	w := start(ctx, t, l, withModel(t, l)...)
	phone := w.link(ctx, t, "phone", false)
	session := prompt(ctx, t, phone, "say: first").Session

	check(t, w.agent.Stop(20*time.Second))
	sent := run(ctx, t, phone, "prompt", "--no-wait", "--json", "--session", session, "say: while off")
	if sent.Code != 0 || !strings.Contains(sent.Stderr, "asleep or off (since") || !strings.Contains(sent.Stderr, "will run when it is back, until") {
		t.Fatalf("exit %d: %s", sent.Code, sent.Stderr)
	}
	check(t, w.broker.Stop(20*time.Second)) // it is durable there
	var err error
	w.broker, err = l.StartBroker()
	check(t, err)
	w.agent, err = w.desktop.Start(ctx)
	check(t, err)

	for !strings.Contains(must(ctx, t, phone, "history", session), "assistant") || !strings.Contains(must(ctx, t, phone, "history", session), "while off") {
		pause(ctx, t)
	}
	if n := strings.Count(must(ctx, t, phone, "history", session), "say: while off"); n != 1 {
		t.Errorf("the prompt stands %d times in the transcript", n)
	}
}

// TestRevokedWithinASecond: an open stream ends, and the next command is refused (invariant 7).
func TestRevokedWithinASecond(t *testing.T) {
	ctx, l := newLab(t, "bin")
	w := start(ctx, t, l, echo...)
	for _, by := range []string{"desktop", "operator"} {
		t.Run("by the "+by, func(t *testing.T) {
			phone := w.link(ctx, t, "phone-"+by, false)
			watch, err := phone.Start("watch")
			check(t, err)
			_, err = watch.Await("desktop is connected", 20*time.Second)
			check(t, err)
			id := surfaceID(t, w, phone.Name)
			at := time.Now()
			if by == "desktop" {
				_, err = w.desktop.Must(ctx, "surfaces", "revoke", "--yes", id)
			} else {
				status, e := w.desktop.Status(ctx)
				check(t, e)
				_, err = w.Must(ctx, "", "broker", "--state", w.BrokerDir(), "surfaces", "revoke", status.Pairings[0].ID, id)
			}
			check(t, err)
			revoked := time.Now()
			select {
			case <-watch.Done():
			case <-time.After(time.Second):
				t.Errorf("the stream lives a second after the revocation (which took %s)", revoked.Sub(at))
			}
			if r := run(ctx, t, phone, "sessions"); r.Code != 4 {
				t.Errorf("a revoked surface got exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
			}
		})
	}
	check(t, w.broker.Stop(20*time.Second)) // and it survives a restart
	if _, err := l.StartBroker(); err != nil {
		t.Fatal(err)
	}
	if r := run(ctx, t, l.Surface("phone-desktop"), "sessions"); r.Code != 4 {
		t.Errorf("after a restart a revoked surface got exit %d: %s", r.Code, r.Stderr)
	}
}

func surfaceID(t *testing.T, w *world, label string) string {
	t.Helper()
	var all []struct{ ID, Label string }
	check(t, w.desktop.JSON(t.Context(), &all, "surfaces", "list"))
	for _, s := range all {
		if s.Label == label {
			return s.ID
		}
	}
	t.Fatalf("no surface %s in %+v", label, all)
	return ""
}

// TestTwoSurfacesRace: of two that answer one approval, one wins and the other is told by whom.
func TestTwoSurfacesRace(t *testing.T) {
	ctx, l := newLab(t, "bin")
	w := start(ctx, t, l, withModel(t, l)...)
	phone, tablet := w.link(ctx, t, "phone", true), w.link(ctx, t, "tablet", true)
	turn, err := phone.Start("prompt", "run: echo raced")
	check(t, err)
	r := request(ctx, t, phone)
	a, err := phone.Start("approve", r.ID)
	check(t, err)
	b, err := tablet.Start("deny", r.ID)
	check(t, err)
	won, lost := a.Code(), b.Code()
	if (won == 0) == (lost == 0) {
		t.Fatalf("approve: exit %d\n%s\ndeny: exit %d\n%s", won, a.Output(), lost, b.Output())
	}
	loser, winner := b, "phone"
	if won != 0 {
		loser, winner = a, "tablet"
	}
	if out := loser.Output(); !strings.Contains(out, "already decided by "+winner) && !strings.Contains(out, "no such request waits") {
		t.Errorf("the loser is told: %s", out)
	}
	turn.Code()
}

// TestClocks: clocks that are far off either work or are named in one line. The chaos programs take an offset.
func TestClocks(t *testing.T) {
	ctx, l := newLab(t, "bin/chaos")
	w := start(ctx, t, l, echo...)
	phone := w.link(ctx, t, "phone", false)
	session := prompt(ctx, t, phone, "before").Session
	for _, c := range []struct{ who, offset string }{
		{"surface", "10m"},
		{"surface", "-10m"},
		{"broker", "1h"},
		{"broker", "-1h"},
		{"desktop-agent", "-1h"},
		{"surface", "0s"},
		{"desktop-agent", "1h"}, // last: its journal is ahead from then on
	} {
		t.Run(c.who+" "+c.offset, func(t *testing.T) {
			check(t, l.Shift(c.who, c.offset))
			defer func() { check(t, l.Shift(c.who, "0s")) }()
			r := run(ctx, t, phone, "prompt", "--session", session, "clock off")
			if r.Code == 0 && strings.Contains(r.Stdout, "clock off") {
				return // it works
			}
			if !strings.Contains(r.Stderr, "clock") {
				t.Errorf("exit %d, and no clock is named: %s%s", r.Code, r.Stdout, r.Stderr)
			}
		})
	}
	if r := run(ctx, t, phone, "prompt", "--session", session, "set back"); r.Code == 0 || !strings.Contains(r.Stderr, "journal was written at") {
		t.Errorf("a clock behind the journal is not named: exit %d, %s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// TestExpired: a prompt whose time is over before the desktop is back does not run.
func TestExpired(t *testing.T) {
	ctx, l := newLab(t, "bin/chaos")
	w := start(ctx, t, l, echo...)
	phone := w.link(ctx, t, "phone", false)
	session := prompt(ctx, t, phone, "before").Session
	check(t, w.agent.Stop(20*time.Second))
	sent := prompt(ctx, t, phone, "--no-wait", "--session", session, "too late")
	for _, who := range []string{"broker", "desktop-agent", "surface"} {
		check(t, l.Shift(who, "25h"))
	}
	var err error
	w.agent, err = w.desktop.Start(ctx)
	check(t, err)
	r := run(ctx, t, phone, "resolve", "--it-ran", sent.Command)
	if r.Code == 0 {
		t.Errorf("an expired command was resolved as if its outcome were unknown: %s", r.Stdout)
	}
	if a := prompt(ctx, t, phone, "after"); a.Text != "after" {
		t.Errorf("%+v", a)
	}
	log, err := w.desktop.Must(ctx, "audit", "tail", "--json", "--limit", "1000")
	check(t, err)
	if strings.Contains(log, sent.Command) && strings.Contains(log, `"type":"command.started","code":`+sent.Command) {
		t.Errorf("the expired prompt ran:\n%s", log)
	}
	broker, err := w.Must(ctx, "", "broker", "--state", w.BrokerDir(), "audit", "tail", "--json")
	check(t, err)
	if !strings.Contains(broker, `"reason":"expired"`) {
		t.Errorf("the broker's log names no expiry:\n%s", broker)
	}
}
