package mailbox

import (
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/pkg/wire"
)

// happening is a trigger and what it brings along.
type happening struct {
	trigger Trigger
	state   State  // result, tombstone: the state it carries
	reason  string // a stable code
	result  []byte // sealed
	epoch   Epoch  // of the link that asks
	stop    Stop
	by      By
	now     time.Time
}

// apply changes a command as the table says, with its line, in the transaction. It returns what the table said.
func apply(tx Tx, c *Command, h happening) (Step, error) {
	st := Next(c.State, h.trigger, h.state)
	switch st.Verdict {
	case Ignore:
		return st, nil
	case Refuse:
		return st, tx.Note(lineOf(*c, audit.CommandResultRefused, audit.Refused, h))
	case Stay:
		if st.Effects == 0 && h.trigger != OnSendAgain {
			return st, nil
		}
	}
	if st.Has(Alert) {
		h.reason = "journal_changed"
	}
	before := c.State
	change(c, st, h)
	t, outcome := lineType(before, *c, h.trigger)
	return st, tx.Save(*c, lineOf(*c, t, outcome, h))
}

// change does to the row in memory what a step says.
func change(c *Command, st Step, h happening) {
	c.Updated = h.now
	if st.Has(NewToken) {
		c.Token, c.Epoch = newToken(), h.epoch
	}
	if st.Has(CountDelivery) {
		c.Deliveries++
	}
	if st.Has(SetStop) {
		c.Stop = h.stop
	}
	if st.Has(ForgetHolder) {
		c.Epoch = 0
	}
	if st.Verdict != Move {
		return
	}
	c.State = st.To
	if c.State.Terminal() {
		c.Stop, c.Reason, c.Result = StopNone, h.reason, h.result
		c.Skip = st.Has(TellSkipped)
	}
}

// lineType says which line describes a change.
func lineType(before State, c Command, e Trigger) (audit.Type, audit.Outcome) {
	switch {
	case e == OnItRan, e == OnSendAgain:
		return audit.CommandResolved, audit.Success
	case before == OutcomeUnknown && c.State != OutcomeUnknown:
		return audit.CommandLateTruth, outcomes[c.State]
	case c.State == OutcomeUnknown:
		return audit.CommandUnknown, audit.Unknown
	case c.State.Terminal():
		return audit.CommandEnded, outcomes[c.State]
	}
	t, ok := lineTypes[e]
	if !ok {
		t = audit.CommandAccepted
	}
	return t, audit.Success
}

// lineTypes are those of the events that end nothing and are not an acceptance.
var lineTypes = map[Trigger]audit.Type{
	OnClaim: audit.CommandLeased, OnWait: audit.CommandWaiting, OnAbsent: audit.CommandRequeued,
	OnExpire: audit.CommandStopAsked, OnCancel: audit.CommandStopAsked, OnStarted: audit.CommandStopAnswered,
	OnRestore: audit.CommandRequeued,
}

var outcomes = map[State]audit.Outcome{
	Completed: audit.Success, Failed: audit.Failure, Blocked: audit.Refused, Expired: audit.Refused,
	Cancelled: audit.Refused, OutcomeUnknown: audit.Unknown,
}

// lineOf builds the line. A terminal state stands in its reason, before the code that explains it.
func lineOf(c Command, t audit.Type, outcome audit.Outcome, h happening) audit.Entry {
	reason := h.reason
	if t == audit.CommandEnded || t == audit.CommandLateTruth {
		reason = c.State.String()
		if h.reason != "" && h.reason != reason {
			reason += "/" + h.reason
		}
	}
	return audit.Build(audit.Record{
		Type: t, Time: h.now, Outcome: outcome, Reason: reason, Pairing: c.Pairing.String(),
		Actor: h.by.Actor, Source: h.by.Source, Command: c.AuditCommand(),
		Target: wire.AuditTarget{Kind: audit.Command, ID: string(c.ID)}, Decision: c.Resolved,
	})
}

// pairingLine builds the line of something that concerns a whole pairing.
func pairingLine(t audit.Type, p PairingID, outcome audit.Outcome, reason string, by By, now time.Time) audit.Entry {
	return audit.Build(audit.Record{
		Type: t, Time: now, Outcome: outcome, Reason: reason, Pairing: p.String(), Actor: by.Actor, Source: by.Source,
		Target: wire.AuditTarget{Kind: audit.Pairing, ID: p.String()},
	})
}
