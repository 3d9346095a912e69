package opencode

import (
	"encoding/json"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// answer is a message of the assistant as OpenCode stores it.
func answer(finish string, completed bool, failure string, parts ...string) *message {
	m := &message{Info: info{Role: "assistant", Finish: finish}}
	if completed {
		m.Info.Time.Completed = 1
	}
	if failure != "" {
		m.Info.Error = json.RawMessage(`{"name":"` + failure + `"}`)
	}
	for _, p := range parts {
		m.Parts = append(m.Parts, json.RawMessage(p))
	}
	return m
}

const (
	rejectedPart = `{"type":"tool","state":{"status":"error","error":"The user rejected permission to use this specific tool call."}}`
	failedPart   = `{"type":"tool","state":{"status":"error","error":"exit 1"}}`
)

func TestVerdict(t *testing.T) {
	const long, short = time.Minute, time.Second
	running := time.Duration(-1)
	for _, tt := range []struct {
		name string
		e    evidence
		want string // empty: not over
	}{
		{"busy, no answer", evidence{idle: running, age: long}, ""},
		{"busy, even with a complete answer", evidence{idle: running, age: long, answer: answer("stop", true, "")}, ""},
		{"answered", evidence{idle: 0, age: short, answer: answer("stop", true, "")}, wire.OutcomeDone},
		{"answered, cut off by length", evidence{idle: 0, age: short, answer: answer("length", true, "")}, wire.OutcomeDone},
		{"failed", evidence{idle: 0, age: short, answer: answer("", true, "APIError")}, wire.OutcomeError},
		{"aborted", evidence{idle: 0, age: short, answer: answer("", true, "MessageAbortedError")}, wire.OutcomeAborted},
		{"aborted between two tries", evidence{idle: 0, age: short, answer: answer("", true, "")}, wire.OutcomeAborted},
		{"a person's no", evidence{idle: 0, age: short, answer: answer("tool-calls", true, "", rejectedPart)}, wire.OutcomeDone},
		{"between two steps", evidence{idle: 0, age: short, answer: answer("tool-calls", true, "", failedPart)}, ""},
		{"left between two steps", evidence{idle: long, age: long, answer: answer("tool-calls", true, "", failedPart)}, wire.OutcomeInterrupted},
		{"stopped by the runtime between two steps", evidence{idle: long, age: long, watched: true, answer: answer("tool-calls", true, "")}, wire.OutcomeDone},
		{"first idle of an abort", evidence{idle: short, age: long, watched: true, answer: answer("", false, "")}, ""},
		{"never completed", evidence{idle: 3 * time.Second, age: long, watched: true, answer: answer("", false, "")}, wire.OutcomeInterrupted},
		{"not seen busy yet", evidence{idle: 3 * time.Second, age: 3 * time.Second, answer: answer("", false, "")}, ""},
		{"the runtime died", evidence{idle: 0, age: short, reborn: true, answer: answer("", false, "")}, wire.OutcomeInterrupted},
		{"the runtime died between two steps", evidence{idle: 0, age: short, reborn: true, watched: true, answer: answer("tool-calls", true, "")}, wire.OutcomeInterrupted},
		{"the runtime died after the end", evidence{idle: 0, age: short, reborn: true, answer: answer("stop", true, "")}, wire.OutcomeDone},
		{"the runtime died before any answer", evidence{idle: 0, age: short, reborn: true}, wire.OutcomeInterrupted},
		{"just sent", evidence{idle: short, age: short}, ""},
		{"old idle, just sent", evidence{idle: long, age: short}, ""},
		{"sent right after an abort", evidence{idle: short, age: short, aborted: true}, ""},
		{"dropped by an abort", evidence{idle: 3 * time.Second, age: 3 * time.Second, aborted: true}, wire.OutcomeAborted},
		{"never answered", evidence{idle: long, age: long}, wire.OutcomeInterrupted},
		{"answered together with a later one", evidence{idle: running, age: long, later: true}, wire.OutcomeDone},
		{"answered, a later one runs", evidence{idle: running, age: long, later: true, answer: answer("stop", true, "")}, wire.OutcomeDone},
		{"taken over by a later one between steps", evidence{idle: running, age: long, later: true, answer: answer("tool-calls", true, "")}, wire.OutcomeDone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, over := verdict(tt.e)
			if got != tt.want || over != (tt.want != "") {
				t.Errorf("verdict = %q, %v; want %q", got, over, tt.want)
			}
		})
	}
}

func TestDecided(t *testing.T) {
	for _, tt := range []struct {
		kind, status, text string
		live               bool
		want               string
		sure               bool
	}{
		{wire.RequestPermission, "completed", "", false, wire.DecisionAllowed, true},
		{wire.RequestQuestion, "completed", "", false, wire.DecisionAnswered, true},
		{wire.RequestPermission, "running", "", true, wire.DecisionAllowed, true},
		{wire.RequestPermission, "running", "", false, wire.DecisionLost, false},
		{wire.RequestPermission, "pending", "", false, wire.DecisionLost, false},
		{wire.RequestPermission, "error", "The user rejected permission to use this specific tool call.", false, wire.DecisionDenied, true},
		{wire.RequestQuestion, "error", "The user dismissed this question", false, wire.DecisionRejected, true},
		{wire.RequestPermission, "error", "Tool execution aborted", false, wire.DecisionLost, false},
		{wire.RequestPermission, "error", "no such file", false, wire.DecisionAllowed, true},
	} {
		var p part
		p.State.Status, p.State.Error = tt.status, tt.text
		if got, sure := decided(tt.kind, p, tt.live); got != tt.want || sure != tt.sure {
			t.Errorf("%s %s %q live=%v: %s, %v; want %s, %v", tt.kind, tt.status, tt.text, tt.live, got, sure, tt.want, tt.sure)
		}
	}
}

func TestRunningTurn(t *testing.T) {
	user := func(id string) message { return message{Info: info{ID: id, Role: "user"}} }
	reply := func(parent, finish string, completed bool) message {
		m := *answer(finish, completed, "")
		m.Info.ID, m.Info.ParentID = parent+"a", parent
		return m
	}
	for _, tt := range []struct {
		name string
		page []message
		want string
	}{
		{"nothing", nil, ""},
		{"just sent", []message{user("m1")}, "m1"},
		{"being answered", []message{user("m1"), reply("m1", "", false)}, "m1"},
		{"being answered, one waits", []message{user("m1"), reply("m1", "", false), user("m2")}, "m1"},
		{"between steps, one waits", []message{user("m1"), reply("m1", "tool-calls", true), user("m2")}, "m1"},
		{"answered, next begins", []message{user("m1"), reply("m1", "stop", true), user("m2"), user("m3")}, "m2"},
		{"answered", []message{user("m1"), reply("m1", "stop", true)}, "m1"},
		{"an old one was never answered", []message{user("m1"), user("m2"), reply("m2", "stop", true), user("m3")}, "m3"},
	} {
		if got := runningTurn(tt.page); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
