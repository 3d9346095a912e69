package agent

import (
	"bytes"
	"context"
	"encoding/hex"
	"testing"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

func execID(t *testing.T, envelope []byte) string {
	t.Helper()
	e, err := proof.ParseEnvelope(envelope)
	if err != nil {
		t.Fatal(err)
	}
	h := e.Hash()
	return hex.EncodeToString(h[:])
}

func TestPromptIsDurableBeforeItRunsAndSentUntilDurable(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	states := make(chan journal.Row, 1)
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(wire.ExecCommand) error { states <- d.row("cmd_1"); return nil }
	})
	e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "ses_1", Text: "hello"})
	command := d.deliver(e, deliveredReceived)
	row := <-states
	if row.State != journal.Started || row.Exec.Ref == "" || row.Exec.Text != "hello" || row.Exec.ID != execID(t, e) {
		t.Fatalf("while it runs: %+v", row)
	}
	h, body := d.result(p, command)
	if h.State != wire.StateCompleted || !body.OK || body.TurnID != row.Exec.Ref {
		t.Fatalf("result %+v %+v", h, body)
	}
	d.broker.connected(t)
	d.settled("the broker's word that it has the result", func() bool {
		rows, err := d.agent.journal.Rows(context.Background(), d.id)
		return err == nil && len(rows) == 0
	})
	d.halt()
	j := d.openJournal()
	defer j.Close()
	if rows, err := j.Rows(context.Background(), d.id); err != nil || len(rows) != 0 {
		t.Fatalf("not settled: %+v %v", rows, err)
	}
	if turns, _ := j.OpenTurns(context.Background()); len(turns) != 1 || turns[0].Ref != row.Exec.Ref {
		t.Fatalf("turns: %+v", turns)
	}
}

func TestResultWaitsForTheBroker(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	ran := make(chan struct{})
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(wire.ExecCommand) error { d.broker.setOnline(false); close(ran); return nil }
	})
	command := d.deliver(d.command(p, proof.CreateSession, wire.CreateSession{}), deliveredReceived)
	<-ran
	d.broker.setOnline(true)
	if _, body := d.result(p, command); !body.OK {
		t.Fatalf("%+v", body)
	}
	d.broker.mu.Lock()
	defer d.broker.mu.Unlock()
	last := d.broker.hello[len(d.broker.hello)-1]
	if len(last.Report.Open) != 1 || last.Report.Open[0].Command != command {
		t.Fatalf("report %+v", last.Report)
	}
}

func TestStaleTokenIsAnsweredByAReport(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	d.broker.mu.Lock()
	d.broker.refuse[wire.FrameResult] = wire.CodeStaleToken
	d.broker.mu.Unlock()
	command := d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived)
	d.result(p, command)
	if !d.broker.sawFrame(wire.FrameReport) {
		t.Fatal("no report after a stale token")
	}
}

func TestHelloIsSignedAndNothingIsServedBeforeItsReply(t *testing.T) {
	d := newDesktop(t)
	gone := d.link("old phone", proof.ScopePrompt)
	j := d.openJournal()
	d.record(j, journal.RevokeSurface(d.id, gone.id, d.now(), "desktop"))
	j.Close()
	d.boot()
	d.broker.mu.Lock()
	h := d.broker.hello[0]
	d.broker.mu.Unlock()
	signed := proof.Hello{Time: h.Time, JournalID: h.Report.JournalID, Counter: h.Report.Counter, HighWater: h.Report.HighWater}
	if err := signed.Verify(d.keys.Dsig(), h.Sig); err != nil {
		t.Fatal(err)
	}
	if len(h.Kinds) != len(proof.Kinds()) || h.Executor != "fake" || len(h.Revoked) != 1 || h.Revoked[0] != gone.id.String() {
		t.Fatalf("%+v", h)
	}
	c := d.broker.connected(t)
	l := &link{run: d.run, conn: c, ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.serve(ctx, tunnel.Control, []byte(`{"type":"attached","body":{"streams":1}}`)); err == nil {
		t.Fatal("a frame before the hello's reply was served")
	}
}

func TestFramesAreStrict(t *testing.T) {
	d := newDesktop(t)
	d.boot()
	c := d.broker.connected(t)
	for name, f := range map[string]struct {
		class tunnel.Class
		raw   string
	}{
		"no JSON":       {tunnel.Control, "x"},
		"unknown frame": {tunnel.Control, `{"type":"nonsense"}`},
		"wrong lane":    {tunnel.Control, `{"type":"deliver","body":{}}`},
		"unknown field": {tunnel.Control, `{"type":"attached","body":{"streams":1,"more":2}}`},
		"no body":       {tunnel.Control, `{"type":"attached"}`},
		"trailing":      {tunnel.Control, `{"type":"attached","body":{"streams":1}} {}`},
	} {
		if _, err := c.handler(t.Context(), f.class, []byte(f.raw)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if err := c.send(tunnel.Control, wire.FrameAttached, wire.Attached{Streams: 3}, nil); err != nil || !d.rec.has("attached 3") {
		t.Errorf("attached: %v", err)
	}
}

func TestOnlyTheCurrentLinkDelivers(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	old := d.broker.connected(t)
	d.broker.setOnline(false)
	d.broker.setOnline(true)
	d.broker.connected(t)
	e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"})
	err := old.send(tunnel.Command, wire.FrameDeliver, wire.Deliver{Command: "cmd_9", Sequence: 9, Envelope: e}, nil)
	if err == nil {
		t.Fatal("an old link's delivery was taken")
	}
	if _, err := d.agent.journal.Command(t.Context(), d.id, "cmd_9"); err == nil {
		t.Fatal("it was journalled")
	}
	if err := old.send(tunnel.Control, wire.FrameStop, wire.Stop{Command: "cmd_9", Why: "cancelled"}, nil); err == nil {
		t.Fatal("an old link's stop was taken")
	}
	d.deliver(e, deliveredReceived)
}

func TestSameEnvelopeIsNeverRunTwice(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"})
	first := d.deliver(e, deliveredReceived)
	d.result(p, first)
	d.deliverAs(first, 1, e, deliveredDuplicate)
	d.broker.mu.Lock()
	delete(d.broker.results, first)
	d.broker.mu.Unlock()
	second, sequence := d.broker.newID()
	d.deliverAs(second, sequence, e, deliveredDuplicate) // a broker that was restored lost the first id
	if h, body := d.result(p, second); h.State != wire.StateCompleted || body.TurnID == "" {
		t.Fatalf("%+v %+v", h, body)
	}
	if n := d.exec.count(execID(t, e)); n != 1 {
		t.Fatalf("ran %d times", n)
	}
}

func TestStop(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	running, release := make(chan string, 1), make(chan struct{})
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(c wire.ExecCommand) error { running <- c.ID; <-release; return nil }
	})
	first := d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "1"}), deliveredReceived)
	<-running
	queued := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "2"})
	second := d.deliver(queued, deliveredReceived)
	if got := d.stopCommand(first, wire.StateCancelled); got != stoppedStarted {
		t.Fatalf("stop of a started one: %s", got)
	}
	if got := d.stopCommand(second, wire.StateCancelled); got != stoppedTombstone {
		t.Fatalf("stop of a waiting one: %s", got)
	}
	if got := d.stopCommand(second, wire.StateCancelled); got != stoppedTombstone {
		t.Fatalf("the same stop again: %s", got)
	}
	close(release)
	if _, body := d.result(p, second); body.Status != wire.StateCancelled {
		t.Fatalf("%+v", body)
	}
	if _, body := d.result(p, first); !body.OK {
		t.Fatalf("%+v", body)
	}
	if d.exec.count(execID(t, queued)) != 0 {
		t.Fatal("a stopped command ran")
	}
	d.wantLine("command.stop_answered stopped")
}

func TestStopOfWhatNeverCame(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	command, sequence := d.broker.newID()
	if got := d.stopCommand(command, wire.StateExpired); got != stoppedTombstone {
		t.Fatal(got)
	}
	e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "late"})
	d.deliverAs(command, sequence, e, deliveredDuplicate)
	if r := d.broker.result(t, command); r.State != wire.StateExpired {
		t.Fatalf("%+v", r)
	}
	next := d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "next"}), deliveredReceived) // the chain went on
	d.result(p, next)
	if d.exec.count(execID(t, e)) != 0 {
		t.Fatal("a tombstone let it run")
	}
}

func TestSerialWithinASessionOnly(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	running, release := make(chan string, 8), make(chan struct{})
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(c wire.ExecCommand) error {
			if c.Kind != proof.Prompt.String() {
				return nil
			}
			running <- c.Text
			<-release
			return nil
		}
	})
	d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "a", Text: "a1"}), deliveredReceived)
	second := d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "a", Text: "a2"}), deliveredReceived)
	d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "b", Text: "b1"}), deliveredReceived)
	got := map[string]bool{<-running: true, <-running: true}
	if !got["a1"] || !got["b1"] {
		t.Fatalf("running %v", got)
	}
	status := d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived)
	if _, body := d.result(p, status); !body.OK { // not held up by prompts
		t.Fatalf("%+v", body)
	}
	if d.row(second).State != journal.Received {
		t.Fatal("the second prompt of a session did not wait")
	}
	close(release)
	d.result(p, second)
}

func TestRecheckBeforeItRuns(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	running, release := make(chan struct{}, 1), make(chan struct{})
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(c wire.ExecCommand) error {
			if c.Text == "first" {
				running <- struct{}{}
				<-release
			}
			return nil
		}
	})
	d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "first"}), deliveredReceived)
	<-running
	late := d.commandFor(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "late"}, d.now(), time.Minute)
	expired := d.deliver(late, deliveredReceived)
	blockedNow := d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "no more"}), deliveredReceived)
	d.shift(2 * time.Minute)
	if _, err := d.run.setPolicy(t.Context(), []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	close(release)
	if _, body := d.result(p, expired); body.Status != wire.StateExpired {
		t.Fatalf("%+v", body)
	}
	if _, body := d.result(p, blockedNow); body.Status != wire.StateBlocked || body.Code != "policy_prompts" {
		t.Fatalf("%+v", body)
	}
	if d.exec.total() != 1 {
		t.Fatalf("executed %v", d.exec.calls)
	}
}

// What has ended at the broker does not run, whatever the journal had in mind.
func TestWhatEndedAtTheBrokerDoesNotRun(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	running, release := make(chan struct{}), make(chan struct{})
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(wire.ExecCommand) error { close(running); <-release; return nil }
	})
	first := d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "1"}), deliveredReceived)
	<-running
	waits := d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "2"}), deliveredReceived)
	d.broker.mu.Lock()
	d.broker.reply = func(h wire.Hello) wire.HelloReply {
		r := wire.HelloReply{Protocol: 1, Time: time.Now().UnixMilli(), Report: tokensFor(h.Report)}
		r.Report.Known = []string{waits, "cmd_unheard"}
		return r
	}
	d.broker.mu.Unlock()
	old := d.broker.connected(t)
	old.Close("lost")
	d.settled("the row's end", func() bool { return d.row(waits).State == journal.Done })
	close(release)
	d.result(p, first)
	if row := d.row(waits); row.Verdict != wire.StateCancelled || !row.Durable || d.exec.total() != 1 {
		t.Fatalf("%+v, executed %v", row, d.exec.calls)
	}
}

// A broker whose disk was full gets the result again on the same link; one that will never take it is not asked again.
func TestRefusedResults(t *testing.T) {
	for code, again := range map[string]bool{wire.CodeFull: true, wire.CodeMalformed: false, wire.CodeConflict: false} {
		t.Run(code, func(t *testing.T) {
			d := newDesktop(t)
			p := d.link("phone", proof.ScopePrompt)
			d.boot()
			d.broker.mu.Lock()
			d.broker.refuse[wire.FrameResult] = code
			d.broker.mu.Unlock()
			command := d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived)
			d.broker.until(t, "a result", func() bool { return contains(d.broker.seen, wire.FrameResult) })
			if again {
				d.result(p, command)
				return
			}
			second := d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived)
			d.result(p, second)
			d.broker.mu.Lock()
			_, taken := d.broker.results[command]
			d.broker.mu.Unlock()
			if taken {
				t.Fatal("it was sent again on the same link")
			}
			if code == wire.CodeConflict {
				if row := d.row(command); !row.Durable {
					t.Fatal("a result that the broker has otherwise is kept for ever")
				}
				return
			}
			d.broker.connected(t).Close("lost")
			d.result(p, command) // the next link is asked again
		})
	}
}

func TestUseRenewsAGrant(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	d.result(p, d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived))
	if d.broker.sawFrame(wire.FrameLinkGrant) {
		t.Fatal("a young grant was renewed")
	}
	before, _ := d.agent.journal.Surface(t.Context(), d.id, p.id)
	d.shift(renewAfter)
	d.broker.offset = renewAfter
	old := d.currentKeys().Bundle()
	d.restart()
	d.broker.until(t, "a key for the new time", func() bool { return !bytes.Equal(d.currentKeys().Bundle(), old) })
	d.result(p, d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived))
	d.broker.until(t, "the renewed grant", func() bool { return contains(d.broker.seen, wire.FrameLinkGrant) })
	after, err := d.agent.journal.Surface(t.Context(), d.id, p.id)
	if err != nil || after.Serial <= before.Serial || after.NotAfter.Sub(before.NotAfter) < renewAfter-time.Minute {
		t.Fatalf("%+v", after)
	}
	g, err := proof.OpenGrant(d.keys.Dsig(), after.Grant)
	if err != nil || g.Serial != after.Serial || g.NotAfter != after.NotAfter.UnixMilli() || g.Surface != p.id {
		t.Fatalf("%+v %v", g, err)
	}
	d.wantLine("surface.renewed ")
}
