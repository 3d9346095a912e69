package agent

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// leaveStarted delivers a prompt and crashes while the executor has it.
func leaveStarted(d *desktop, p *phone, text string, effect bool) (command, id string) {
	d.t.Helper()
	running := make(chan struct{})
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(c wire.ExecCommand) error {
			if effect {
				f.ran(c.ID)
			}
			close(running)
			<-d.agentGone()
			return errDied
		}
	})
	e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: text})
	command = d.deliver(e, deliveredReceived)
	<-running
	d.halt()
	d.exec.set(func(f *fakeExecutor) { f.do = nil })
	return command, execID(d.t, e)
}

// agentGone is closed when the running agent's run has begun to stop.
func (d *desktop) agentGone() <-chan struct{} {
	d.run.sched.mu.Lock()
	defer d.run.sched.mu.Unlock()
	return d.run.sched.ctx.Done()
}

func TestAfterACrashTheExecutorIsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		effect bool
		found  *wire.ExecFound
		late   time.Duration
		state  string
		runs   int
	}{
		"it ran":                        {effect: true, state: wire.StateCompleted, runs: 1},
		"it never ran":                  {state: wire.StateCompleted, runs: 1},
		"it never ran and has expired":  {late: 25 * time.Hour, state: wire.StateExpired},
		"it failed":                     {found: &wire.ExecFound{State: wire.FoundRan, Err: &wire.ExecError{Code: wire.ExecNotFound, Message: "no"}}, state: wire.StateFailed},
		"nobody can know":               {effect: true, found: &wire.ExecFound{State: wire.FoundUnknown}, state: wire.StateOutcomeUnknown, runs: 1},
		"nobody will know for too long": {effect: true, late: findFor + time.Hour, found: &wire.ExecFound{State: wire.FoundUnknown, RetryAfter: time.Hour}, state: wire.StateOutcomeUnknown, runs: 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesktop(t)
			p := d.link("phone", proof.ScopePrompt)
			d.boot()
			command, id := leaveStarted(d, p, "x", c.effect)
			if c.found != nil {
				d.exec.set(func(f *fakeExecutor) {
					f.find = func(cmd wire.ExecCommand) (wire.ExecFound, error) {
						if cmd.Ref != "msg_1" || cmd.StartedAt.IsZero() {
							t.Errorf("asked about %+v", cmd)
						}
						return *c.found, nil
					}
				})
			}
			d.shift(c.late)
			d.broker.offset = c.late
			d.boot()
			_, body := d.result(p, command)
			if body.Status != c.state {
				t.Fatalf("%+v", body)
			}
			if n := d.exec.count(id); n != c.runs {
				t.Fatalf("ran %d times, want %d", n, c.runs)
			}
			s, err := d.ready().Status(t.Context())
			if err != nil || s.Recovered != 1 {
				t.Fatalf("recovered %d %v", s.Recovered, err)
			}
		})
	}
}

func TestTheExecutorIsAskedAgainUntilItKnows(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	command, _ := leaveStarted(d, p, "x", true)
	asked := 0
	d.exec.set(func(f *fakeExecutor) {
		f.find = func(cmd wire.ExecCommand) (wire.ExecFound, error) {
			if asked++; asked < 3 {
				return wire.ExecFound{State: wire.FoundUnknown, RetryAfter: time.Millisecond}, nil
			}
			return wire.ExecFound{State: wire.FoundRan, Result: wire.ExecResult{MessageID: cmd.Ref}}, nil
		}
	})
	d.boot()
	if _, body := d.result(p, command); !body.OK || body.TurnID != "msg_1" || asked != 3 {
		t.Fatalf("%+v after %d", body, asked)
	}
}

// A connection that breaks in the middle of a call is no crash of the agent, and is resolved the same way.
func TestUnknownOutcomeIsResolvedWithoutARestart(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	died := false
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(wire.ExecCommand) error {
			if !died {
				died = true
				return errDied
			}
			return nil
		}
	})
	e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"})
	command := d.deliver(e, deliveredReceived)
	if _, body := d.result(p, command); !body.OK || d.exec.count(execID(t, e)) != 1 {
		t.Fatalf("%+v, ran %d times", body, d.exec.count(execID(t, e)))
	}
	if s, err := d.ready().Status(t.Context()); err != nil || s.Recovered != 0 {
		t.Fatalf("%d %v", s.Recovered, err)
	}
}

// What a crash leaves behind between any two steps is written into the journal by hand, and taken up by the next start.
func TestStartTakesUpWhatTheJournalHolds(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	envelopes := [][]byte{}
	for i := range 3 {
		envelopes = append(envelopes, d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: fmt.Sprint(i)}))
	}
	d.halt()
	j := d.openJournal()
	for i, raw := range envelopes {
		e, _ := proof.ParseEnvelope(raw)
		row := rowOf(wire.Deliver{Command: fmt.Sprintf("cmd_%d", i+1), Sequence: uint64(i + 1)}, e, d.now())
		row.State, row.Exec = journal.Received, wire.ExecCommand{ID: execID(t, raw), Kind: "prompt", SessionID: "s", Text: fmt.Sprint(i)}
		d.record(j, journal.Receive(row))
	}
	one, _ := j.Command(t.Context(), d.id, "cmd_2")
	d.record(j, journal.Start(one.ID, "msg_before", j.Meta().Counter, d.now()))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	d.boot()
	for i := range envelopes {
		if _, body := d.result(p, fmt.Sprintf("cmd_%d", i+1)); !body.OK {
			t.Fatalf("%d: %+v", i, body)
		}
		if n := d.exec.count(execID(t, envelopes[i])); n != 1 {
			t.Fatalf("%d ran %d times", i, n)
		}
	}
}

// Random deliveries, stops, lost links and crashes, with an executor that dies before or after its effect: every
// command ends once, and none runs twice.
func TestAtMostOnce(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	if before == checks.DefValue { // each run starts a few agents; ask for more with -rapid.checks
		checks.Value.Set("8")
		t.Cleanup(func() { checks.Value.Set(before) })
	}
	rapid.Check(t, func(r *rapid.T) {
		d := newDesktop(t)
		defer d.halt()
		p := d.link("phone", proof.ScopePrompt)
		d.boot()
		fate := map[string]int{} // of the next Execute of a command
		d.exec.set(func(f *fakeExecutor) {
			f.do = func(c wire.ExecCommand) error {
				f.mu.Lock()
				how := fate[c.Text]
				fate[c.Text] = 0
				f.mu.Unlock()
				switch how {
				case 1:
					return errDied
				case 2:
					f.ran(c.ID)
					return errDied
				case 3:
					<-d.agentGone()
					return errDied
				}
				return nil
			}
		})
		type sent struct {
			command, text string
			envelope      []byte
		}
		var all []sent
		steps := rapid.SliceOfN(rapid.IntRange(0, 5), 4, 12).Draw(r, "steps")
		for i, step := range steps {
			switch step {
			case 0, 1, 2:
				s := sent{text: fmt.Sprint(i)}
				d.exec.set(func(*fakeExecutor) { fate[s.text] = rapid.IntRange(0, 3).Draw(r, "fate") })
				s.envelope = d.command(p, proof.Prompt, wire.Prompt{SessionID: fmt.Sprint(i % 2), Text: s.text})
				s.command = d.deliver(s.envelope, deliveredReceived)
				all = append(all, s)
			case 3:
				d.restart()
			case 4:
				d.broker.connected(d.t).Close("lost")
			case 5:
				if len(all) > 0 {
					d.stopCommand(all[rapid.IntRange(0, len(all)-1).Draw(r, "which")].command, wire.StateCancelled)
				}
			}
		}
		d.halt()
		d.exec.set(func(*fakeExecutor) { clear(fate) }) // nothing blocks once nobody crashes any more
		d.boot()
		for _, s := range all {
			_, body := d.result(p, s.command)
			n := d.exec.count(execID(d.t, s.envelope))
			if body.Status == wire.StateCompleted && n != 1 || body.Status == wire.StateCancelled && n != 0 ||
				body.Status != wire.StateCompleted && body.Status != wire.StateCancelled {
				r.Fatalf("%s: %s, ran %d times", s.command, body.Status, n)
			}
		}
	})
}

func TestRestoredJournalLocksUntilRecover(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	d.result(p, d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived))
	d.halt()
	backup := copyFolder(t, d.dir)
	for range 2 { // the keystore has seen later starts
		d.boot()
		d.result(p, d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived))
		d.halt()
	}
	old := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "replayed"})
	d.dir = backup
	links := len(d.broker.links)
	d.start()
	client := d.ready()
	s, err := client.Status(t.Context())
	if err != nil || s.Pairings[0].Locked != lockJournal || s.Pairings[0].Link.State != "stopped" {
		t.Fatalf("%+v %v", s, err)
	}
	d.wantLine("journal.changed " + lockJournal)
	if _, err := client.LinkStart(t.Context(), "", "link", false); err == nil {
		t.Fatal("a locked pairing links")
	}
	d.halt()
	d.start() // locked still
	client = d.ready()
	if len(d.broker.links) != links {
		t.Fatal("a locked pairing connected")
	}
	before := d.agent.journal.Meta().ID
	if err := client.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.broker.until(t, "a link after recover", func() bool { return len(d.broker.links) > links })
	d.broker.connected(t)
	command := d.deliver(old, deliveredRefused)
	if _, body := d.result(p, command); body.Code != proof.UnknownBundle.String() {
		t.Fatalf("a replay: %+v", body)
	}
	d.result(p, d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived))
	if d.agent.journal.Meta().ID == before {
		t.Fatal("the journal kept its id")
	}
	d.wantLine("pairing.recovered ")
	if err := client.Recover(t.Context()); err == nil {
		t.Fatal("there was nothing to recover")
	}
	d.restart()
	if s, err := d.ready().Status(t.Context()); err != nil || s.Pairings[0].Locked != "" {
		t.Fatalf("after a start: %+v %v", s, err)
	}
}

func TestAnotherMachinesJournalLocks(t *testing.T) {
	d := newDesktop(t)
	d.boot()
	d.halt()
	d.machine = "machine-b"
	d.start()
	client := d.ready()
	if s, err := client.Status(t.Context()); err != nil || s.Pairings[0].Locked != lockMachine {
		t.Fatalf("%+v %v", s, err)
	}
	if err := client.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.restart()
}

// A crash of the agent between the journal's start and the keystore's mirror is no restore.
func TestStartsThatWereNotMirroredDoNotLock(t *testing.T) {
	d := newDesktop(t)
	d.boot()
	d.halt()
	for range 3 {
		if err := d.openJournal().Close(); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	d.broker.connected(t)
}

func TestTurnsAreKeptForTheExecutor(t *testing.T) {
	d := newDesktop(t)
	d.boot()
	d.exec.set(func(*fakeExecutor) {})
	emit := func(e wire.ExecEvent) { d.agent.event(e) }
	emit(wire.ExecEvent{Type: wire.ExecTurnStarted, SessionID: "s", CommandRef: "msg_desk"})
	emit(wire.ExecEvent{Type: wire.ExecTurnStarted, SessionID: "s", CommandRef: "msg_done"})
	emit(wire.ExecEvent{Type: wire.ExecTurnEnded, SessionID: "s", CommandRef: "msg_done", Outcome: wire.OutcomeDone})
	emit(wire.ExecEvent{Type: wire.ExecTurnEnded, SessionID: "s", CommandRef: "msg_done", Outcome: wire.OutcomeDone})
	emit(wire.ExecEvent{Type: wire.ExecTurnEnded, SessionID: "s", CommandRef: "msg_unknown", Outcome: wire.OutcomeDone})
	if !d.rec.has("event turn.ended") {
		t.Fatal("the publisher was not told")
	}
	d.restart()
	if len(d.exec.seed.Turns) != 1 || d.exec.seed.Turns[0].Ref != "msg_desk" || d.exec.seed.Since.IsZero() {
		t.Fatalf("%+v", d.exec.seed)
	}
	lines := 0
	for _, l := range d.auditTypes() {
		if l == string(audit.TurnEnded)+" "+wire.OutcomeDone {
			lines++
		}
	}
	if lines != 1 {
		t.Fatalf("%d lines of one end", lines)
	}
}

func TestStopsInAReportAreAnswered(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	d.exec.set(func(f *fakeExecutor) { f.do = func(wire.ExecCommand) error { return context.Canceled } })
	d.broker.mu.Lock()
	d.broker.reply = func(h wire.Hello) wire.HelloReply {
		r := wire.HelloReply{Protocol: 1, Time: time.Now().UnixMilli(), Report: tokensFor(h.Report)}
		r.Report.Stops = []wire.Stop{{Command: "cmd_77", Why: wire.StateCancelled}}
		return r
	}
	d.broker.mu.Unlock()
	d.exec.set(func(f *fakeExecutor) { f.do = nil })
	d.broker.connected(t).Close("lost")
	d.broker.until(t, "the tombstone's result", func() bool { return d.broker.results["cmd_77"].State == wire.StateCancelled })
	e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"})
	d.deliverAs("cmd_77", 77, e, deliveredDuplicate)
	if d.exec.total() != 0 {
		t.Fatal("a stopped command ran")
	}
}
