package storetest

import (
	"bytes"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/proof"
)

func testLife(t *testing.T, open Open) {
	f := newFixture(t, open)
	mark := f.mark()
	d := f.draft()
	c := f.post()
	if c.State != mailbox.Queued || c.Sequence != 1 || c.Digest != d.Digest || c.Surface != f.surface || !c.Expires.Equal(d.Expires) {
		t.Errorf("as posted: %+v", c)
	}
	f.relink()
	leased := f.claim()
	if leased.ID != c.ID || !bytes.Equal(leased.Envelope, d.Envelope) || leased.Deliveries != 1 || leased.Token == (mailbox.Token{}) {
		t.Errorf("as leased: %+v", leased)
	}
	f.accept(leased)
	f.must(f.s.Waiting(ctx(), f.pairing, c.ID, leased.Token, f.now))
	f.must(f.s.Accepted(ctx(), f.pairing, c.ID, leased.Token, f.now))
	f.now = f.hours(1)
	f.must(f.result(mailbox.Outcome{Command: c.ID, Token: leased.Token, State: mailbox.Blocked, Reason: "policy_blocked", Sealed: []byte("r")}))
	got := f.wantState(c.ID, mailbox.Blocked)
	if got.Reason != "policy_blocked" || string(got.Result) != "r" || !got.Updated.Equal(f.now) || !got.Created.Equal(start) {
		t.Errorf("as ended: %+v", got)
	}
	want := map[audit.Type]int{
		audit.CommandQueued: 1, audit.TunnelConnected: 1, audit.ReportApplied: 1, audit.CommandLeased: 1,
		audit.CommandAccepted: 2, audit.CommandWaiting: 1, audit.CommandEnded: 1,
	}
	counts := f.since(mark)
	for typ, n := range want {
		if counts[typ] != n {
			t.Errorf("%d lines %s, want %d", counts[typ], typ, n)
		}
	}
	if len(counts) != len(want) {
		t.Errorf("lines %v", counts)
	}
	f.must(f.counted())
	f.must(f.b.View(ctx(), func(r mailbox.Reader) error { // the envelope is gone, and nothing waits
		_, err := r.Next(f.pairing)
		f.wantCode(err, mailbox.NotFound)
		return nil
	}))
}

func testEnqueue(t *testing.T, open Open) {
	f := newFixture(t, open)
	first := f.draft()
	c := f.post()

	again, created, err := f.s.Enqueue(ctx(), first, f.by(), f.now)
	if err != nil || created || again.ID != c.ID {
		t.Errorf("a repeated post: %v, created %v, %s for %s", err, created, again.ID, c.ID)
	}
	mark := f.mark()
	for name, change := range map[string]func(*mailbox.Draft){
		"seq too low":  func(d *mailbox.Draft) { d.Seq-- },
		"seq too high": func(d *mailbox.Draft) { d.Seq++ },
		"wrong prev":   func(d *mailbox.Draft) { d.Prev[0]++ },
	} {
		d := f.draft()
		change(&d)
		_, _, err := f.s.Enqueue(ctx(), d, f.by(), f.now)
		if e := f.wantCode(err, mailbox.Order); e.Seq != 2 || e.Prev != first.Digest {
			t.Errorf("%s: told to go on with %d after %s", name, e.Seq, e.Prev)
		}
	}
	for name, test := range map[string]struct {
		change func(*mailbox.Draft)
		code   mailbox.Code
	}{
		"over when it comes": {func(d *mailbox.Draft) { d.Expires = f.now }, mailbox.TooLate},
		"no kind":            {func(d *mailbox.Draft) { d.Kind = 0 }, mailbox.Conflict},
		"no envelope":        {func(d *mailbox.Draft) { d.Envelope = nil }, mailbox.Conflict},
		"no digest":          {func(d *mailbox.Draft) { d.Digest = mailbox.Digest{} }, mailbox.Conflict},
		"one byte over":      {func(d *mailbox.Draft) { d.Envelope = make([]byte, mailbox.MaxEnvelope+1) }, mailbox.TooLarge},
		"header over":        {func(d *mailbox.Draft) { d.Header = make([]byte, mailbox.MaxHeaderBytes+1) }, mailbox.TooLarge},
	} {
		d := f.draft()
		test.change(&d)
		if _, _, err := f.s.Enqueue(ctx(), d, f.by(), f.now); mailbox.CodeOf(err) != test.code {
			t.Errorf("%s: %v, want code %d", name, err, test.code)
		}
	}
	if n := len(f.since(mark)); n != 0 {
		t.Errorf("refusals wrote %d types of lines", n)
	}
	d := f.draft()
	d.Envelope, d.Kind = make([]byte, mailbox.MaxEnvelope), proof.Status
	if _, _, err := f.s.Enqueue(ctx(), d, f.by(), f.now); err != nil {
		t.Errorf("the largest envelope: %v", err)
	}
	f.must(f.counted())

	f.relink()
	c = f.claim()
	f.must(f.result(done(c, mailbox.Completed, "r")))
	if again, created, err := f.s.Enqueue(ctx(), first, f.by(), f.now); err != nil || created || again.State != mailbox.Completed {
		t.Errorf("a repeated post after the end: %v, %v, %s", err, created, again.State)
	}
	closed := f.entry(audit.SurfaceRevoked)
	f.must(f.b.Update(ctx(), func(tx mailbox.Tx) error {
		return mailbox.CloseSurface(tx, f.pairing, f.surface, closed, f.by(), f.now)
	}))
	_, _, err = f.s.Enqueue(ctx(), f.draft(), f.by(), f.now)
	f.wantCode(err, mailbox.Closed)
	_, _, err = f.s.Enqueue(ctx(), first, f.by(), f.now)
	f.wantCode(err, mailbox.Closed)
}

func testLimits(t *testing.T, open Open) {
	f := newFixture(t, open)
	limited := func() {
		t.Helper()
		_, _, err := f.s.Enqueue(ctx(), f.draft(), f.by(), f.now)
		if e := f.wantCode(err, mailbox.Limited); e.RetryAfter <= 0 {
			t.Errorf("no time to try again: %v", e)
		}
	}
	var first mailbox.Command
	for range mailbox.MaxOpen / mailbox.MaxOpenSurface {
		f.surface, f.seq, f.prev = number(), 0, mailbox.Digest{}
		for i := range mailbox.MaxOpenSurface {
			if c := f.post(); i == 0 {
				first = c
			}
		}
		limited()
	}
	full := f.surface
	f.surface, f.seq, f.prev = number(), 0, mailbox.Digest{}
	limited() // the pairing is full: this surface has none
	if _, err := f.s.Cancel(ctx(), f.pairing, full, first.ID, f.by(), f.now); err != nil {
		t.Fatal(err)
	}
	f.post()
	limited()

	f.fresh()
	for sum := 0; sum+mailbox.MaxEnvelope <= mailbox.MaxOpenBytes; sum += mailbox.MaxEnvelope {
		d := f.draft()
		d.Envelope = make([]byte, mailbox.MaxEnvelope)
		_, _, err := f.s.Enqueue(ctx(), d, f.by(), f.now)
		f.must(err)
		f.seq, f.prev = d.Seq, d.Digest
	}
	rest := mailbox.MaxOpenBytes % mailbox.MaxEnvelope
	d := f.draft()
	d.Envelope = make([]byte, rest+1)
	_, _, err := f.s.Enqueue(ctx(), d, f.by(), f.now)
	f.wantCode(err, mailbox.Limited)
	d.Envelope = d.Envelope[:rest]
	_, _, err = f.s.Enqueue(ctx(), d, f.by(), f.now)
	f.must(err)
}

func testClaim(t *testing.T, open Open) {
	f := newFixture(t, open)
	posted := []mailbox.Command{f.post(), f.post(), f.post()}
	f.connect()
	_, _, err := f.s.Claim(ctx(), f.pairing, f.epoch, f.now)
	f.wantCode(err, mailbox.Fenced) // before its report
	f.report()
	tokens := map[mailbox.Token]bool{}
	for i, want := range posted {
		c := f.claim()
		if c.ID != want.ID || c.Sequence != uint64(i+1) {
			t.Errorf("claimed %d: sequence %d", i, c.Sequence)
		}
		tokens[c.Token] = true
	}
	if len(tokens) != len(posted) || tokens[mailbox.Token{}] {
		t.Errorf("tokens are not all different: %d", len(tokens))
	}
	if _, ok, err := f.s.Claim(ctx(), f.pairing, f.epoch, f.now); ok || err != nil {
		t.Errorf("claimed from an empty queue: %v", err)
	}
	late := f.post()
	f.now = f.now.Add(life)
	c, ok, err := f.s.Claim(ctx(), f.pairing, f.epoch, f.now)
	if err != nil || !ok || c.ID != late.ID || !c.Skip || c.Envelope != nil {
		t.Errorf("what is over at its claim: %v, %+v", err, c)
	}
	f.wantState(late.ID, mailbox.Expired)
}

func testFencing(t *testing.T, open Open) {
	f := newFixture(t, open)
	f.post()
	f.relink()
	first := f.claim()
	old := f.epoch
	f.must(f.s.BeginEpoch(ctx(), f.pairing, f.epoch, mailbox.EventEpochID{1}, nil, f.now))
	reply := f.relink(mailbox.ReportRow{Command: first.ID})
	if reply.Tokens[first.ID] == first.Token || reply.Tokens[first.ID] == (mailbox.Token{}) {
		t.Fatal("the report's answer has no new token")
	}
	f.wantCode(f.s.Accepted(ctx(), f.pairing, first.ID, first.Token, f.now), mailbox.Stale)
	f.wantCode(f.s.Waiting(ctx(), f.pairing, first.ID, first.Token, f.now), mailbox.Stale)
	f.wantCode(f.result(done(first, mailbox.Completed, "late")), mailbox.Stale)
	f.wantState(first.ID, mailbox.Accepted)
	zero := first
	zero.Token = mailbox.Token{}
	f.wantCode(f.result(done(zero, mailbox.Completed, "forged")), mailbox.Stale)

	f.post()
	for name, act := range map[string]func(mailbox.Epoch) error{
		"Claim": func(e mailbox.Epoch) error { _, _, err := f.s.Claim(ctx(), f.pairing, e, f.now); return err },
		"Stops": func(e mailbox.Epoch) error { _, err := f.s.Stops(ctx(), f.pairing, e); return err },
		"Stopped": func(e mailbox.Epoch) error {
			return f.s.Stopped(ctx(), f.pairing, e, first.ID, true, f.now)
		},
		"Skipped": func(e mailbox.Epoch) error { return f.s.Skipped(ctx(), f.pairing, e, first.ID, f.now) },
		"Report": func(e mailbox.Epoch) error {
			_, err := f.s.Report(ctx(), f.pairing, e, mailbox.Report{JournalID: f.journal}, f.now)
			return err
		},
		"Append": func(e mailbox.Epoch) error {
			_, err := f.s.Append(ctx(), f.pairing, e, []mailbox.Batch{f.batch(mailbox.EventEpochID{1}, 1)}, f.now)
			return err
		},
		"BeginEpoch": func(e mailbox.Epoch) error {
			return f.s.BeginEpoch(ctx(), f.pairing, e, mailbox.EventEpochID{2}, nil, f.now)
		},
	} {
		for _, e := range []mailbox.Epoch{old, 0, f.epoch + 1} {
			if err := act(e); mailbox.CodeOf(err) != mailbox.Fenced {
				t.Errorf("%s by link %d, the newest is %d: %v", name, e, f.epoch, err)
			}
		}
	}
	o := done(first, mailbox.Completed, "true")
	o.Token = reply.Tokens[first.ID]
	f.must(f.result(o))
}

func testSkips(t *testing.T, open Open) {
	f := newFixture(t, open)
	a, b := f.post(), f.post()
	_, err := f.s.Cancel(ctx(), f.pairing, f.surface, a.ID, f.by(), f.now)
	f.must(err)
	f.relink()
	for range 2 { // until the desktop has it
		c := f.claim()
		if c.ID != a.ID || !c.Skip || len(c.Envelope) != 0 || string(c.Header) != "header" || string(c.Signature) != "signature" || c.BodyHash != (mailbox.Digest{8}) {
			t.Fatalf("a cancelled command in its place: %+v", c)
		}
	}
	f.must(f.s.Skipped(ctx(), f.pairing, f.epoch, a.ID, f.now))
	f.must(f.s.Skipped(ctx(), f.pairing, f.epoch, a.ID, f.now))
	c := f.claim()
	if c.ID != b.ID || c.Skip {
		t.Fatalf("then the next: %+v", c)
	}
	_, err = f.s.Cancel(ctx(), f.pairing, f.surface, b.ID, f.by(), f.now)
	f.must(err)
	f.must(f.s.Stopped(ctx(), f.pairing, f.epoch, b.ID, false, f.now))
	if c := f.claim(); c.ID != b.ID || !c.Skip { // the desktop may never have had the envelope
		t.Errorf("after a tombstone: %+v", c)
	}
	c3 := f.post()
	f.must(f.s.Skipped(ctx(), f.pairing, f.epoch, b.ID, f.now))
	c = f.claim()
	f.accept(c)
	f.must(f.result(done(c, mailbox.Completed, "r")))
	if f.get(c3.ID).Skip {
		t.Error("a command that the desktop ended is to be skipped")
	}
}

func testWait(t *testing.T, open Open) {
	f := newFixture(t, open)
	posted := f.post()
	if c, err := f.s.Wait(ctx(), f.pairing, posted.ID, time.Millisecond); err != nil || c.State != mailbox.Queued {
		t.Errorf("being slow: %s, %v", c.State, err)
	}
	_, err := f.s.Wait(ctx(), f.pairing, "cmd_unknown", time.Minute)
	f.wantCode(err, mailbox.NotFound)

	got := make(chan mailbox.Command, 8)
	for range cap(got) {
		go func() {
			c, _ := f.s.Wait(ctx(), f.pairing, posted.ID, time.Minute)
			got <- c
		}()
	}
	f.relink()
	c := f.claim()
	f.must(f.result(done(c, mailbox.Completed, "r")))
	for range cap(got) {
		if c := <-got; c.State != mailbox.Completed || string(c.Result) != "r" {
			t.Errorf("a waiter got %s", c.State)
		}
	}
}

func testPresence(t *testing.T, open Open) {
	f := newFixture(t, open)
	want := func(online bool, since time.Time) {
		t.Helper()
		p, err := f.s.Presence(ctx(), f.pairing)
		if err != nil || p.Online != online || !p.Since.Equal(since) {
			t.Errorf("online %v since %s, want %v since %s (%v)", p.Online, p.Since, online, since, err)
		}
	}
	want(false, time.Time{})
	f.connect()
	first := f.epoch
	want(true, start)
	f.now = f.hours(1)
	f.connect()
	f.must(f.s.Disconnect(ctx(), f.pairing, first, "", f.now)) // the ghost of the link before
	want(true, start.Add(time.Hour))
	f.now = f.hours(1)
	f.must(f.s.Disconnect(ctx(), f.pairing, f.epoch, "closed", f.now))
	want(false, start.Add(2*time.Hour))
	f.connect()
	if f.epoch != first+2 {
		t.Errorf("the third link has epoch %d", f.epoch)
	}
	f.reopen()
	f.now = f.hours(1)
	f.must(f.s.Recover(ctx(), f.now))
	want(false, start.Add(3*time.Hour))
}
