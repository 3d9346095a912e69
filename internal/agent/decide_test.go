package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

func approve(id string, digest wire.Bytes) wire.Decision {
	return wire.Decision{SessionID: "s", RequestID: id, RequestSHA256: digest, Decision: decideAllow, ShownAt: 1}
}

func TestTwoSurfacesRaceForOneApproval(t *testing.T) {
	d := newDesktop(t)
	phone, tablet := d.link("phone", proof.ScopeDecide), d.link("tablet", proof.ScopeDecide)
	d.boot()
	d.ask("per_1", wire.RequestPermission, d32(7))
	running, release := make(chan wire.ExecCommand, 1), make(chan struct{})
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(c wire.ExecCommand) error { running <- c; <-release; return nil }
	})
	first := d.deliver(d.command(phone, proof.PermissionRespond, approve("per_1", d32(7))), deliveredReceived)
	cmd := <-running
	if !cmd.Allow || cmd.Request == nil || cmd.Request.CallID != "call_per_1" {
		t.Fatalf("%+v", cmd)
	}
	second := d.deliver(d.command(tablet, proof.PermissionRespond, approve("per_1", d32(7))), deliveredRefused)
	if _, body := d.result(tablet, second); body.Code != reasonDecided || body.DecidedBy != "phone" || !strings.Contains(body.Message, "phone") {
		t.Fatalf("while it is carried out: %+v", body)
	}
	close(release)
	if _, body := d.result(phone, first); !body.OK {
		t.Fatalf("%+v", body)
	}
	third := d.deliver(d.command(tablet, proof.PermissionRespond, approve("per_1", d32(7))), deliveredRefused)
	if _, body := d.result(tablet, third); body.Code != reasonDecided || body.DecidedBy != "phone" {
		t.Fatalf("afterwards: %+v", body)
	}
	q, err := d.agent.journal.Request(t.Context(), d.id, "per_1")
	if err != nil || q.Outcome != wire.DecisionAllowed || q.DecidedBy != "phone" || q.Closed.IsZero() {
		t.Fatalf("%+v %v", q, err)
	}
	if !d.rec.has("close per_1 allowed phone") {
		t.Fatalf("not published: %v", d.rec.calls)
	}
}

// Both decisions are in the inbox before either starts: the transaction that starts one decides.
func TestRaceIsDecidedWhereItStarts(t *testing.T) {
	d := newDesktop(t)
	phone, tablet := d.link("phone", proof.ScopeDecide), d.link("tablet", proof.ScopeDecide)
	d.boot()
	d.ask("per_1", wire.RequestPermission, d32(7))
	if _, err := d.run.setPolicy(t.Context(), []byte(`{"remoteApprovals":"local_confirmation","showRequests":"decide"}`)); err != nil {
		t.Fatal(err)
	}
	a := d.deliver(d.command(phone, proof.PermissionRespond, approve("per_1", d32(7))), deliveredWaiting)
	b := d.deliver(d.command(tablet, proof.PermissionRespond, approve("per_1", d32(7))), deliveredWaiting)
	for _, command := range []string{a, b} {
		if err := d.run.allow(t.Context(), command); err != nil {
			t.Fatal(err)
		}
	}
	_, one := d.result(phone, a)
	_, two := d.result(tablet, b)
	if one.OK == two.OK || d.exec.total() != 1 {
		t.Fatalf("%+v %+v, executed %v", one, two, d.exec.calls)
	}
	if lost := one.Code + two.Code; lost != reasonDecided {
		t.Fatalf("%+v %+v", one, two)
	}
}

func TestStaleOrAlteredApprovals(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopeDecide)
	d.boot()
	d.ask("per_1", wire.RequestPermission, d32(7))
	d.ask("per_lost", wire.RequestPermission, d32(8))
	d.record(d.agent.journal, journal.CloseRequest(d.id, "per_lost", wire.DecisionLost, journal.Desk, d.now()))
	other := approve("per_1", d32(7))
	other.SessionID = "another"
	for name, c := range map[string]struct {
		kind    proof.Kind
		payload wire.Decision
		code    string
	}{
		"another digest":      {proof.PermissionRespond, approve("per_1", d32(9)), reasonRequestChanged},
		"another session":     {proof.PermissionRespond, other, reasonRequestChanged},
		"never asked":         {proof.PermissionRespond, approve("per_2", d32(7)), reasonRequestGone},
		"lost meanwhile":      {proof.PermissionRespond, approve("per_lost", d32(8)), reasonRequestGone},
		"a question's answer": {proof.QuestionReject, wire.Decision{SessionID: "s", RequestID: "per_1", RequestSHA256: d32(7), Decision: decideReject}, reasonRequestChanged},
	} {
		command := d.deliver(d.command(p, c.kind, c.payload), deliveredRefused)
		if _, body := d.result(p, command); body.OK || body.Code != c.code {
			t.Errorf("%s: %+v", name, body)
		}
	}
	if d.exec.total() != 0 {
		t.Fatal("a stale approval reached the executor")
	}
}

func TestFailedDecisionGivesTheRequestBack(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopeDecide)
	d.boot()
	d.ask("per_1", wire.RequestPermission, d32(7))
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(wire.ExecCommand) error {
			return &wire.ExecError{Code: wire.ExecUnavailable, Message: "cannot open /home/me/secret now"}
		}
	})
	command := d.deliver(d.command(p, proof.PermissionRespond, approve("per_1", d32(7))), deliveredReceived)
	if _, body := d.result(p, command); body.Code != wire.ExecUnavailable || strings.Contains(body.Message, "/home/me") {
		t.Fatalf("%+v", body)
	}
	for code, want := range map[string]string{wire.ExecDecided: reasonDecided, wire.ExecNotPending: reasonRequestGone} {
		d.exec.set(func(f *fakeExecutor) {
			f.do = func(wire.ExecCommand) error { return &wire.ExecError{Code: code, Message: "x"} }
		})
		command = d.deliver(d.command(p, proof.PermissionRespond, approve("per_1", d32(7))), deliveredReceived)
		if _, body := d.result(p, command); body.Code != want {
			t.Fatalf("%s: %+v", code, body)
		}
	}
	d.exec.set(func(f *fakeExecutor) { f.do = nil })
	command = d.deliver(d.command(p, proof.PermissionRespond, approve("per_1", d32(7))), deliveredReceived)
	if _, body := d.result(p, command); !body.OK {
		t.Fatalf("%+v", body)
	}
}

func TestLocalConfirmation(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopeDecide)
	d.boot()
	client := d.ready()
	ctx := t.Context()
	if _, err := client.SetPolicy(ctx, "", []byte(`{"remoteApprovals":"local_confirmation"}`)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"per_1", "per_2", "per_3", "per_4"} {
		d.ask(id, wire.RequestPermission, d32(7))
	}
	send := func(id string) string {
		return d.deliver(d.command(p, proof.PermissionRespond, approve(id, d32(7))), deliveredWaiting)
	}
	yes, no, late, gone := send("per_1"), send("per_2"), send("per_3"), send("per_4")
	waiting, err := client.Pending(ctx)
	if err != nil || len(waiting) != 4 || waiting[0].ID != yes || waiting[0].Label != "phone" || waiting[0].Decision != decideAllow ||
		!strings.Contains(waiting[0].Request, "per_1") {
		t.Fatalf("%+v %v", waiting, err)
	}
	if d.exec.total() != 0 {
		t.Fatal("it did not wait")
	}
	if err := client.Allow(ctx, yes); err != nil {
		t.Fatal(err)
	}
	if _, body := d.result(p, yes); !body.OK {
		t.Fatalf("%+v", body)
	}
	d.broker.until(t, "the confirmation", func() bool { return slices.Contains(d.broker.seen, wire.FrameAccepted) })
	if err := client.Deny(ctx, no); err != nil {
		t.Fatal(err)
	}
	if _, body := d.result(p, no); body.Code != reasonDenied {
		t.Fatalf("%+v", body)
	}
	for _, id := range []string{yes, no, "cmd_none"} {
		refused := &ControlError{}
		if err := client.Allow(ctx, id); !errors.As(err, &refused) || refused.Code != wire.CodeNotFound {
			t.Errorf("allow of %s: %v", id, err)
		}
	}
	d.restart() // what waits, waits on
	client = d.ready()
	d.shift(11 * time.Minute)
	if err := client.Allow(ctx, late); err == nil {
		t.Fatal("an expired command was allowed")
	}
	if _, body := d.result(p, late); body.Status != wire.StateExpired {
		t.Fatalf("%+v", body)
	}
	d.run.sweep(ctx)
	if _, body := d.result(p, gone); body.Status != wire.StateExpired {
		t.Fatalf("%+v", body)
	}
	d.wantLine("command.allowed allow")
	d.wantLine("command.allowed " + reasonDenied)
	if d.exec.total() != 1 {
		t.Fatalf("executed %v", d.exec.calls)
	}
}
