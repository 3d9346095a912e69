package agent

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

func TestStatusShowsWhatTheScopeMaySee(t *testing.T) {
	d := newDesktop(t)
	boss, phone := d.link("boss", proof.ScopeDecide), d.link("phone", proof.ScopePrompt)
	d.boot()
	d.ask("per_1", wire.RequestPermission, d32(7))
	d.exec.set(func(f *fakeExecutor) {
		f.result = func(wire.ExecCommand) wire.ExecResult {
			return wire.ExecResult{Sessions: []wire.ExecSession{
				{ID: "s", Title: "fix /home/me/app", Directory: "/home/me/app", State: wire.SessionBusy, UpdatedAt: time.UnixMilli(5)},
				{ID: "idle", Title: "other", State: wire.SessionIdle},
			}}
		}
	})
	ask := func(p *phoneRef) wire.ResultBody {
		_, body := d.result(p, d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived))
		return body
	}
	body := ask(boss)
	if len(body.Requests) != 1 || string(body.Requests[0]) != `{"id":"per_1"}` {
		t.Fatalf("not the published bytes: %q", body.Requests)
	}
	if body.Sessions[0].State != sessionWaiting || body.Sessions[1].State != wire.SessionIdle || body.Sessions[0].Updated != 5 {
		t.Fatalf("%+v", body.Sessions)
	}
	if raw := asJSON(t, body); strings.Contains(raw, "/home/me") || !json.Valid(body.Policy) {
		t.Fatalf("a path left the desktop: %s", raw)
	}
	if body := ask(phone); len(body.Requests) != 0 || len(body.Sessions) != 2 {
		t.Fatalf("without decide: %+v", body)
	}
	d.record(d.agent.journal, journal.SetPolicy(d.id, []byte(`{"showRequests":"nobody"}`)))
	if body := ask(boss); len(body.Requests) != 0 {
		t.Fatalf("shown although the policy says nobody: %+v", body)
	}
}

func TestHistoryIsRedactedAndFits(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	part := func(text string) json.RawMessage {
		return json.RawMessage(asJSON(t, map[string]string{"id": "prt", "type": "text", "text": text}))
	}
	var page wire.ExecPage
	for i := range 120 {
		page.Messages = append(page.Messages, wire.ExecMessage{
			ID: "msg_" + string(rune('a'+i%26)), Role: "assistant", CreatedAt: time.UnixMilli(int64(i + 1)),
			Parts: []json.RawMessage{part("key sk-ant-REDACTED in /home/me/x " + strings.Repeat("word ", 2000))},
			Error: json.RawMessage(`{"name":"APIError","data":{"message":"see /home/me/log"}}`),
		})
	}
	d.exec.set(func(f *fakeExecutor) {
		f.result = func(wire.ExecCommand) wire.ExecResult { return wire.ExecResult{History: &page} }
	})
	_, body := d.result(p, d.deliver(d.command(p, proof.History, wire.History{SessionID: "s"}), deliveredReceived))
	if len(body.Messages) == 0 || len(body.Messages) == 120 || !body.More {
		t.Fatalf("%d messages, more %v", len(body.Messages), body.More)
	}
	last := body.Messages[len(body.Messages)-1]
	if last.Created != 120 || !strings.Contains(last.Parts[0].Text, "word") {
		t.Fatalf("the newest is not last: %+v", last.Created)
	}
	if raw := asJSON(t, body); strings.Contains(raw, "/home/me") || strings.Contains(raw, "sk-ant-api03") {
		t.Fatal("a path or a secret left the desktop")
	}
}

// A message that fits no page is named without its parts; a page that showed nothing would be asked for for ever.
func TestHistoryPassesAMessageThatIsTooLong(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	long := wire.ExecMessage{ID: "msg_long", Role: "assistant", CreatedAt: time.UnixMilli(2)}
	for i := range 200 {
		long.Parts = append(long.Parts, json.RawMessage(asJSON(t, map[string]string{
			"id": "prt" + strconv.Itoa(i), "type": "text", "text": strings.Repeat("word ", 3000),
		})))
	}
	page := wire.ExecPage{Messages: []wire.ExecMessage{{ID: "msg_before", Role: "user", CreatedAt: time.UnixMilli(1)}, long}}
	d.exec.set(func(f *fakeExecutor) {
		f.result = func(wire.ExecCommand) wire.ExecResult { return wire.ExecResult{History: &page} }
	})
	_, body := d.result(p, d.deliver(d.command(p, proof.History, wire.History{SessionID: "s"}), deliveredReceived))
	if len(body.Messages) != 2 || body.Messages[1].ID != "msg_long" || len(body.Messages[1].Parts) != 0 || body.Messages[1].Error == "" {
		t.Fatalf("%+v", body.Messages)
	}
}

func TestTooLargeResultSaysSo(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	d.exec.set(func(f *fakeExecutor) {
		f.result = func(wire.ExecCommand) wire.ExecResult {
			r := wire.ExecResult{}
			for range 30000 {
				r.Sessions = append(r.Sessions, wire.ExecSession{ID: "s", Title: strings.Repeat("t", 40)})
			}
			return r
		}
	})
	_, body := d.result(p, d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived))
	if !body.OK || body.Code != reasonTooLarge {
		t.Fatalf("%+v", body)
	}
}

func TestReportLeavesRoom(t *testing.T) {
	room := maxReportResults
	big := journal.Row{Command: "cmd_1", State: journal.Done, Verdict: wire.StateCompleted, Result: make([]byte, maxReportResults)}
	if r := reportRow(big, &room); r.State != journal.Done || r.Result == nil || len(r.Result.Sealed) != maxReportResults {
		t.Fatalf("%s %v", r.State, r.Result)
	}
	small := journal.Row{Command: "cmd_2", State: journal.Done, Verdict: wire.StateCompleted, Result: []byte{1}}
	if r := reportRow(small, &room); r.State != journal.Started || r.Result != nil {
		t.Fatalf("%+v", r)
	}
}

func TestTokensAreForgotten(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	command := d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived)
	d.result(p, command)
	l := d.run.live()
	d.settled("that the token is forgotten", func() bool { return l.token(command) == nil })
	for i := range maxTokens + 1 {
		l.setToken(strconv.Itoa(i), wire.Bytes{1})
	}
	if n := len(l.tokens); n > maxTokens {
		t.Fatalf("%d tokens", n)
	}
	if l.token(strconv.Itoa(maxTokens)) == nil {
		t.Fatal("the newest token was forgotten")
	}
}
