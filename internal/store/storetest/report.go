package storetest

import (
	"testing"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
)

func testReport(t *testing.T, open Open) {
	f := newFixture(t, open)
	f.post()
	f.post()
	f.relink()
	a, b := f.claim(), f.claim()
	f.accept(a)

	again := f.report(mailbox.ReportRow{Command: a.ID}) // a second time on the same link, which lacks b
	if again.Tokens[a.ID] != a.Token || len(again.Tokens) != 1 || again.Changed {
		t.Errorf("a second report on one link: %+v", again)
	}
	f.wantState(a.ID, mailbox.Accepted)
	f.wantState(b.ID, mailbox.Leased)

	ended := f.post()
	c := f.claim()
	f.accept(c)
	f.must(f.result(done(c, mailbox.Failed, "r")))
	reply := f.relink(mailbox.ReportRow{Command: a.ID}, mailbox.ReportRow{Command: ended.ID}, mailbox.ReportRow{Command: "cmd_unheard"})
	if reply.Tokens[a.ID] == a.Token || len(reply.Tokens) != 1 ||
		len(reply.Known) != 1 || reply.Known[0] != ended.ID || len(reply.Missing) != 1 || reply.Missing[0] != "cmd_unheard" {
		t.Errorf("the answer: %+v", reply)
	}
	f.wantState(b.ID, mailbox.Queued)

	for name, r := range map[string]mailbox.Report{
		"no journal":     {},
		"long journal":   {JournalID: make([]byte, mailbox.MaxJournalID+1)},
		"too many rows":  {JournalID: f.journal, Rows: make([]mailbox.ReportRow, mailbox.MaxReportRows+1)},
		"a mark above":   {JournalID: f.journal, HighWater: 1 << 53},
		"an open result": {JournalID: f.journal, Rows: []mailbox.ReportRow{{Done: &mailbox.Outcome{State: mailbox.Leased}}}},
	} {
		if _, err := f.s.Report(ctx(), f.pairing, f.epoch, r, f.now); err == nil {
			t.Errorf("%s: taken", name)
		}
	}

	for name, journalled := range map[string]func(*fixture, mailbox.Command){ // whatever shows that the journal had a command
		"accepted": func(f *fixture, c mailbox.Command) { f.accept(c) },
		"waiting":  func(f *fixture, c mailbox.Command) { f.must(f.s.Waiting(ctx(), f.pairing, c.ID, c.Token, f.now)) },
		"result":   func(f *fixture, c mailbox.Command) { f.must(f.result(done(c, mailbox.Completed, "r"))) },
		"report":   func(f *fixture, c mailbox.Command) { f.relink(mailbox.ReportRow{Command: c.ID}) },
	} {
		other := *f
		f := &other
		f.fresh()
		f.post()
		f.relink()
		journalled(f, f.claim())
		f.high = 0
		if reply := f.relink(); !reply.Changed {
			t.Errorf("%s: a journal that has forgotten a command is taken for the same", name)
		}
	}
	// The mark that is known also rises by what was accepted since the last report.
	f.must(f.s.Accepted(ctx(), f.pairing, a.ID, reply.Tokens[a.ID], f.now))
	f.high = a.Sequence - 1
	mark := f.mark()
	if reply = f.relink(); !reply.Changed || f.since(mark)[audit.JournalChanged] != 1 {
		t.Errorf("an older journal: %+v, lines %v", reply, f.since(mark))
	}
	f.wantState(a.ID, mailbox.OutcomeUnknown)
	if reply = f.relink(); reply.Changed {
		t.Error("the same journal is news a second time")
	}
}

func testStops(t *testing.T, open Open) {
	f := newFixture(t, open)
	c := f.bring(mailbox.Accepted)
	cancel := func(p mailbox.SurfaceID) error {
		_, err := f.s.Cancel(ctx(), f.pairing, p, c.ID, f.by(), f.now)
		return err
	}
	stops := func() []mailbox.Command {
		t.Helper()
		list, err := f.s.Stops(ctx(), f.pairing, f.epoch)
		f.must(err)
		return list
	}
	f.wantCode(cancel(number()), mailbox.NotFound) // only its sender
	f.must(f.s.Expire(ctx(), f.now.Add(life)))
	if got := stops(); len(got) != 1 || got[0].ID != c.ID || got[0].Stop != mailbox.StopExpire {
		t.Fatalf("after expiry: %+v", got)
	}
	f.must(cancel(f.surface)) // a person's wish is the stronger one
	if got := stops(); len(got) != 1 || got[0].Stop != mailbox.StopCancel {
		t.Fatalf("after cancel: %+v", got)
	}
	f.connect()
	_, err := f.s.Stops(ctx(), f.pairing, f.epoch)
	f.wantCode(err, mailbox.Fenced) // not before the report
	if reply := f.report(mailbox.ReportRow{Command: c.ID}); len(reply.Stops) != 1 || reply.Stops[0].ID != c.ID {
		t.Errorf("the report's answer asks: %+v", reply.Stops)
	}
	f.must(f.s.Stopped(ctx(), f.pairing, f.epoch, c.ID, true, f.now))
	f.must(f.s.Expire(ctx(), f.now.Add(2*life)))
	if got := stops(); len(got) != 0 {
		t.Errorf("asked again after the answer: %+v", got)
	}
	f.must(cancel(f.surface))
	if got := stops(); len(got) != 1 {
		t.Errorf("a new wish is not asked")
	}
	f.must(f.s.Stopped(ctx(), f.pairing, f.epoch, c.ID, false, f.now))
	f.must(f.s.Stopped(ctx(), f.pairing, f.epoch, c.ID, false, f.now)) // a lost reply
	f.wantState(c.ID, mailbox.Cancelled)
	f.must(cancel(f.surface)) // has ended: as it is
}

func testResolve(t *testing.T, open Open) {
	f := newFixture(t, open)
	c := f.bring(mailbox.OutcomeUnknown) // by a report
	d := f.draft()
	second, err := f.s.SendAgain(ctx(), c.ID, d, f.by(), f.now)
	f.must(err)
	if second.ID == c.ID || second.State != mailbox.Queued {
		t.Errorf("sent again as %+v", second)
	}
	f.seq, f.prev = d.Seq, d.Digest
	if again, err := f.s.SendAgain(ctx(), c.ID, d, f.by(), f.now); err != nil || again.ID != second.ID {
		t.Errorf("a repeated wish: %v, %s", err, again.ID)
	}
	_, err = f.s.SendAgain(ctx(), c.ID, f.draft(), f.by(), f.now)
	f.wantCode(err, mailbox.Conflict)
	_, err = f.s.ItRan(ctx(), f.pairing, c.ID, f.by(), f.now)
	f.wantCode(err, mailbox.Conflict)
	old := f.wantState(c.ID, mailbox.OutcomeUnknown)
	if old.Resolved != mailbox.SendAgain {
		t.Errorf("resolved as %q", old.Resolved)
	}

	f.fresh()
	f.bring(mailbox.Queued) // a report has spoken of this one before, when it was only leased
	c = f.claim()
	f.accept(c) // and then no word for a month: only another report can say that nothing more comes
	f.must(f.s.Expire(ctx(), f.now.Add(life+mailbox.ForgetAfter)))
	f.wantState(c.ID, mailbox.OutcomeUnknown)
	_, err = f.s.SendAgain(ctx(), c.ID, f.draft(), f.by(), f.now)
	f.wantCode(err, mailbox.Conflict)
	running := f.relink(mailbox.ReportRow{Command: c.ID}) // it still runs
	if running.Tokens[c.ID] != c.Token {
		t.Error("a row that may still end has lost its token")
	}
	_, err = f.s.SendAgain(ctx(), c.ID, f.draft(), f.by(), f.now)
	f.wantCode(err, mailbox.Conflict)
	f.relink()
	_, err = f.s.SendAgain(ctx(), c.ID, f.draft(), f.by(), f.now)
	f.must(err)

	f.fresh()
	c = f.bring(mailbox.OutcomeUnknown)
	mark := f.mark()
	f.must(f.result(done(c, mailbox.Completed, "late")))
	if n := f.since(mark)[audit.CommandLateTruth]; n != 1 {
		t.Errorf("%d lines of late truth", n)
	}
	f.must(f.result(done(c, mailbox.Completed, "late")))
	f.wantCode(f.result(done(c, mailbox.Failed, "later")), mailbox.Conflict)

	f.fresh()
	c = f.bring(mailbox.Accepted)
	f.must(f.result(done(c, mailbox.OutcomeUnknown, "the journal does not know")))
	if c = f.wantState(c.ID, mailbox.OutcomeUnknown); !c.Reported || len(c.Result) == 0 {
		t.Errorf("the desktop's own word: %+v", c)
	}
	_, err = f.s.ItRan(ctx(), f.pairing, c.ID, f.by(), f.now)
	f.must(err)
	f.wantState(c.ID, mailbox.Completed)
}

func testRestore(t *testing.T, open Open) {
	f := newFixture(t, open)
	queued := f.post()
	f.relink()
	f.claim()
	f.post()
	held := f.claim()
	f.accept(held)
	over := f.post()
	f.high = 9 // the journal has had more than this store knows
	f.must(f.s.RestoredFromBackup(ctx(), f.now))
	_, _, err := f.s.Enqueue(ctx(), f.draft(), f.by(), f.now)
	if e := f.wantCode(err, mailbox.Restored); e.RetryAfter <= 0 {
		t.Error("no time to try again")
	}
	f.must(f.b.Update(ctx(), func(tx mailbox.Tx) error { // one whose time is over, which the journal had
		c, err := tx.Command(f.pairing, over.ID)
		f.must(err)
		c.Stop = mailbox.StopCancel
		return tx.Save(c, f.entry(audit.CommandStopAsked))
	}))
	f.relink(mailbox.ReportRow{Command: held.ID})
	f.wantState(queued.ID, mailbox.Queued) // another delivery only repeats what the journal knows
	f.wantState(held.ID, mailbox.Accepted)
	f.wantState(over.ID, mailbox.OutcomeUnknown) // may have run: "cancelled" could be a lie
	if c := f.post(); c.Sequence != 10 {
		t.Errorf("the next command has number %d, the journal had 9", c.Sequence)
	}
}
