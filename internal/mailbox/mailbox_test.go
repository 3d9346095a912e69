package mailbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"cowork.example.com/broker/pkg/wire"
)

func everyState() (all []State) {
	for s := Queued; s < stateCount; s++ {
		all = append(all, s)
	}
	return all
}

func TestStatesHaveWiresNames(t *testing.T) {
	names := map[string]bool{}
	for _, s := range everyState() {
		back, err := ParseState(s.String())
		if err != nil || back != s || names[s.String()] {
			t.Errorf("%d is %q, which is %d, %v", s, s, back, err)
		}
		names[s.String()] = true
	}
	for _, name := range []string{wire.StateQueued, wire.StateWaitingLocal, wire.StateBlocked, wire.StateOutcomeUnknown} {
		if !names[name] {
			t.Errorf("no state is called %q", name)
		}
	}
	for _, bad := range []string{"", "Queued", "state(10)"} {
		if s, err := ParseState(bad); err == nil {
			t.Errorf("%q is %s", bad, s)
		}
	}
}

// TestTableKeepsItsPromises walks every cell with every state that a trigger could carry.
func TestTableKeepsItsPromises(t *testing.T) {
	for trigger := range triggerCount {
		for _, from := range everyState() {
			for _, carried := range everyState()[Completed:] {
				st := Next(from, trigger, carried)
				where := fmt.Sprintf("trigger %d in %s gives %s", trigger, from, st.To)
				if st.Verdict != Move {
					if st.To != 0 || st.Verdict != Stay && st.Effects != 0 {
						t.Errorf("%s: nothing moves, and yet %+v", where, st)
					}
					continue
				}
				if st.To >= stateCount {
					t.Errorf("%s: no state", where)
				}
				if from.Terminal() && (from != OutcomeUnknown || !st.To.Terminal()) {
					t.Errorf("%s: an end was left", where)
				}
				if st.To == Queued && (trigger != OnAbsent || from != Leased) {
					t.Errorf("%s: only what the desktop never had waits again", where)
				}
				if st.To == Leased && trigger != OnClaim && trigger != OnRestore {
					t.Errorf("%s: leased without a claim", where)
				}
				if st.Has(NewToken) && st.To.Terminal() || st.Has(TellSkipped) && !st.To.Terminal() {
					t.Errorf("%s: effects %b", where, st.Effects)
				}
				if (st.To == Cancelled || st.To == Expired || st.To == Failed) && st.To != carried && (from == Accepted || from == WaitingLocal) {
					t.Errorf("%s: the broker ends by itself what the desktop has", where)
				}
			}
		}
	}
}

func TestEveryTriggerDoesSomething(t *testing.T) {
	for trigger := range triggerCount {
		busy := false
		for _, s := range everyState() {
			busy = busy || Next(s, trigger, Completed).Verdict != Ignore
		}
		if !busy {
			t.Errorf("trigger %d is ignored in every state", trigger)
		}
	}
}

func TestStopOutcome(t *testing.T) {
	for stop, want := range map[Stop]struct {
		asked bool
		word  string
		end   State
	}{
		StopNone:     {false, "", Cancelled},
		StopCancel:   {true, "cancelled", Cancelled},
		StopExpire:   {true, "expired", Expired},
		StopAnswered: {false, "", Cancelled},
	} {
		if stop.Asked() != want.asked || stop.String() != want.word || stop.outcome() != want.end {
			t.Errorf("stop %d: %v, %q, %s", stop, stop.Asked(), stop, stop.outcome())
		}
	}
}

func TestTokensAreSecret(t *testing.T) {
	token := newToken()
	for _, text := range []string{
		token.String(), fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s %x", token, token, token, token, struct{ T Token }{token}),
		token.LogValue().String(), slog.AnyValue(token).Resolve().String(),
	} {
		if strings.Contains(text, fmt.Sprintf("%x", token[:2])) || strings.Contains(text, fmt.Sprint(token[0])+" ") {
			t.Errorf("printed as %q", text)
		}
	}
	if !token.Equal(ParseToken(token[:])) || token.Equal(newToken()) || (Token{}).Equal(Token{}) {
		t.Error("tokens compare wrongly")
	}
	for _, bad := range [][]byte{nil, token[:15], append(token[:], 0)} {
		if ParseToken(bad) != (Token{}) {
			t.Errorf("%d bytes are a token", len(bad))
		}
	}
}

func TestCommandIDs(t *testing.T) {
	id := newCommandID()
	if got, err := ParseCommandID(string(id)); err != nil || got != id {
		t.Errorf("%s: %v", id, err)
	}
	if id == newCommandID() {
		t.Error("the same id twice")
	}
	text := string(id)
	for _, bad := range []string{"", "cmd_", text[:29], text + "A", "CMD_" + text[4:], "cmd_" + strings.ToLower(text[4:]), text[:29] + "'"} {
		if _, err := ParseCommandID(bad); CodeOf(err) != NotFound {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestErrorsCompareByCode(t *testing.T) {
	err := fmt.Errorf("doing it: %w", limited("%d are open", 3))
	if !errors.Is(err, &Error{Code: Limited}) || errors.Is(err, &Error{Code: Stale}) || CodeOf(err) != Limited {
		t.Errorf("%v has code %d", err, CodeOf(err))
	}
	if CodeOf(nil) != 0 || CodeOf(errors.New("other")) != 0 {
		t.Error("a code out of nothing")
	}
}

func TestOutcomeIsChecked(t *testing.T) {
	good := Outcome{State: Failed, Reason: strings.Repeat("a", MaxReason), Sealed: make([]byte, MaxResult)}
	if err := good.check(); err != nil {
		t.Errorf("the largest outcome: %v", err)
	}
	for name, change := range map[string]func(*Outcome){
		"open state":      func(o *Outcome) { o.State = Accepted },
		"one byte over":   func(o *Outcome) { o.Sealed = make([]byte, MaxResult+1) },
		"long reason":     func(o *Outcome) { o.Reason += "a" },
		"reason in words": func(o *Outcome) { o.Reason = "it did not work" },
		"reason as JSON":  func(o *Outcome) { o.Reason = `x","type":"y` },
	} {
		o := good
		change(&o)
		if err := o.check(); CodeOf(err) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLinesNameTheirState: a line of an end says which, before the code that explains it.
func TestLinesNameTheirState(t *testing.T) {
	for reason, want := range map[string]string{"": "failed", "failed": "failed", "undeliverable": "failed/undeliverable"} {
		e := lineOf(Command{State: Failed}, "command.ended", "failure", happening{reason: reason})
		b, err := e.Encode(1)
		var l wire.AuditLine
		if err != nil || json.Unmarshal(b, &l) != nil || l.Reason != want {
			t.Errorf("reason %q is written as %q, %v", reason, l.Reason, err)
		}
	}
}
