package storetest

import (
	"fmt"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
)

// A cell of the design's table, as it stands there: "-" nothing happens; "409" refused with a line, nothing changes;
// "stop" the state stays and a stop is asked; a name is the state that follows. "+token" says that the row has another
// token afterwards.
type cells struct{ queued, leased, accepted, waiting, terminal, unknown string }

// rowUnderTest is one row of the table, with how its event is made to happen.
type rowUnderTest struct {
	name string
	cells
	prepare func(*fixture, *mailbox.Command)      // what the row presupposes; may be nil
	event   func(*fixture, mailbox.Command) error // its error is the answer: nil, or one with a code
}

// The table of the mailbox for our agent, typed from the design's document row by row. In the column queued the
// command is one that was leased before and waits again, so that tokens and reports can name it.
var rows = []rowUnderTest{
	{
		name: "claim", event: claimIt,
		cells: cells{"leased+token", "-", "-", "-", "-", "-"},
	},
	{
		name: "claim by a link which has not reported", prepare: func(f *fixture, _ *mailbox.Command) { f.connect() }, event: claimIt,
		cells: cells{"409-", "409-", "409-", "409-", "409-", "409-"},
	},
	{
		name:  "accepted by our agent's journal, or confirmed locally; token current",
		event: func(f *fixture, c mailbox.Command) error { return f.s.Accepted(ctx(), f.pairing, c.ID, c.Token, f.now) },
		cells: cells{"-", "accepted", "accepted", "accepted", "-", "-"},
	},
	{
		name:  "needs local confirmation, token current",
		event: func(f *fixture, c mailbox.Command) error { return f.s.Waiting(ctx(), f.pairing, c.ID, c.Token, f.now) },
		cells: cells{"-", "waiting_local", "waiting_local", "waiting_local", "-", "-"},
	},
	{
		name:  "result, token current or of the last holder",
		event: func(f *fixture, c mailbox.Command) error { return f.result(done(c, mailbox.Completed, "new")) },
		cells: cells{"completed", "completed", "completed", "completed", "409", "completed"},
	},
	{
		name:  "result: the same again",
		event: func(f *fixture, c mailbox.Command) error { return f.result(done(c, c.State, string(c.Result))) },
		cells: cells{"409-", "409-", "409-", "409-", "-", "-"}, // an open state is no result
	},
	{
		name: "result, stale token",
		event: func(f *fixture, c mailbox.Command) error {
			c.Token[0]++
			return f.result(done(c, mailbox.Completed, "new"))
		},
		cells: cells{"409", "409", "409", "409", "409", "409"},
	},
	{
		name: "report: row absent, journal whole", event: reportAbsent,
		cells: cells{"-", "queued", "outcome_unknown", "outcome_unknown", "-", "-"},
	},
	{
		name: "report: row absent, stop asked", prepare: cancelIt, event: reportAbsent,
		cells: cells{"cancelled", "cancelled", "outcome_unknown", "outcome_unknown", "-", "-"},
	},
	{
		name: "report: row absent, past expiry", event: func(f *fixture, c mailbox.Command) error { f.now = f.now.Add(life); return reportAbsent(f, c) },
		cells: cells{"-", "expired", "outcome_unknown", "outcome_unknown", "-", "-"},
	},
	{
		name: "report: row absent, 5th delivery", prepare: wearOut, event: reportAbsent,
		cells: cells{"", "failed", "outcome_unknown", "outcome_unknown", "", ""},
	},
	{
		name: "report: row absent, journal id new", event: func(f *fixture, c mailbox.Command) error { f.journal = []byte("another"); return reportAbsent(f, c) },
		cells: cells{"-", "outcome_unknown", "outcome_unknown", "outcome_unknown", "-", "-"},
	},
	{
		name: "report: row absent, high-water mark lower than known", prepare: knownMark,
		event: func(f *fixture, c mailbox.Command) error { f.high = 0; return reportAbsent(f, c) },
		cells: cells{"-", "outcome_unknown", "outcome_unknown", "outcome_unknown", "-", "-"},
	},
	{
		name: "report: row present", event: reportRow(mailbox.ReportRow{}),
		cells: cells{"-", "accepted+token", "accepted+token", "accepted+token", "-", "-"},
	},
	{
		name: "report: row present, waiting", event: reportRow(mailbox.ReportRow{Waiting: true}),
		cells: cells{"-", "accepted+token", "accepted+token", "waiting_local+token", "-", "-"},
	},
	{
		name: "report: row present, done", event: reportRow(mailbox.ReportRow{Done: &mailbox.Outcome{State: mailbox.Completed, Sealed: []byte("new")}}),
		cells: cells{"-", "accepted+token", "accepted+token", "accepted+token", "-", "completed"},
	},
	{
		name: "expiry passes", event: func(f *fixture, _ mailbox.Command) error { return f.s.Expire(ctx(), f.now.Add(life)) },
		cells: cells{"expired", "stop", "stop", "stop", "-", "-"},
	},
	{
		name: "cancel by the sender",
		event: func(f *fixture, c mailbox.Command) error {
			_, err := f.s.Cancel(ctx(), f.pairing, f.surface, c.ID, f.by(), f.now)
			return err
		},
		cells: cells{"cancelled", "stop", "stop", "stop", "-", "-"},
	},
	{
		name: "surface revoked",
		event: func(f *fixture, _ mailbox.Command) error {
			return f.b.Update(ctx(), func(tx mailbox.Tx) error {
				return mailbox.CloseSurface(tx, f.pairing, f.surface, f.entry(audit.SurfaceRevoked), f.by(), f.now)
			})
		},
		cells: cells{"cancelled", "stop", "stop", "stop", "-", "-"},
	},
	{
		name: "pairing revoked",
		event: func(f *fixture, _ mailbox.Command) error {
			return f.b.Update(ctx(), func(tx mailbox.Tx) error {
				return mailbox.ClosePairing(tx, f.pairing, f.entry(audit.PairingRevoked), f.by(), f.now)
			})
		},
		cells: cells{"cancelled", "stop", "stop", "stop", "-", "-"},
	},
	{
		name: "answer to a stop: not started, tombstone written", prepare: cancelIt, event: answerStop(false),
		cells: cells{"cancelled", "cancelled", "cancelled", "cancelled", "-", "-"},
	},
	{
		name: "answer to a stop of expiry: tombstone", prepare: expireIt, event: answerStop(false),
		cells: cells{"expired", "expired", "expired", "expired", "-", "-"},
	},
	{
		name: "answer to a stop: started", prepare: cancelIt, event: answerStop(true),
		cells: cells{"cancelled", "accepted", "accepted", "accepted", "-", "-"},
	},
	{
		name: "answer to a stop that nobody asked", event: answerStop(true),
		cells: cells{"409-", "409-", "409-", "409-", "-", "-"},
	},
	{
		name: "30 days after expiry without word", prepare: expireIt,
		event: func(f *fixture, _ mailbox.Command) error {
			return f.s.Expire(ctx(), f.now.Add(life+mailbox.ForgetAfter))
		},
		cells: cells{"expired", "outcome_unknown", "outcome_unknown", "outcome_unknown", "-", "-"},
	},
	{
		name:  "pairing deleted",
		event: func(f *fixture, _ mailbox.Command) error { return f.s.Forget(ctx(), f.pairing, f.by(), f.now) },
		cells: cells{"cancelled", "outcome_unknown", "outcome_unknown", "outcome_unknown", "-", "-"},
	},
	{
		name:  "broker restored from a backup",
		event: func(f *fixture, _ mailbox.Command) error { return f.s.RestoredFromBackup(ctx(), f.now) },
		cells: cells{"leased", "leased", "leased", "leased", "-", "-"},
	},
	{
		name: "a person decides: it ran",
		event: func(f *fixture, c mailbox.Command) error {
			_, err := f.s.ItRan(ctx(), f.pairing, c.ID, f.by(), f.now)
			return err
		},
		cells: cells{"409-", "409-", "409-", "409-", "409-", "completed"},
	},
}

func claimIt(f *fixture, _ mailbox.Command) error {
	_, _, err := f.s.Claim(ctx(), f.pairing, f.epoch, f.now)
	return err
}

func reportAbsent(f *fixture, _ mailbox.Command) error {
	f.connect()
	_, err := f.s.Report(ctx(), f.pairing, f.epoch, mailbox.Report{JournalID: f.journal, HighWater: f.high}, f.now)
	return err
}

func reportRow(row mailbox.ReportRow) func(*fixture, mailbox.Command) error {
	return func(f *fixture, c mailbox.Command) error {
		row := row
		row.Command = c.ID
		f.connect()
		_, err := f.s.Report(ctx(), f.pairing, f.epoch, mailbox.Report{JournalID: f.journal, HighWater: f.high, Rows: []mailbox.ReportRow{row}}, f.now)
		return err
	}
}

func answerStop(started bool) func(*fixture, mailbox.Command) error {
	return func(f *fixture, c mailbox.Command) error {
		return f.s.Stopped(ctx(), f.pairing, f.epoch, c.ID, started, f.now)
	}
}

func cancelIt(f *fixture, c *mailbox.Command) {
	_, err := f.s.Cancel(ctx(), f.pairing, f.surface, c.ID, f.by(), f.now)
	f.must(err)
}

func expireIt(f *fixture, _ *mailbox.Command) { f.must(f.s.Expire(ctx(), f.now.Add(life))) }

// knownMark lets the journal have had one more command, so that a lower mark shows.
func knownMark(f *fixture, c *mailbox.Command) {
	f.high = c.Sequence + 5
	f.must(f.b.Update(ctx(), func(tx mailbox.Tx) error { return tx.RaiseHighWater(f.pairing, f.high) }))
}

// wearOut lets the command be delivered as often as is tried, and brings it back to its state.
func wearOut(f *fixture, c *mailbox.Command) {
	state := c.State
	f.must(f.b.Update(ctx(), func(tx mailbox.Tx) error {
		c.Deliveries = mailbox.MaxDeliveries
		return tx.Save(*c, f.entry(audit.CommandLeased))
	}))
	f.wantState(c.ID, state)
}

// entry is a line for what a test does by hand.
func (f *fixture) entry(t audit.Type) audit.Entry {
	return audit.Build(audit.Record{Type: t, Time: f.now, Pairing: f.pairing.String(), Actor: f.by().Actor})
}

// bring makes a command and takes it to the state of a column, by the way that a real one takes.
func (f *fixture) bring(to mailbox.State) mailbox.Command {
	f.Helper()
	f.post()
	f.relink()
	c := f.claim()
	switch to {
	case mailbox.Queued:
		f.relink() // the journal does not have it
	case mailbox.Accepted:
		f.accept(c)
	case mailbox.WaitingLocal:
		f.must(f.s.Waiting(ctx(), f.pairing, c.ID, c.Token, f.now))
		f.high = c.Sequence
	case mailbox.Completed:
		f.accept(c)
		f.must(f.result(done(c, mailbox.Completed, "first")))
	case mailbox.OutcomeUnknown:
		f.accept(c)
		f.relink()
	}
	return f.wantState(c.ID, to)
}

func testTable(t *testing.T, open Open) { walkTable(t, open, false) }

// testTableReopened closes and opens the store before and after the event, in every third cell: nothing may depend on
// memory.
func testTableReopened(t *testing.T, open Open) { walkTable(t, open, true) }

func walkTable(t *testing.T, open Open, reopen bool) {
	f := newFixture(t, open)
	for n, row := range rows {
		for i, want := range []string{row.queued, row.leased, row.accepted, row.waiting, row.terminal, row.unknown} {
			if want == "" || reopen && (n+i)%3 != 0 {
				continue // what the row presupposes cannot be in this state
			}
			state := []mailbox.State{mailbox.Queued, mailbox.Leased, mailbox.Accepted, mailbox.WaitingLocal, mailbox.Completed, mailbox.OutcomeUnknown}[i]
			f.fresh()
			f.now = start
			if err := f.cell(row, state, want, reopen); err != nil {
				t.Errorf("%s, %s: %v", row.name, state, err)
			}
		}
	}
}

// cell walks one cell and says what is not as it should be.
func (f *fixture) cell(row rowUnderTest, state mailbox.State, want string, reopen bool) error {
	c := f.bring(state)
	if row.prepare != nil {
		row.prepare(f, &c)
	}
	if reopen {
		f.reopen()
	}
	before, mark := f.get(c.ID), f.mark()
	answer := row.event(f, before)
	if reopen {
		f.reopen()
	}
	if err := judge(want, before, f.get(c.ID), answer); err != nil {
		return err
	}
	if refused := f.since(mark)[audit.CommandResultRefused]; (want == "409") != (refused == 1) {
		return fmt.Errorf("%d lines of a refused result", refused)
	}
	return f.counted()
}

func judge(want string, before, after mailbox.Command, answer error) error {
	code := mailbox.CodeOf(answer)
	conflict := code == mailbox.Conflict || code == mailbox.Stale || code == mailbox.Fenced
	if (want == "409" || want == "409-") != conflict || answer != nil && !conflict {
		return fmt.Errorf("the answer is %v, the cell says %q", answer, want)
	}
	state, token, stop := before.State.String(), false, false
	switch want {
	case "-", "409", "409-":
	case "stop":
		stop = true
	case "leased+token", "accepted+token", "waiting_local+token":
		state, token = want[:len(want)-len("+token")], true
	default:
		state = want
	}
	switch {
	case after.State.String() != state:
		return fmt.Errorf("the command is %s, the cell says %q", after.State, want)
	case (after.Token != before.Token) != token:
		return fmt.Errorf("another token: %v, the cell says %q", after.Token != before.Token, want)
	case stop != (after.Stop.Asked() && !before.Stop.Asked()):
		return fmt.Errorf("the stop is %d, was %d, the cell says %q", after.Stop, before.Stop, want)
	case state == before.State.String() && state != "leased" && !token && !stop && after.Reason != before.Reason:
		return fmt.Errorf("the reason changed to %q", after.Reason)
	}
	return nil
}

// counted compares the counters of the pairing and its surface with their rows.
func (f *fixture) counted() error {
	var p mailbox.Pairing
	var chain mailbox.Chain
	var open []mailbox.Command
	err := f.b.View(ctx(), func(r mailbox.Reader) (err error) {
		if p, err = r.Pairing(f.pairing); err != nil {
			return err
		}
		if chain, err = r.Chain(f.pairing, f.surface); err != nil {
			return err
		}
		open, err = r.Commands(mailbox.Filter{Pairing: f.pairing, Limit: 10 * mailbox.MaxOpen})
		return err
	})
	var size int64
	for _, c := range open {
		size += int64(c.Size)
	}
	if err == nil && (p.Open != len(open) || p.OpenBytes != size || chain.Open != len(open)) {
		err = fmt.Errorf("%d open of %d bytes, counted %d of %d, the surface %d", len(open), size, p.Open, p.OpenBytes, chain.Open)
	}
	return err
}

// hours is a time later.
func (f *fixture) hours(n int) time.Time { return f.now.Add(time.Duration(n) * time.Hour) }
