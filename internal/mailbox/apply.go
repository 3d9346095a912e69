package mailbox

import (
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/pkg/wire"
)

// happening is an event and what it brings along.
type happening struct {
	event  event
	state  State  // result, tombstone: the state it carries
	reason string // a stable code
	result []byte // sealed
	epoch  Epoch  // of the link that asks
	stop   Stop
	by     By
	now    time.Time
}

// apply changes a command as the table says, with its line, in the transaction. It returns what the table said.
func apply(tx Tx, c *Command, h happening) (step, error) {
	st := next(c.State, h.event, h.state)
	switch st.verdict {
	case ignore:
		return st, nil
	case refuse:
		return st, tx.Note(lineOf(*c, audit.CommandResultRefused, audit.Refused, h))
	case stay:
		if st.fx == 0 && h.event != evSendAgain {
			return st, nil
		}
	}
	before := c.State
	change(c, st, h)
	t, outcome := lineType(before, *c, h.event)
	return st, tx.Save(*c, lineOf(*c, t, outcome, h))
}

// change does to the row in memory what a step says.
func change(c *Command, st step, h happening) {
	c.Updated = h.now
	if st.fx&fxToken != 0 {
		c.Token, c.Epoch = newToken(), h.epoch
	}
	if st.fx&fxCount != 0 {
		c.Deliveries++
	}
	if st.fx&fxStop != 0 {
		c.Stop = h.stop
	}
	if st.fx&fxUnheld != 0 {
		c.Epoch = 0
	}
	if st.verdict != move {
		return
	}
	c.State = st.to
	if c.State.Terminal() {
		c.Stop, c.Reason, c.Result = StopNone, h.reason, h.result
		c.Skip = st.fx&fxSkip != 0
	}
}

// lineType says which line describes a change.
func lineType(before State, c Command, e event) (audit.Type, audit.Outcome) {
	switch {
	case e == evItRan, e == evSendAgain:
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
var lineTypes = map[event]audit.Type{
	evClaim: audit.CommandLeased, evWait: audit.CommandWaiting, evAbsent: audit.CommandRequeued,
	evExpire: audit.CommandStopAsked, evCancel: audit.CommandStopAsked, evStarted: audit.CommandStopAnswered,
	evRestore: audit.CommandRequeued,
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
