// Package model explores the life of one command that must not run twice: a surface that may cancel it, a broker, an
// agent with its journal, an executor, and everything that can go wrong between them: messages lost or late, links
// cut, crashes at any instruction, time passing, a desktop or a broker restored from a backup. It walks every
// reachable state and asks two things: is something wrong in it, and can it still end.
//
// The broker's half is mailbox.Next, the very table that the broker runs. Rules can be taken out one at a time, to
// see that each is needed; docs/adr/0005-mailbox-model.md has what was found.
package model

import (
	"cowork.example.com/broker/internal/mailbox"
)

// Bounds of the exploration: small, but each rule that matters shows its need within them.
const (
	maxEpoch      = 3 // links of the desktop
	maxToken      = 4 // leases
	maxDeliveries = 2 // the product tries 5 times
	maxMessages   = 8 // in flight at once; more is an error of the model
)

// Rules can be left out; Full has all.
type Rules struct {
	Token        bool // the broker takes results and acceptances only under the current token
	Report       bool // a report counts only from the newest link and for earlier leases, and comes before the first claim
	Tombstone    bool // the agent writes a row when it is told to stop a command it never had
	LinkAtAgent  bool // the agent drops what arrives on any link but its newest
	NewToken     bool // the report's answer has a new token for each row
	JournalID    bool // a journal that is new or older than known is noticed
	Unknown      bool // what was accepted and is not in the journal is outcome_unknown
	AskExecutor  bool // after a crash the agent waits until an old call cannot arrive any more
	AskToStop    bool // what the desktop holds is asked to stop; it does not end by itself
	UnknownOwner bool // a restored broker treats open commands as leased by someone unknown
}

// Full is the product.
func Full() Rules { return Rules{true, true, true, true, true, true, true, true, true, true} }

// World says what may happen beside what always may.
type World struct {
	Confirm        bool // a person at the desktop must confirm
	DesktopRestore bool // the desktop's journal may be lost
	BrokerRestore  bool // the broker may be put back from a backup
	Faults         int  // how many links are cut, disks fill or backups come back
}

// row is the agent's journal row of the command.
type row byte

const (
	noRow     row = iota
	received      // durable, not started
	started       // the executor is about to be called, or was
	done          // ran
	tombstone     // cancelled, never ran
	lapsed        // expired, never ran
)

// outcome is the result that the agent reports for a row, when it is over.
func (r row) outcome() (mailbox.State, bool) {
	switch r {
	case done:
		return mailbox.Completed, true
	case tombstone:
		return mailbox.Cancelled, true
	case lapsed:
		return mailbox.Expired, true
	}
	return 0, false
}

// kind of a message in flight.
type kind byte

const (
	deliver   kind = iota + 1 // broker to agent: epoch, token
	askStop                   // broker to agent: epoch
	report                    // agent to broker: epoch, row
	accept                    // agent to broker: token
	waits                     // agent to broker: token
	result                    // agent to broker: token, state
	neverRuns                 // agent to broker, answer to a stop
)

type message struct {
	kind  kind
	epoch uint8
	token uint8
	row   row
	state mailbox.State
}

// state is one state of the whole.
type state struct {
	// The broker's row.
	b          mailbox.State
	token      uint8
	lease      uint8 // epoch of the lease, 0 unknown
	newest     uint8 // epoch
	deliveries uint8
	over       bool // its time has passed
	cancelled  bool // its sender has cancelled
	reported   bool // the newest link's report was applied
	durable    bool // the broker has acknowledged the result

	// The agent.
	up        bool
	link      uint8 // 0 none
	row       row
	rowToken  uint8
	waiting   bool // for a person
	confirmed bool
	called    bool // this process believes that it has called the executor
	lost      bool // the journal was lost once
	restored  bool // the broker was restored once

	// The executor, and what is in flight.
	ran    uint8
	calls  uint8 // that may still arrive
	net    [maxMessages]message
	faults uint8
}

// initial is a command that was just posted.
func initial(w World) state {
	return state{b: mailbox.Queued, up: true, faults: uint8(w.Faults)}
}

// wrong says what must never be, or "".
func (s state) wrong() string {
	switch {
	case s.ran > 1:
		return "it ran twice"
	case s.ran > 0 && s.b == mailbox.Queued:
		return "it waits again although it ran"
	case s.ran > 0 && (s.b == mailbox.Expired || s.b == mailbox.Cancelled || s.b == mailbox.Failed):
		return s.b.String() + " although it ran"
	case s.ran == 0 && s.b == mailbox.Completed:
		return "completed although it never ran"
	}
	return ""
}

// within says whether the bounds have not cut this state's future off.
func (s state) within() bool { return s.ran < 2 && s.newest < maxEpoch && s.token < maxToken }

// send adds messages; a message that is in flight already is not doubled.
func (s state) send(ms ...message) state {
	for _, m := range ms {
		s = s.sendOne(m)
	}
	return s
}

func (s state) sendOne(m message) state {
	for i, have := range s.net {
		if have == m {
			return s
		}
		if have.kind == 0 {
			s.net[i] = m
			return s.sorted()
		}
	}
	panic("model: too many messages in flight")
}

// take removes the message at i.
func (s state) take(i int) state {
	s.net[i] = message{}
	return s.sorted()
}

// sorted makes equal sets of messages equal states: by insertion, empty places last.
func (s state) sorted() state {
	for i := 1; i < len(s.net); i++ {
		for k := i; k > 0 && s.net[k].before(s.net[k-1]); k-- {
			s.net[k], s.net[k-1] = s.net[k-1], s.net[k]
		}
	}
	return s
}

func (m message) before(o message) bool {
	if m.kind == 0 || o.kind == 0 {
		return m.kind != 0
	}
	return m.order() < o.order()
}

func (m message) order() uint64 {
	return uint64(m.kind)<<32 | uint64(m.epoch)<<24 | uint64(m.token)<<16 | uint64(m.row)<<8 | uint64(m.state)
}

// without removes every message of these kinds.
func (s state) without(kinds ...kind) state {
	for i, m := range s.net {
		for _, k := range kinds {
			if m.kind == k {
				s.net[i] = message{}
			}
		}
	}
	return s.sorted()
}

// inFlight says whether a message of this kind is on its way.
func (s state) inFlight(k kind) bool {
	for _, m := range s.net {
		if m.kind == k {
			return true
		}
	}
	return false
}
