package mailbox

// event is what can happen to a command of our agent. Guards of the design's table are events of their own here, so
// that the table has no conditions: classify a thing that happened, then look it up.
type event uint8

const (
	evClaim          event = iota // by the newest epoch after its report; not expired, no stop asked
	evAccept                      // in the journal, or confirmed locally; token current
	evWait                        // needs local confirmation; token current
	evResult                      // token current or of the last holder; not the result that stands
	evResultSame                  // the result that stands, once more
	evResultStale                 // any other token
	evAbsent                      // report: the journal is whole and has no such row
	evAbsentStopped               // ... and a stop was asked
	evAbsentExpired               // ... and the time is over
	evAbsentWorn                  // ... and this was the last delivery
	evAbsentLost                  // report: no such row in a journal that is new or older than known
	evAbsentDone                  // report to a restored broker: the journal had the row and was done with it
	evPresent                     // report: the journal has the row
	evPresentWaiting              // ... where it waits for a person
	evPresentDone                 // ... done, and the report carries its result
	evExpire                      // the time is over
	evCancel                      // by the sender; or its surface or pairing was revoked
	evTombstone                   // answer to a stop: not started, and never will be
	evStarted                     // answer to a stop: started
	evForget                      // 30 days after its time without word, or the pairing was deleted
	evRestore                     // the broker's store was restored from a backup
	evItRan                       // a person decides: it ran
	evSendAgain                   // a person decides: send again
	eventCount
)

// column groups the states as the design's table does.
type column uint8

const (
	colQueued column = iota
	colLeased
	colAccepted
	colWaiting
	colTerminal
	colUnknown
	columnCount
)

func (s State) column() column {
	switch {
	case s == OutcomeUnknown:
		return colUnknown
	case s.Terminal():
		return colTerminal
	}
	return column(s)
}

// verdict says what an event does.
type verdict uint8

const (
	ignore verdict = iota // nothing changes and nothing is recorded
	stay                  // the state stays, the effects take place
	move                  // to another state
	refuse                // 409 and an audit line
)

// effect is what goes along with a step.
type effect uint8

const (
	fxToken  effect = 1 << iota // a new token, bound to the epoch of who asks
	fxCount                     // one delivery more
	fxStop                      // the stop wish of the event is set
	fxSkip                      // the desktop lacks the envelope: deliver its header in its place
	fxAlert                     // someone must be told
	fxUnheld                    // the holder is unknown
)

type step struct {
	verdict verdict
	to      State
	fx      effect
}

func to(s State, fx ...effect) step { return step{move, s, sum(fx)} }

func stays(fx ...effect) step { return step{stay, 0, sum(fx)} }

func sum(fx []effect) (all effect) {
	for _, f := range fx {
		all |= f
	}
	return all
}

var refused = step{verdict: refuse}

// table is the column of our agent in docs/protocol's mailbox table. A cell that is missing is ignored.
var table = [eventCount][columnCount]step{
	evClaim:  {colQueued: to(Leased, fxToken, fxCount)},
	evAccept: {colLeased: to(Accepted), colAccepted: stays(), colWaiting: to(Accepted)},
	evWait:   {colLeased: to(WaitingLocal), colAccepted: to(WaitingLocal), colWaiting: stays()},

	evResult: {
		colQueued: to(given), colLeased: to(given), colAccepted: to(given), colWaiting: to(given),
		colTerminal: refused, colUnknown: to(given),
	},
	evResultSame:  {colTerminal: stays(), colUnknown: stays()},
	evResultStale: {refused, refused, refused, refused, refused, refused},

	evAbsent:        {colLeased: to(Queued), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	evAbsentStopped: {colLeased: to(Cancelled, fxSkip), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	evAbsentExpired: {colLeased: to(Expired, fxSkip), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	evAbsentWorn:    {colLeased: to(Failed, fxSkip), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	evAbsentLost: {
		colLeased: to(OutcomeUnknown, fxAlert), colAccepted: to(OutcomeUnknown, fxAlert), colWaiting: to(OutcomeUnknown, fxAlert),
	},
	evAbsentDone:     {colLeased: to(OutcomeUnknown)},
	evPresent:        {colLeased: to(Accepted, fxToken), colAccepted: stays(fxToken), colWaiting: to(Accepted, fxToken)},
	evPresentWaiting: {colLeased: to(Accepted, fxToken), colAccepted: stays(fxToken), colWaiting: stays(fxToken)},
	evPresentDone: {
		colLeased: to(Accepted, fxToken), colAccepted: stays(fxToken), colWaiting: to(Accepted, fxToken),
		colUnknown: to(given),
	},

	evExpire: {colQueued: to(Expired, fxSkip), colLeased: stays(fxStop), colAccepted: stays(fxStop), colWaiting: stays(fxStop)},
	evCancel: {colQueued: to(Cancelled, fxSkip), colLeased: stays(fxStop), colAccepted: stays(fxStop), colWaiting: stays(fxStop)},

	evTombstone: {colLeased: to(given, fxSkip), colAccepted: to(given), colWaiting: to(given)},
	evStarted:   {colLeased: to(Accepted, fxStop), colAccepted: stays(fxStop), colWaiting: to(Accepted, fxStop)},
	evForget:    {colLeased: to(OutcomeUnknown), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	evRestore: {
		colQueued: to(Leased, fxUnheld), colLeased: stays(fxUnheld), colAccepted: to(Leased, fxUnheld), colWaiting: to(Leased, fxUnheld),
	},
	evItRan:     {colUnknown: to(Completed)},
	evSendAgain: {colUnknown: stays()},
}

// next looks a thing that happened up. It is the only place where a command's state is decided. carried is the state
// that the event brings along, where it brings one.
func next(s State, e event, carried State) step {
	st := table[e][s.column()]
	if st.verdict == move && st.to == given {
		st.to = carried
	}
	return st
}
