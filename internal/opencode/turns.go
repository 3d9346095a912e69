package opencode

import (
	"encoding/json"
	"strings"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

const (
	// settleAfter is how long a session must have been idle again before an answer that
	// is not complete counts as given up: an aborted answer is completed shortly after
	// the first idle.
	settleAfter = 2 * time.Second
	// unansweredAfter is the same where the session was not seen busy since: under load
	// the first sign of a turn comes late.
	unansweredAfter = 10 * time.Second
)

// evidence is what is known of one turn when its end is judged.
type evidence struct {
	idle    time.Duration // how long the session has been idle; negative: it is busy
	age     time.Duration // how long ago the message was stored
	later   bool          // a later message of the session was answered
	reborn  bool          // the runtime was started after the message was stored
	watched bool          // the session was seen busy and then idle, by one runtime
	aborted bool          // an answer of the session was aborted after the message was stored
	answer  *message      // the last answer to the message
}

// verdict says how a turn ended, or that it has not (over false). The messages decide;
// idleness only permits the question, since one turn may be followed by two idles and an
// idle may belong to the turn before.
func verdict(e evidence) (outcome string, over bool) {
	if e.idle < 0 && !e.later {
		return "", false
	}
	if e.answer == nil {
		return verdictUnanswered(e)
	}
	if outcome := final(*e.answer); outcome != "" {
		return outcome, true
	}
	patience := unansweredAfter
	if e.watched || e.aborted {
		patience = settleAfter
	}
	complete := e.answer.Info.Time.Completed > 0
	switch {
	case !e.calm(patience):
		return "", false
	case complete && !e.reborn && (e.watched || e.later):
		return wire.OutcomeDone, true
	}
	return wire.OutcomeInterrupted, true
}

// calm says whether nothing more can be expected, at the latest after the time d.
func (e evidence) calm(d time.Duration) bool {
	return e.later || e.reborn || (e.idle >= d && e.age >= d)
}

// final reads the outcome from an answer that says it itself; empty when it does not.
func final(m message) string {
	failure := present(m.Info.Error)
	switch {
	case errorName(failure) == "MessageAbortedError":
		return wire.OutcomeAborted
	case failure != nil:
		return wire.OutcomeError
	case m.Info.Time.Completed == 0:
		return ""
	case m.Info.Finish == "": // an abort between two tries of a model call leaves no error
		return wire.OutcomeAborted
	case m.Info.Finish != "tool-calls" || turnedDown(m):
		return wire.OutcomeDone
	}
	return ""
}

// verdictUnanswered judges a message which nothing answers: it was dropped by an abort,
// taken together with a later message, or its runtime ended.
func verdictUnanswered(e evidence) (string, bool) {
	switch {
	case e.aborted && e.calm(settleAfter):
		return wire.OutcomeAborted, true
	case e.later:
		return wire.OutcomeDone, true
	case e.calm(unansweredAfter):
		return wire.OutcomeInterrupted, true
	}
	return "", false
}

// present returns nil for an error field that is null or absent.
func present(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	return raw
}

// What OpenCode writes into a tool part when a person said no, or when the turn was
// aborted while the tool ran or waited.
const (
	rejectedText  = "rejected permission"
	dismissedText = "dismissed this question"
	abortedText   = "aborted"
)

// turnedDown says whether a person's no is what ended this answer.
func turnedDown(m message) bool {
	for _, raw := range m.Parts {
		var p part
		if json.Unmarshal(raw, &p) == nil && p.Type == "tool" && p.State.Status == "error" &&
			(strings.Contains(p.State.Error, rejectedText) || strings.Contains(p.State.Error, dismissedText)) {
			return true
		}
	}
	return false
}

// decided reads from a tool part what became of the request that it waited for. live says
// that its turn still runs in the runtime that asked; without it a tool that "runs" was
// left behind. sure is false when the part cannot tell.
func decided(kind string, p part, live bool) (decision string, sure bool) {
	yes := wire.DecisionAllowed
	if kind == wire.RequestQuestion {
		yes = wire.DecisionAnswered
	}
	switch text := p.State.Error; {
	case p.State.Status == "completed":
		return yes, true
	case p.State.Status == "running" && live:
		return yes, true
	case p.State.Status != "error":
		return wire.DecisionLost, false
	case strings.Contains(text, dismissedText):
		return wire.DecisionRejected, true
	case strings.Contains(text, rejectedText):
		return wire.DecisionDenied, true
	case strings.Contains(text, abortedText):
		// Aborted while it waited, or after it was allowed: both read the same.
		return wire.DecisionLost, false
	}
	return yes, true // it ran and failed by itself
}
