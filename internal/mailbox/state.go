package mailbox

import (
	"fmt"

	"cowork.example.com/broker/pkg/wire"
)

// State of a command. Everything from Completed on is terminal.
type State uint8

// The states, in the order of a life.
const (
	Queued State = iota
	Leased
	Accepted
	WaitingLocal
	Completed
	Failed
	Blocked
	Expired
	Cancelled
	OutcomeUnknown
	stateCount

	given = stateCount // in the table: the state that the event carries
)

var stateNames = [stateCount]string{
	Queued: wire.StateQueued, Leased: wire.StateLeased, Accepted: wire.StateAccepted, WaitingLocal: wire.StateWaitingLocal,
	Completed: wire.StateCompleted, Failed: wire.StateFailed, Blocked: wire.StateBlocked, Expired: wire.StateExpired,
	Cancelled: wire.StateCancelled, OutcomeUnknown: wire.StateOutcomeUnknown,
}

// String returns the name that wire uses.
func (s State) String() string {
	if s >= stateCount {
		return fmt.Sprintf("state(%d)", uint8(s))
	}
	return stateNames[s]
}

// ParseState reads a name.
func ParseState(name string) (State, error) {
	for s, n := range stateNames {
		if n == name {
			return State(s), nil
		}
	}
	return 0, fmt.Errorf("no such state")
}

// Terminal says whether the command has ended.
func (s State) Terminal() bool { return s >= Completed && s < stateCount }

// Stop is the wish that a command shall not run any more, kept in its row until the desktop has answered.
type Stop uint8

// The wishes.
const (
	StopNone     Stop = iota
	StopCancel        // cancelled by its sender, or its surface or pairing was revoked
	StopExpire        // its time is over
	StopAnswered      // the desktop said: started already; not asked again
)

// Asked says whether an answer is awaited.
func (s Stop) Asked() bool { return s == StopCancel || s == StopExpire }

// String returns the word that wire.Stop uses.
func (s Stop) String() string {
	switch s {
	case StopCancel:
		return wire.StateCancelled
	case StopExpire:
		return wire.StateExpired
	}
	return ""
}

// outcome is the state in which a stopped command ends.
func (s Stop) outcome() State {
	if s == StopExpire {
		return Expired
	}
	return Cancelled
}
