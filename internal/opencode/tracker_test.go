package opencode

import (
	"fmt"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

func TestTrackerTurns(t *testing.T) {
	now := time.Now()
	tr := newTracker(nil, nil, time.Time{}, now)
	tr.note(session{ID: "ses_1", Directory: "/p"})
	tr.note(session{ID: "ses_child", Directory: "/p", ParentID: "ses_1"})
	tr.openTurn("ses_1", "msg_b", now)
	tr.openTurn("ses_1", "msg_a", now.Add(time.Second)) // an old ref, executed late
	tr.openTurn("ses_child", "msg_c", now)
	tr.openTurn("ses_none", "msg_d", now)
	if got := fmt.Sprint(tr.tell("ses_1"), tr.tell("ses_1"), tr.tell("ses_child")); got != "[msg_b msg_a] [] []" {
		t.Errorf("told %s", got)
	}
	if tr.turnOf("ses_1") != "msg_b" {
		t.Errorf("runs %q", tr.turnOf("ses_1"))
	}
	tr.sawMessage(info{ID: "msg_x", SessionID: "ses_1", Role: "assistant", ParentID: "msg_a"})
	if tr.turnOf("ses_1") != "msg_a" {
		t.Errorf("answered is %q", tr.turnOf("ses_1"))
	}
	if !tr.endTurn("ses_1", "msg_a", wire.OutcomeDone) || tr.endTurn("ses_1", "msg_a", wire.OutcomeDone) {
		t.Error("a turn must end exactly once")
	}
	tr.openTurn("ses_1", "msg_a", now) // its message is updated after its end
	if open := tr.openTurns("ses_1"); len(open) != 1 || open[0].ref != "msg_b" {
		t.Errorf("open %+v", open)
	}
}

func TestTrackerRequests(t *testing.T) {
	tr := newTracker(nil, []wire.ExecRequest{{ID: "per_0", Exact: []byte("journalled")}}, time.Time{}, time.Now())
	if tr.openRequest(wire.ExecRequest{ID: "per_0", Exact: []byte("other bytes")}) {
		t.Error("what the journal had open opened again")
	}
	if r, _ := tr.request("per_0"); string(r.Exact) != "journalled" {
		t.Errorf("the bytes changed to %s", r.Exact)
	}
	if _, open := tr.closeRequest("per_0", wire.DecisionAllowed); !open {
		t.Error("it was open")
	}
	if _, open := tr.closeRequest("per_0", wire.DecisionDenied); open {
		t.Error("closed twice")
	}
	if tr.openRequest(wire.ExecRequest{ID: "per_0"}) {
		t.Error("opened again after its end")
	}
}

func TestTrackerStates(t *testing.T) {
	now := time.Now()
	tr := newTracker([]wire.ExecTurn{{SessionID: "ses_1", Ref: realID}}, nil, time.Time{}, time.UnixMilli(realMillis))
	if _, ok := tr.find("ses_1"); ok {
		t.Error("a session that was never read is known")
	}
	tr.note(session{ID: "ses_1", Directory: "/p"})
	if open := tr.openTurns("ses_1"); len(open) != 1 || open[0].created.UnixMilli() != realMillis {
		t.Errorf("reading the session lost its turn: %+v", open)
	}
	for i, step := range []struct {
		st      status
		changed bool
		watched bool
	}{
		{status{Type: "idle"}, false, false},
		{status{Type: "busy"}, true, false},
		{status{Type: "busy"}, false, false},
		{status{Type: "retry", Message: "m"}, true, false},
		{status{Type: "idle"}, true, true},
		{status{}, false, true},
	} {
		if got := tr.setState("ses_1", step.st, now); got != step.changed {
			t.Errorf("step %d: changed %v", i, got)
		}
		if s, _ := tr.find("ses_1"); s.watched != step.watched {
			t.Errorf("step %d: watched %v", i, s.watched)
		}
	}
	tr.setState("ses_1", status{Type: "busy"}, now)
	tr.reborn()
	if s, _ := tr.find("ses_1"); s.state != wire.SessionIdle || s.watched {
		t.Errorf("after a restart %+v", s)
	}
}

func TestBounds(t *testing.T) {
	r := newRecent[int](3)
	for i := range 5 {
		r.put(fmt.Sprint(i), i)
		r.put("4", i)
	}
	if _, ok := r.get("0"); ok || len(r.items) != 3 || len(r.order) != 3 {
		t.Errorf("kept %v", r.items)
	}
	tr := newTracker(nil, nil, time.Time{}, time.Now())
	tr.note(session{ID: "ses_busy", Directory: "/p"})
	tr.openTurn("ses_busy", "msg_1", time.Now())
	for i := range maxSessions + 10 {
		tr.note(session{ID: fmt.Sprintf("ses_%d", i), Directory: fmt.Sprintf("/p/%d", i)})
	}
	if n := len(tr.all()); n != maxSessions {
		t.Errorf("%d sessions are remembered", n)
	}
	if len(tr.openTurns("ses_busy")) != 1 {
		t.Error("a session with an open turn was forgotten")
	}
	if n := len(tr.moreDirectories([]string{"/p"}, func(string) bool { return true })); n != 1+maxDirectories {
		t.Errorf("%d folders", n)
	}
}
