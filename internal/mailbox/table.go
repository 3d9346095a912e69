package mailbox

// Trigger is what can happen to a command of our agent. Guards of the design's table are triggers of their own here,
// so that the table has no conditions: classify a thing that happened, then look it up. It is exported for the model,
// which explores this very table.
type Trigger uint8

// The triggers.
const (
	OnClaim          Trigger = iota // by the newest epoch after its report; not expired, no stop asked
	OnAccept                        // in the journal, or confirmed locally; token current
	OnWait                          // needs local confirmation; token current
	OnResult                        // token current or of the last holder; not the result that stands
	OnResultSame                    // the result that stands, once more
	OnResultStale                   // any other token
	OnAbsent                        // report: the journal is whole and has no such row
	OnAbsentStopped                 // ... and a stop was asked
	OnAbsentExpired                 // ... and the time is over
	OnAbsentWorn                    // ... and this was the last delivery
	OnAbsentLost                    // report: no such row in a journal that is new or older than known
	OnAbsentDone                    // report to a restored broker: the journal had the row and was done with it
	OnPresent                       // report: the journal has the row
	OnPresentWaiting                // ... where it waits for a person
	OnPresentDone                   // ... done, and the report carries its result
	OnExpire                        // the time is over
	OnCancel                        // by the sender; or its surface or pairing was revoked
	OnTombstone                     // answer to a stop: not started, and never will be
	OnStarted                       // answer to a stop: started
	OnForget                        // 30 days after its time without word, or the pairing was deleted
	OnRestore                       // the broker's store was restored from a backup
	OnItRan                         // a person decides: it ran
	OnSendAgain                     // a person decides: send again
	triggerCount
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

// Verdict says what a trigger does.
type Verdict uint8

// The verdicts.
const (
	Ignore Verdict = iota // nothing changes and nothing is recorded
	Stay                  // the state stays, the effects take place
	Move                  // to another state
	Refuse                // 409 and an audit line
)

// Effect is what goes along with a step, as bits.
type Effect uint8

// The effects.
const (
	NewToken      Effect = 1 << iota // a new token, bound to the epoch of who asks
	CountDelivery                    // one delivery more
	SetStop                          // the stop wish that the trigger brings is set
	TellSkipped                      // the desktop lacks the envelope: deliver its header in its place
	Alert                            // someone must be told
	ForgetHolder                     // the holder is unknown
)

// Step is one cell of the table.
type Step struct {
	Verdict Verdict
	To      State // for Move
	Effects Effect
}

// Has says whether an effect goes along.
func (s Step) Has(e Effect) bool { return s.Effects&e != 0 }

func to(s State, fx ...Effect) Step { return Step{Move, s, sum(fx)} }

func stays(fx ...Effect) Step { return Step{Stay, 0, sum(fx)} }

func sum(fx []Effect) (all Effect) {
	for _, f := range fx {
		all |= f
	}
	return all
}

var refused = Step{Verdict: Refuse}

// table is the life of a command of our agent: a row for each trigger, a column for each state. A cell that is missing
// is ignored.
var table = [triggerCount][columnCount]Step{
	OnClaim:  {colQueued: to(Leased, NewToken, CountDelivery)},
	OnAccept: {colLeased: to(Accepted), colAccepted: stays(), colWaiting: to(Accepted)},
	OnWait:   {colLeased: to(WaitingLocal), colAccepted: to(WaitingLocal), colWaiting: stays()},

	OnResult: {
		colQueued: to(given), colLeased: to(given), colAccepted: to(given), colWaiting: to(given),
		colTerminal: refused, colUnknown: to(given),
	},
	OnResultSame:  {colTerminal: stays(), colUnknown: stays()},
	OnResultStale: {refused, refused, refused, refused, refused, refused},

	OnAbsent:        {colLeased: to(Queued), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	OnAbsentStopped: {colLeased: to(Cancelled, TellSkipped), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	OnAbsentExpired: {colLeased: to(Expired, TellSkipped), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	OnAbsentWorn:    {colLeased: to(Failed, TellSkipped), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	OnAbsentLost: {
		colLeased: to(OutcomeUnknown, Alert), colAccepted: to(OutcomeUnknown, Alert), colWaiting: to(OutcomeUnknown, Alert),
	},
	OnAbsentDone:     {colLeased: to(OutcomeUnknown)},
	OnPresent:        {colLeased: to(Accepted, NewToken), colAccepted: stays(NewToken), colWaiting: to(Accepted, NewToken)},
	OnPresentWaiting: {colLeased: to(Accepted, NewToken), colAccepted: stays(NewToken), colWaiting: stays(NewToken)},
	OnPresentDone: {
		colLeased: to(Accepted, NewToken), colAccepted: stays(NewToken), colWaiting: to(Accepted, NewToken),
		colUnknown: to(given),
	},

	OnExpire: {colQueued: to(Expired, TellSkipped), colLeased: stays(SetStop), colAccepted: stays(SetStop), colWaiting: stays(SetStop)},
	OnCancel: {colQueued: to(Cancelled, TellSkipped), colLeased: stays(SetStop), colAccepted: stays(SetStop), colWaiting: stays(SetStop)},

	OnTombstone: {colLeased: to(given, TellSkipped), colAccepted: to(given), colWaiting: to(given)},
	OnStarted:   {colLeased: to(Accepted, SetStop), colAccepted: stays(SetStop), colWaiting: to(Accepted, SetStop)},
	OnForget:    {colLeased: to(OutcomeUnknown), colAccepted: to(OutcomeUnknown), colWaiting: to(OutcomeUnknown)},
	OnRestore: {
		colQueued: to(Leased, ForgetHolder), colLeased: stays(ForgetHolder), colAccepted: to(Leased, ForgetHolder), colWaiting: to(Leased, ForgetHolder),
	},
	OnItRan:     {colUnknown: to(Completed)},
	OnSendAgain: {colUnknown: stays()},
}

// Next looks a thing that happened up. It is the only place where a command's state is decided. carried is the state
// that the trigger brings along, where it brings one.
func Next(s State, t Trigger, carried State) Step {
	st := table[t][s.column()]
	if st.Verdict == Move && st.To == given {
		st.To = carried
	}
	return st
}
