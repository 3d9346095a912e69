package mailbox

import (
	"bytes"
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/pkg/proof"
)

// Report is the state of the agent's journal, stated on each link before anything else.
type Report struct {
	JournalID []byte
	HighWater uint64 // highest Sequence that it ever journalled
	Rows      []ReportRow
}

// ReportRow is a command that the journal has and whose result the broker has not acknowledged.
type ReportRow struct {
	Command CommandID
	Waiting bool     // for a person at the desktop
	Done    *Outcome // how it ended, when it did; its Token is not looked at
}

// Reply answers a report.
type Reply struct {
	Tokens  map[CommandID]Token // the token of each row that is still open here
	Known   []CommandID         // rows which have ended here: the agent must not run them, and need not report them
	Missing []CommandID         // rows which the broker does not have at all
	Stops   []Command           // wishes to answer: Command.ID and Command.Stop
	Changed bool                // the journal is new or older than known: someone must be told
}

// Report applies a report: only from the newest link, and only to leases of earlier ones. It comes before the first
// Claim of a link; a second one on the same link only repeats the tokens.
func (s *Service) Report(ctx context.Context, p PairingID, epoch Epoch, r Report, now time.Time) (reply Reply, err error) {
	if err := r.check(); err != nil {
		return Reply{}, err
	}
	err = s.update(ctx, p, func(tx Tx) error {
		a, err := newReporting(tx, p, epoch, r, now)
		if err != nil {
			return err
		}
		err = a.run()
		reply = a.reply
		return err
	})
	return reply, err
}

func (r Report) check() error {
	switch {
	case len(r.JournalID) == 0 || len(r.JournalID) > MaxJournalID:
		return fail(Conflict, "the report names no journal")
	case len(r.Rows) > MaxReportRows:
		return fail(TooLarge, "the report has %d rows, at most %d", len(r.Rows), MaxReportRows)
	case r.HighWater > proof.MaxNumber:
		return fail(Conflict, "the report's high-water mark is not a number")
	}
	for _, row := range r.Rows {
		if row.Done == nil {
			continue
		}
		if err := row.Done.check(); err != nil {
			return err
		}
	}
	return nil
}

// reporting is one report while it is applied.
type reporting struct {
	tx    Tx
	p     Pairing
	epoch Epoch
	rep   Report
	rows  map[CommandID]ReportRow
	whole bool // the journal is the one that is known, and not older
	now   time.Time
	reply Reply
}

func newReporting(tx Tx, id PairingID, epoch Epoch, rep Report, now time.Time) (*reporting, error) {
	p, err := holder(tx, id, epoch, false)
	if err != nil {
		return nil, err
	}
	a := &reporting{tx: tx, p: p, epoch: epoch, rep: rep, now: now, rows: make(map[CommandID]ReportRow, len(rep.Rows))}
	for _, row := range rep.Rows {
		a.rows[row.Command] = row
	}
	a.reply.Tokens = make(map[CommandID]Token)
	fresh := len(p.JournalID) == 0
	a.whole = fresh || bytes.Equal(p.JournalID, rep.JournalID) && rep.HighWater >= p.HighWater
	a.reply.Changed = !a.whole
	return a, nil
}

func (a *reporting) run() error {
	held, err := a.tx.Commands(Filter{Pairing: a.p.ID, States: heldStates, Limit: MaxOpen})
	if err != nil {
		return err
	}
	for _, c := range held {
		if err := a.held(c); err != nil {
			return err
		}
	}
	for id, row := range a.rows { // what is left is not held: it has ended here, or was never ours
		if err := a.notHeld(id, row); err != nil {
			return err
		}
	}
	if err := a.confirmUnknown(); err != nil {
		return err
	}
	if a.reply.Stops, err = a.tx.Commands(Filter{Pairing: a.p.ID, StopAsked: true, Limit: MaxOpen}); err != nil {
		return err
	}
	return a.savePairing()
}

// held applies the report to a command that is leased, accepted or waiting.
func (a *reporting) held(c Command) error {
	row, present := a.rows[c.ID]
	delete(a.rows, c.ID)
	if c.Epoch == a.epoch { // leased by this very link: nothing to learn from its report
		if present {
			a.reply.Tokens[c.ID] = c.Token
		}
		return nil
	}
	h := happening{trigger: a.classify(c, row, present), epoch: a.epoch, reason: "report", by: desktop(a.p.ID), now: a.now}
	if h.trigger == OnAbsentWorn {
		h.reason = "undeliverable"
	}
	c.Reported = !present && Next(c.State, h.trigger, 0).To == OutcomeUnknown // left so by this report
	if _, err := apply(a.tx, &c, h); err != nil {
		return err
	}
	if present {
		a.reply.Tokens[c.ID] = c.Token
		return a.tx.RaiseHighWater(a.p.ID, c.Sequence)
	}
	return nil
}

func (a *reporting) classify(c Command, row ReportRow, present bool) Trigger {
	over := !c.Expires.After(a.now)
	switch {
	case present && row.Done != nil:
		return OnPresentDone
	case present && row.Waiting:
		return OnPresentWaiting
	case present:
		return OnPresent
	case !a.whole:
		return OnAbsentLost
	case c.Epoch == 0 && c.Sequence <= a.rep.HighWater && (over || c.Stop.Asked()):
		// Held by someone unknown, since the broker was restored, and the journal has had it. Another delivery would
		// only repeat its result; when that is not allowed any more, nobody can say "never ran".
		return OnAbsentDone
	case c.Stop == StopCancel:
		return OnAbsentStopped
	case over || c.Stop == StopExpire:
		return OnAbsentExpired
	case c.Deliveries >= MaxDeliveries:
		return OnAbsentWorn
	}
	return OnAbsent
}

// notHeld answers for a row whose command is not held here. Only outcome_unknown can still change.
func (a *reporting) notHeld(id CommandID, row ReportRow) error {
	c, err := a.tx.Command(a.p.ID, id)
	if CodeOf(err) == NotFound {
		a.reply.Missing = append(a.reply.Missing, id)
		return nil
	}
	if err != nil {
		return err
	}
	if c.State == OutcomeUnknown && row.Done == nil {
		a.reply.Tokens[id] = c.Token // it may still end; its result will replace outcome_unknown
		return nil
	}
	if c.State.Terminal() {
		a.reply.Known = append(a.reply.Known, id)
	}
	if c.State != OutcomeUnknown {
		return nil
	}
	c.Reported = true
	_, err = apply(a.tx, &c, happening{
		trigger: OnPresentDone, state: row.Done.State, reason: row.Done.Reason, result: row.Done.Sealed,
		by: desktop(a.p.ID), now: a.now,
	})
	return err
}

// confirmUnknown marks the commands which this report has left outcome_unknown: of them nothing more is to come, and
// a person may send them again.
func (a *reporting) confirmUnknown() error {
	left, err := a.tx.Commands(Filter{Pairing: a.p.ID, States: []State{OutcomeUnknown}, Unreported: true, Limit: MaxKept})
	if err != nil {
		return err
	}
	for _, c := range left {
		if _, running := a.reply.Tokens[c.ID]; running {
			continue
		}
		c.Reported = true
		h := happening{reason: "reported", by: desktop(a.p.ID), now: a.now}
		if err := a.tx.Save(c, lineOf(c, audit.CommandUnknown, audit.Unknown, h)); err != nil {
			return err
		}
	}
	return nil
}

func (a *reporting) savePairing() error {
	p, err := a.tx.Pairing(a.p.ID) // what was saved above has changed its counters
	if err != nil {
		return err
	}
	t, outcome := audit.ReportApplied, audit.Success
	if !a.whole {
		t, outcome = audit.JournalChanged, audit.Failure
		p.HighWater = 0
	}
	p.Reported, p.Restored = a.epoch, false
	p.JournalID = a.rep.JournalID
	p.HighWater = max(p.HighWater, a.rep.HighWater)
	p.Sequence = max(p.Sequence, a.rep.HighWater) // a restored broker must not give a number out twice
	return a.tx.SavePairing(p, pairingLine(t, p.ID, outcome, "", desktop(p.ID), a.now))
}

// The states of commands that have not ended; held ones are with the desktop, or may be.
var (
	openStates = []State{Queued, Leased, Accepted, WaitingLocal}
	heldStates = openStates[1:]
)
