//go:build opencode

package opencode

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// TestKinds drives every kind of command on one real OpenCode.
func TestKinds(t *testing.T) {
	d := startDesk(t, testOptions(t, t.TempDir()))
	for _, step := range []struct {
		name string
		run  func(*testing.T, *desk)
	}{
		{"prompt", testPrompt},
		{"history", testHistory},
		{"repeat", testRepeat},
		{"allow", testAllow},
		{"deny", testDeny},
		{"question", testQuestion},
		{"abort", testAbort},
		{"abort while waiting", testAbortWaiting},
		{"fail", testFail},
		{"retry", testRetry},
		{"subagent", testSubagent},
		{"queue", testQueue},
		{"projects", testProjects},
		{"refusals", testRefusals},
		{"find", testFind},
		{"find decisions", testFindDecisions},
		{"sockets", testSockets},
	} {
		t.Run(step.name, func(t *testing.T) {
			sub := &desk{Executor: d.Executor, t: t, more: make(chan struct{})}
			watch(t, d, sub)
			step.run(t, sub)
		})
	}
}

// watch gives a subtest the parent's events from now on.
func watch(t *testing.T, parent, sub *desk) {
	parent.mu.Lock()
	from := len(parent.events)
	parent.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			parent.mu.Lock()
			news, more := parent.events[from:], parent.more
			from = len(parent.events)
			parent.mu.Unlock()
			for _, ev := range news {
				sub.sink(ev)
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func testPrompt(t *testing.T, d *desk) {
	id := chance(16)
	r := d.must(wire.ExecCommand{ID: id, Kind: kindCreate, Title: "first"})
	if r.Session.Title != "first" || r.Session.Project != "one" || r.Session.State != wire.SessionIdle {
		t.Errorf("created %+v", r.Session)
	}
	session := r.Session.ID
	d.await("the new session", func(ev wire.ExecEvent) bool {
		return ev.Type == wire.ExecSessionChanged && ev.SessionID == session && ev.Session.Title == "first"
	})
	ref := d.send(session, "say: hello from the model")
	d.ends(ref, wire.OutcomeDone)
	var text strings.Builder
	for _, ev := range d.all(func(ev wire.ExecEvent) bool { return ev.Type == wire.ExecText && ev.CommandRef == ref }) {
		var delta struct {
			Delta string `json:"delta"`
		}
		if err := json.Unmarshal(ev.Data, &delta); err != nil || ev.Role != "assistant" {
			t.Errorf("text event %+v: %v", ev, err)
		}
		text.WriteString(delta.Delta)
	}
	if text.String() != "hello from the model" {
		t.Errorf("streamed %q", text.String())
	}
	own := d.all(func(ev wire.ExecEvent) bool {
		return ev.Type == wire.ExecPart && ev.MessageID == ref && ev.Role == "user" && ev.CommandRef == ref
	})
	if len(own) == 0 {
		t.Error("the prompt's own text was not reported as the user's")
	}
	status := d.must(wire.ExecCommand{Kind: kindStatus})
	if len(status.Sessions) == 0 || status.Sessions[0].ID != session || status.Sessions[0].State != wire.SessionIdle {
		t.Errorf("status %+v", status.Sessions)
	}
}

func testHistory(t *testing.T, d *desk) {
	s := d.create("", "history")
	var refs []string
	for _, text := range []string{"say: a", "say: b", "say: c"} {
		refs = append(refs, d.send(s, text))
		d.ends(refs[len(refs)-1], wire.OutcomeDone)
	}
	page := d.must(wire.ExecCommand{Kind: kindHistory, SessionID: s, Limit: 2}).History
	if len(page.Messages) != 2 || page.Messages[0].ID != refs[2] || page.Messages[1].ParentID != refs[2] || page.Next == "" {
		t.Fatalf("newest page %+v", page)
	}
	for _, cursor := range []string{page.Next, page.Messages[0].ID} {
		older := d.must(wire.ExecCommand{Kind: kindHistory, SessionID: s, Limit: 2, Cursor: cursor}).History
		if len(older.Messages) != 2 || older.Messages[0].ID != refs[1] || older.Messages[1].Role != "assistant" {
			t.Errorf("page before %q: %+v", cursor, older)
		}
	}
	all := d.must(wire.ExecCommand{Kind: kindHistory, SessionID: s}).History
	if len(all.Messages) != 6 || all.Next != "" || !bytes.Contains(all.Messages[0].Parts[0], []byte("say: a")) {
		t.Errorf("whole history %+v", all)
	}
	d.refuses(wire.ExecInvalid, wire.ExecCommand{Kind: kindHistory, SessionID: s, Limit: pageMax + 1})
}

// testRepeat: executing a prompt again under its ref neither appends nor runs again.
func testRepeat(t *testing.T, d *desk) {
	s := d.create("", "repeat")
	c := wire.ExecCommand{Kind: kindPrompt, Ref: d.Prepare(kindPrompt), SessionID: s, Text: "slow: 5"}
	d.must(c)
	d.must(c) // while it runs
	d.ends(c.Ref, wire.OutcomeDone)
	d.must(c) // after it ended
	list := d.must(wire.ExecCommand{Kind: kindHistory, SessionID: s}).History.Messages
	if len(list) != 2 || len(list[0].Parts) != 1 {
		t.Errorf("after three times: %d messages, %d parts", len(list), len(list[0].Parts))
	}
}

func testAllow(t *testing.T, d *desk) {
	s := d.create("", "allow")
	ref := d.send(s, "run: echo approved > out.txt")
	r := d.asks(ref)
	if r.Kind != wire.RequestPermission || r.Permission != "bash" || r.SessionID != s || r.RootID != s || r.Project != "one" {
		t.Errorf("request %+v", r)
	}
	list, err := d.Requests(t.Context())
	if err != nil || len(list) != 1 || !bytes.Equal(list[0].Exact, r.Exact) {
		t.Errorf("listed %+v, %v: other bytes than were shown", list, err)
	}
	status := d.must(wire.ExecCommand{Kind: kindStatus})
	if len(status.Requests) != 1 || status.Sessions[0].State != wire.SessionBusy || status.Sessions[0].TurnID != ref {
		t.Errorf("status %+v", status)
	}
	if got := d.must(wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: r.ID, Allow: true}); got.Decision != wire.DecisionAllowed {
		t.Errorf("decision %+v", got)
	}
	d.closes(r.ID, wire.DecisionAllowed)
	d.ends(ref, wire.OutcomeDone)
	out, err := os.ReadFile(filepath.Join(d.opts.Projects[0].Dir, "out.txt"))
	if err != nil || string(out) != "approved\n" {
		t.Errorf("the command wrote %q, %v", out, err)
	}
	d.refuses(wire.ExecDecided, wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: r.ID})
	// Once means once: the same command asks again.
	again := d.send(s, "run: echo approved > out.txt")
	second := d.asks(again)
	d.must(wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: second.ID})
	d.ends(again, wire.OutcomeDone)
}

func testDeny(t *testing.T, d *desk) {
	s := d.create("", "deny")
	ref := d.send(s, "edit: denied.txt text")
	r := d.asks(ref)
	if r.Permission != "edit" {
		t.Errorf("request %+v", r)
	}
	d.must(wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: r.ID, Allow: false})
	d.closes(r.ID, wire.DecisionDenied)
	d.ends(ref, wire.OutcomeDone)
	if _, err := os.Stat(filepath.Join(d.opts.Projects[0].Dir, "denied.txt")); err == nil {
		t.Error("a denied edit was made")
	}
	if list := d.must(wire.ExecCommand{Kind: kindHistory, SessionID: s}).History.Messages; len(list) != 2 {
		t.Errorf("the turn went on after a plain no: %d messages", len(list))
	}
	// With a reason the model hears it and answers.
	ref = d.send(s, "run: echo never")
	r = d.asks(ref)
	d.must(wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: r.ID, Reason: "use the other folder"})
	d.closes(r.ID, wire.DecisionDenied)
	d.ends(ref, wire.OutcomeDone)
	list := d.must(wire.ExecCommand{Kind: kindHistory, SessionID: s}).History.Messages
	if last := list[len(list)-1]; !bytes.Contains(joined(last.Parts), []byte("use the other folder")) {
		t.Errorf("the model did not hear the reason: %s", joined(last.Parts))
	}
}

// joined is all parts of a message as one text.
func joined(parts []json.RawMessage) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func testQuestion(t *testing.T, d *desk) {
	s := d.create("", "question")
	ref := d.send(s, "ask: red? | green?")
	r := d.asks(ref)
	if r.Kind != wire.RequestQuestion || !bytes.Contains(r.Exact, []byte("green?")) {
		t.Errorf("request %+v", r)
	}
	d.refuses(wire.ExecInvalid, wire.ExecCommand{Kind: kindReply, SessionID: s, RequestID: r.ID, Answers: [][]string{{"Yes"}}})
	d.must(wire.ExecCommand{Kind: kindReply, SessionID: s, RequestID: r.ID, Answers: [][]string{{"Yes"}, {"my own words"}}})
	d.closes(r.ID, wire.DecisionAnswered)
	d.ends(ref, wire.OutcomeDone)
	list := d.must(wire.ExecCommand{Kind: kindHistory, SessionID: s}).History.Messages
	if !bytes.Contains(joined(list[len(list)-1].Parts), []byte("my own words")) {
		t.Error("the model did not get the answer")
	}
	ref = d.send(s, "ask: blue?")
	r = d.asks(ref)
	d.must(wire.ExecCommand{Kind: kindReject, SessionID: s, RequestID: r.ID})
	d.closes(r.ID, wire.DecisionRejected)
	d.ends(ref, wire.OutcomeDone)
}

func testAbort(t *testing.T, d *desk) {
	s := d.create("", "abort")
	first := d.send(s, "say: done at once")
	d.ends(first, wire.OutcomeDone)
	d.refuses(wire.ExecNotRunning, wire.ExecCommand{Kind: kindAbort, SessionID: s, MessageID: first})
	ref := d.send(s, "slow: 300")
	d.await("text", func(ev wire.ExecEvent) bool { return ev.Type == wire.ExecText && ev.CommandRef == ref })
	d.refuses(wire.ExecNotRunning, wire.ExecCommand{Kind: kindAbort, SessionID: s, MessageID: first})
	d.must(wire.ExecCommand{Kind: kindAbort, SessionID: s, MessageID: ref})
	next := d.send(s, "say: right after") // between the two idles of an abort
	d.ends(ref, wire.OutcomeAborted)
	d.ends(next, wire.OutcomeDone)
	d.refuses(wire.ExecNotRunning, wire.ExecCommand{Kind: kindAbort, SessionID: s})
}

// testAbortWaiting: OpenCode keeps a request of an aborted turn in its list; we do not.
func testAbortWaiting(t *testing.T, d *desk) {
	s := d.create("", "abort waiting")
	ref := d.send(s, "run: echo waits")
	r := d.asks(ref)
	d.must(wire.ExecCommand{Kind: kindAbort, SessionID: s, MessageID: ref})
	d.refuses(wire.ExecNotPending, wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: r.ID, Allow: true})
	d.closes(r.ID, wire.DecisionLost)
	d.ends(ref, wire.OutcomeAborted)
	if list, err := d.Requests(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("still open: %+v, %v", list, err)
	}
	// The leftover does not come back when the session runs again.
	ref = d.send(s, "slow: 5")
	if list, err := d.Requests(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("open again: %+v, %v", list, err)
	}
	d.refuses(wire.ExecNotPending, wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: r.ID, Allow: true})
	d.ends(ref, wire.OutcomeDone)
}

func testFail(t *testing.T, d *desk) {
	s := d.create("", "fail")
	ref := d.send(s, "fail: 400")
	if end := d.ends(ref, wire.OutcomeError); errorName(end.Data) != "APIError" {
		t.Errorf("error %s", end.Data)
	}
	ref = d.send(s, "say: works again")
	d.ends(ref, wire.OutcomeDone)
}

func testRetry(t *testing.T, d *desk) {
	s := d.create("", "retry")
	ref := d.send(s, "drop:")
	ev := d.await("retry", func(ev wire.ExecEvent) bool {
		return ev.Type == wire.ExecSessionChanged && ev.SessionID == s && ev.Session.State == wire.SessionRetry
	})
	if ev.Session.Retry == "" || ev.Session.TurnID != ref {
		t.Errorf("retry %+v", ev.Session)
	}
	d.must(wire.ExecCommand{Kind: kindAbort, SessionID: s, MessageID: ref})
	d.ends(ref, wire.OutcomeAborted)
}

// testSubagent: a request of a subagent's session is known under the session people see.
func testSubagent(t *testing.T, d *desk) {
	s, other := d.create("", "subagent"), d.create("", "other")
	ref := d.send(s, "task: run: echo below")
	r := d.asks(ref)
	if r.SessionID == s || r.RootID != s {
		t.Errorf("request %+v", r)
	}
	d.refuses(wire.ExecNotFound, wire.ExecCommand{Kind: kindAllow, SessionID: other, RequestID: r.ID, Allow: true})
	d.must(wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: r.ID, Allow: true})
	d.closes(r.ID, wire.DecisionAllowed)
	d.ends(ref, wire.OutcomeDone)
	turns := d.all(func(ev wire.ExecEvent) bool { return ev.Type == wire.ExecTurnStarted })
	if len(turns) != 1 {
		t.Errorf("the subagent's turns were reported too: %+v", turns)
	}
}

// testQueue: a prompt sent while a turn runs is a turn of its own; both end once.
func testQueue(t *testing.T, d *desk) {
	s := d.create("", "queue")
	first := d.send(s, "slow: 10")
	second := d.send(s, "say: queued")
	d.refuses(wire.ExecNotRunning, wire.ExecCommand{Kind: kindAbort, SessionID: s, MessageID: second})
	d.ends(second, wire.OutcomeDone)
	d.ends(first, wire.OutcomeDone)
	// What waits behind an aborted turn is dropped with it.
	first = d.send(s, "slow: 300")
	second = d.send(s, "say: never answered")
	d.must(wire.ExecCommand{Kind: kindAbort, SessionID: s, MessageID: first})
	d.ends(first, wire.OutcomeAborted)
	d.ends(second, wire.OutcomeAborted)
}

func testProjects(t *testing.T, d *desk) {
	s := d.create("two", "elsewhere")
	ref := d.send(s, "run: pwd > where.txt")
	r := d.asks(ref)
	if r.Project != "two" {
		t.Errorf("request %+v", r)
	}
	d.must(wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: r.ID, Allow: true})
	d.ends(ref, wire.OutcomeDone)
	dir := d.opts.Projects[1].Dir
	if out, err := os.ReadFile(filepath.Join(dir, "where.txt")); err != nil || strings.TrimSpace(string(out)) != dir {
		t.Errorf("ran in %q, %v", out, err)
	}
	for _, v := range d.must(wire.ExecCommand{Kind: kindStatus}).Sessions {
		if v.ID == s && v.Project != "two" {
			t.Errorf("status %+v", v)
		}
	}
}

func testRefusals(t *testing.T, d *desk) {
	s := d.create("", "refusals")
	d.refuses(wire.ExecUnsupported, wire.ExecCommand{Kind: "revoke_pairing"})
	d.refuses(wire.ExecNotFound, wire.ExecCommand{Kind: kindCreate, Project: "three"})
	d.refuses(wire.ExecNotFound, wire.ExecCommand{Kind: kindPrompt, Ref: d.Prepare(kindPrompt), SessionID: "ses_unknown", Text: "say: x"})
	d.refuses(wire.ExecNotFound, wire.ExecCommand{Kind: kindAbort, SessionID: "ses_unknown"})
	d.refuses(wire.ExecInvalid, wire.ExecCommand{Kind: kindPrompt, Ref: d.Prepare(kindPrompt), SessionID: "../global/dispose", Text: "say: x"})
	d.refuses(wire.ExecInvalid, wire.ExecCommand{Kind: kindPrompt, Ref: d.Prepare(kindPrompt), SessionID: s, Text: " \n"})
	d.refuses(wire.ExecInvalid, wire.ExecCommand{Kind: kindPrompt, SessionID: s, Text: "say: x"})
	d.refuses(wire.ExecInvalid, wire.ExecCommand{Kind: kindPrompt, Ref: d.Prepare(kindPrompt), SessionID: s, Text: "say: x", Agent: "nobody"})
	d.refuses(wire.ExecNotPending, wire.ExecCommand{Kind: kindAllow, SessionID: s, RequestID: "per_unknown", Allow: true})
	d.refuses(wire.ExecNotPending, wire.ExecCommand{Kind: kindReject, SessionID: s, RequestID: "que_unknown"})
	d.refuses(wire.ExecInvalid, wire.ExecCommand{Kind: kindReject, SessionID: s, RequestID: "per_unknown"})
	if list := d.must(wire.ExecCommand{Kind: kindHistory, SessionID: s}).History.Messages; len(list) != 0 {
		t.Errorf("something was stored: %+v", list)
	}
	// A session in a folder that the owner did not name does not exist.
	_, ep, _ := d.runtime.see()
	var outside session
	if _, err := ep.call(t.Context(), "POST", "/session", t.TempDir(), nil, map[string]any{}, &outside); err != nil {
		t.Fatal(err)
	}
	d.refuses(wire.ExecNotFound, wire.ExecCommand{Kind: kindHistory, SessionID: outside.ID})
	d.refuses(wire.ExecNotFound, wire.ExecCommand{Kind: kindPrompt, Ref: d.Prepare(kindPrompt), SessionID: outside.ID, Text: "say: x"})
	for _, v := range d.must(wire.ExecCommand{Kind: kindStatus}).Sessions {
		if v.ID == outside.ID {
			t.Error("status lists a session outside the projects")
		}
	}
	if list := d.all(func(ev wire.ExecEvent) bool { return ev.SessionID == outside.ID }); len(list) != 0 {
		t.Errorf("events of a session outside the projects: %+v", list)
	}
}

// found asks what became of a command as an agent would after a crash: with an executor
// that remembers nothing, and whose process began when the old one is long gone.
func found(t *testing.T, d *desk, c wire.ExecCommand, ago time.Duration) wire.ExecFound {
	t.Helper()
	o := d.opts
	fresh, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	h, ep, _ := d.runtime.see()
	fresh.runtime.set(h.State, "", ep, nil)
	fresh.born = time.Now().Add(-ago)
	c.StartedAt = fresh.born.Add(-time.Second)
	f, err := fresh.Find(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func testFind(t *testing.T, d *desk) {
	long := arrival + time.Second
	s := d.create("", "find")
	// started, nothing was sent.
	c := wire.ExecCommand{ID: chance(16), Kind: kindPrompt, Ref: d.Prepare(kindPrompt), SessionID: s, Text: "say: once"}
	if f := found(t, d, c, time.Second); f.State != wire.FoundUnknown || f.RetryAfter <= 0 || f.RetryAfter > arrival {
		t.Errorf("just after a crash: %+v", f)
	}
	if f := found(t, d, c, long); f.State != wire.FoundAbsent {
		t.Errorf("after the time in which it could arrive: %+v", f)
	}
	// sent, nobody heard the answer.
	d.must(c)
	d.ends(c.Ref, wire.OutcomeDone)
	if f := found(t, d, c, time.Second); f.State != wire.FoundRan || f.Result.MessageID != c.Ref || f.Result.Session.ID != s {
		t.Errorf("a stored prompt: %+v", f)
	}
	made := wire.ExecCommand{ID: chance(16), Kind: kindCreate, Project: "two"}
	if f := found(t, d, made, long); f.State != wire.FoundAbsent {
		t.Errorf("a session that was not created: %+v", f)
	}
	r := d.must(made)
	if f := found(t, d, made, 0); f.State != wire.FoundRan || f.Result.Session.ID != r.Session.ID {
		t.Errorf("a created session: %+v", f)
	}
	ref := d.send(s, "slow: 300")
	stop := wire.ExecCommand{ID: chance(16), Kind: kindAbort, SessionID: s, MessageID: ref}
	if f := found(t, d, stop, long); f.State != wire.FoundAbsent {
		t.Errorf("an abort of a turn that runs: %+v", f)
	}
	d.must(stop)
	d.ends(ref, wire.OutcomeAborted)
	if f := found(t, d, stop, 0); f.State != wire.FoundRan || f.Err != nil {
		t.Errorf("an abort of a turn that ended: %+v", f)
	}
	if f := found(t, d, wire.ExecCommand{Kind: kindStatus}, 0); f.State != wire.FoundAbsent {
		t.Errorf("status: %+v", f)
	}
}

func testFindDecisions(t *testing.T, d *desk) {
	long := arrival + time.Second
	s := d.create("", "find decisions")
	ref := d.send(s, "run: sleep 2; echo slept")
	r := d.asks(ref)
	allow := wire.ExecCommand{ID: chance(16), Kind: kindAllow, SessionID: s, RequestID: r.ID, Allow: true, Request: &r}
	deny := allow
	deny.ID, deny.Allow = chance(16), false
	if f := found(t, d, allow, 0); f.State != wire.FoundUnknown || f.RetryAfter <= 0 {
		t.Errorf("open, just after a crash: %+v", f)
	}
	if f := found(t, d, allow, long); f.State != wire.FoundAbsent {
		t.Errorf("open: %+v", f)
	}
	d.must(allow)
	check := func(when string) {
		if f := found(t, d, allow, 0); f.State != wire.FoundRan || f.Err != nil || f.Result.Decision != wire.DecisionAllowed {
			t.Errorf("allowed, %s: %+v", when, f)
		}
		if f := found(t, d, deny, 0); f.State != wire.FoundRan || f.Err == nil || f.Err.Code != wire.ExecDecided {
			t.Errorf("denied, but allowed by another, %s: %+v", when, f)
		}
	}
	check("while the tool runs")
	d.ends(ref, wire.OutcomeDone)
	check("after it ended")
	blind := allow
	blind.Request = nil
	if f := found(t, d, blind, 0); f.State != wire.FoundUnknown || f.RetryAfter != 0 {
		t.Errorf("without its request nobody can tell: %+v", f)
	}
	ref = d.send(s, "ask: sure?")
	q := d.asks(ref)
	answer := wire.ExecCommand{ID: chance(16), Kind: kindReply, SessionID: s, RequestID: q.ID, Answers: [][]string{{"Yes"}}, Request: &q}
	d.must(answer)
	d.ends(ref, wire.OutcomeDone)
	if f := found(t, d, answer, 0); f.State != wire.FoundRan || f.Err != nil || f.Result.Decision != wire.DecisionAnswered {
		t.Errorf("answered: %+v", f)
	}
	other := answer
	other.Answers = [][]string{{"No"}}
	if f := found(t, d, other, 0); f.State != wire.FoundRan || f.Err == nil {
		t.Errorf("answered otherwise by another: %+v", f)
	}
}
