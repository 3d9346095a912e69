package broker

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

func TestCommandWaitsForADesktopThatSleeps(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.disconnect()
	raw := s.seal(proof.Prompt, wire.Prompt{SessionID: "ses_1", Text: "later"}, time.Hour)
	var c wire.Command
	status, p := w.exchange(w.public, http.MethodPost, w.base+s.commands()+"?wait=1", s.token, wire.CommandPost{Sealed: raw}, &c)
	if p != nil || status != http.StatusAccepted || c.State != wire.StateQueued || c.DesktopOnline || c.DesktopSince == 0 {
		t.Fatalf("%d %+v %+v", status, p, c)
	}
	d.connect()
	if c = s.get(c.ID, "?wait=20"); c.State != wire.StateCompleted {
		t.Errorf("after the desktop is back it is %s", c.State)
	}
}

func TestWaitAnswersInTimeAndNeverWithAnError(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.hold = true
	begin := time.Now()
	c := s.prompt("slow", "?wait=1")
	if took := time.Since(begin); took < time.Second || took > 5*time.Second {
		t.Errorf("wait=1 took %v", took)
	}
	if receive(t, "delivery", d.got) != c.ID {
		t.Error("another command was delivered")
	}
	eventually(t, "accepted", func() bool { return s.get(c.ID, "").State == wire.StateAccepted })
	if c := s.get(c.ID, "?wait=1"); c.State != wire.StateAccepted {
		t.Errorf("after a wait it is %s", c.State)
	}
	for _, q := range []string{"?wait=0", "?wait=26", "?wait=x", "?wait=-1", "?wait=1&wait=2"} {
		w.refused(http.MethodGet, at(wire.PathCommand, d.id, c.ID)+q, s.token, nil, 400, wire.CodeMalformed)
	}
}

func TestOrderIsHeldAndRepeatsAreTheSameCommand(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	raw := s.seal(proof.Prompt, wire.Prompt{SessionID: "ses_1", Text: "once"}, time.Hour)
	after := s.chain
	var first, again wire.Command
	w.ask(http.MethodPost, s.commands()+"?wait=20", s.token, wire.CommandPost{Sealed: raw}, &first)
	w.ask(http.MethodPost, s.commands(), s.token, wire.CommandPost{Sealed: raw}, &again)
	if first.ID != again.ID || again.State != wire.StateCompleted {
		t.Errorf("the repeat is %s (%s), the first %s", again.ID, again.State, first.ID)
	}
	for hash, n := range d.ran {
		if n != 1 {
			t.Errorf("envelope %s ran %d times", hash, n)
		}
	}
	gap := s.chain
	gap.Seq++
	s.chain = gap
	p := w.refused(http.MethodPost, s.commands(), s.token, wire.CommandPost{Sealed: s.seal(proof.Status, wire.Status{}, time.Minute)}, 409, wire.CodeOrderConflict)
	if p.ExpectedSeq != after.Seq+1 || !bytes.Equal(p.ExpectedPrev, after.Hash[:]) {
		t.Errorf("expected %d %x, told %d %x", after.Seq+1, after.Hash, p.ExpectedSeq, p.ExpectedPrev)
	}
	s.chain = proof.Chain{Seq: after.Seq, Hash: proof.Digest{1}}
	w.refused(http.MethodPost, s.commands(), s.token, wire.CommandPost{Sealed: s.seal(proof.Status, wire.Status{}, time.Minute)}, 409, wire.CodeOrderConflict)
	s.chain = after
	s.prompt("goes on", "?wait=20")
}

func TestQueuedCommandIsCancelledAndSkipped(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.disconnect()
	c := s.prompt("never mind", "")
	var out wire.Command
	w.ask(http.MethodPost, at(wire.PathCancel, d.id, c.ID), s.token, nil, &out)
	if out.State != wire.StateCancelled {
		t.Fatalf("cancelled it is %s", out.State)
	}
	next := s.prompt("this one", "")
	d.connect()
	skip := body[wire.Skip](d.told(wire.FrameSkip))
	stub, err := proof.ParseStub(skip.Header, skip.Envelope, skip.BodyHash, skip.Signature)
	if err != nil || stub.Verify(s.keys.Ssig()) != nil || skip.Command != c.ID || skip.State != wire.StateCancelled {
		t.Errorf("the skip does not close the chain: %v %+v", err, skip)
	}
	if got := s.get(next.ID, "?wait=20"); got.State != wire.StateCompleted {
		t.Errorf("the next one is %s", got.State)
	}
	if len(d.ran) != 1 {
		t.Errorf("%d commands ran", len(d.ran))
	}
}

func TestStopIsAskedOfACommandThatTheDesktopHolds(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.hold = true
	c := s.prompt("stop me", "")
	receive(t, "delivery", d.got)
	eventually(t, "accepted", func() bool { return s.get(c.ID, "").State == wire.StateAccepted })
	w.ask(http.MethodPost, at(wire.PathCancel, d.id, c.ID), s.token, nil, nil)
	if stop := body[wire.Stop](d.told(wire.FrameStop)); stop.Command != c.ID || stop.Why != "cancelled" {
		t.Errorf("asked %+v", stop)
	}
	if got := s.get(c.ID, "?wait=20"); got.State != wire.StateCancelled {
		t.Errorf("it is %s", got.State)
	}
}

func TestExpiryIsAskedAndQueuedOnesExpire(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.hold = true
	held := s.prompt("held", "")
	receive(t, "delivery", d.got)
	eventually(t, "accepted", func() bool { return s.get(held.ID, "").State == wire.StateAccepted })
	w.clock.advance(2 * time.Hour)
	if stop := body[wire.Stop](d.told(wire.FrameStop)); stop.Why != "expired" {
		t.Errorf("asked %+v", stop)
	}
	s.signIn()
	if got := s.get(held.ID, "?wait=20"); got.State != wire.StateExpired {
		t.Errorf("the held one is %s", got.State)
	}
	d.disconnect()
	queued := s.prompt("queued", "")
	w.clock.advance(2 * time.Hour)
	s.signIn()
	if got := s.get(queued.ID, "?wait=20"); got.State != wire.StateExpired {
		t.Errorf("the queued one is %s", got.State)
	}
}

func TestUnknownOutcomeIsDecidedByAPerson(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.hold = true
	var ids []string
	for _, text := range []string{"a", "b"} {
		c := s.prompt(text, "")
		receive(t, "delivery", d.got)
		eventually(t, "accepted", func() bool { return s.get(c.ID, "").State == wire.StateAccepted })
		ids = append(ids, c.ID)
	}
	resolve := func(id string) string { return at(wire.PathResolve, d.id, id) }
	w.refused(http.MethodPost, resolve(ids[0]), s.token, wire.Resolve{Decision: "it_ran"}, 409, wire.CodeConflict)
	d.disconnect()
	clear(d.rows) // the journal is lost
	d.journal[0]++
	d.hold = false
	d.connect()
	for _, id := range ids {
		if c := s.get(id, ""); c.State != wire.StateOutcomeUnknown {
			t.Fatalf("%s is %s", id, c.State)
		}
	}
	var out wire.Command
	w.ask(http.MethodPost, resolve(ids[0]), s.token, wire.Resolve{Decision: "it_ran"}, &out)
	if out.State != wire.StateCompleted {
		t.Errorf("decided it is %s", out.State)
	}
	again := s.seal(proof.Prompt, wire.Prompt{SessionID: "ses_1", Text: "b"}, time.Hour)
	w.ask(http.MethodPost, resolve(ids[1]), s.token, wire.Resolve{Decision: "send_again", Sealed: again}, &out)
	if out.ID == ids[1] {
		t.Error("send_again gave the old command")
	}
	if c := s.get(out.ID, "?wait=20"); c.State != wire.StateCompleted {
		t.Errorf("the new one is %s", c.State)
	}
	w.refused(http.MethodPost, resolve(ids[1]), s.token, wire.Resolve{Decision: "it_ran"}, 409, wire.CodeConflict)
	w.refused(http.MethodPost, resolve(ids[1]), s.token, wire.Resolve{Decision: "maybe"}, 400, wire.CodeMalformed)
	w.refused(http.MethodPost, resolve(ids[1]), s.token, wire.Resolve{Decision: "send_again"}, 400, wire.CodeMalformed)
}

func TestCommandsThatAreRefused(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	other := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	post := func(raw []byte, status int, code string) *wire.Problem {
		t.Helper()
		return w.refused(http.MethodPost, s.commands(), s.token, wire.CommandPost{Sealed: raw}, status, code)
	}
	chain := s.chain
	reset := func() { s.chain = chain }

	post(nil, 400, wire.CodeMalformed)
	post([]byte("not an envelope"), 400, wire.CodeMalformed)
	post(other.seal(proof.Status, wire.Status{}, time.Minute), 400, wire.CodeMalformed)
	post(s.seal(proof.PermissionRespond, wire.Decision{}, time.Minute), 403, wire.CodeForbidden)
	reset()
	flipped := s.seal(proof.Status, wire.Status{}, time.Minute)
	flipped[150] ^= 1
	post(flipped, 401, wire.CodeUnauthorized)
	reset()
	w.clock.advance(time.Hour)
	future := s.seal(proof.Prompt, wire.Prompt{Text: "x"}, time.Hour)
	w.clock.advance(-time.Hour)
	if p := post(future, 400, wire.CodeClockSkew); strings.Count(p.Title, "UTC") != 2 {
		t.Errorf("the skew does not name both times: %s", p.Title)
	}
	reset()
	stale := s.seal(proof.Abort, wire.Abort{}, time.Minute)
	w.clock.advance(2 * time.Minute)
	post(stale, 409, wire.CodeConflict)
	reset()
	if c := s.prompt("after all that", "?wait=20"); c.Sequence != 1 {
		t.Errorf("a refused command was counted: sequence %d", c.Sequence)
	}
}

func TestKindsThatTheDesktopDidNotStateAreRefused(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.hello = func(h *wire.Hello) { h.Kinds = []string{"prompt"} }
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	raw := s.seal(proof.History, wire.History{SessionID: "ses_1"}, time.Minute)
	w.refused(http.MethodPost, s.commands(), s.token, wire.CommandPost{Sealed: raw}, 400, wire.CodeUnsupported)
	s.chain = proof.Chain{}
	s.prompt("stated", "?wait=20")
}

func TestCommandsOfOthersAreNotThere(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s, other := d.linkSurface(proof.ModeLink, proof.ScopePrompt), d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	c := s.prompt("mine", "?wait=20")
	foreign := w.refused(http.MethodGet, at(wire.PathCommand, d.id, c.ID), other.token, nil, 404, wire.CodeNotFound)
	missing := w.refused(http.MethodGet, at(wire.PathCommand, d.id, "cmd_AAAAAAAAAAAAAAAAAAAAAAAAAA"), other.token, nil, 404, wire.CodeNotFound)
	odd := w.refused(http.MethodGet, at(wire.PathCommand, d.id, "x"), other.token, nil, 404, wire.CodeNotFound)
	if foreign.Title != missing.Title || missing.Title != odd.Title {
		t.Errorf("different answers: %q, %q, %q", foreign.Title, missing.Title, odd.Title)
	}
	w.refused(http.MethodPost, at(wire.PathCancel, d.id, c.ID), other.token, nil, 404, wire.CodeNotFound)
}

func TestResultsAreHeldAgainstTheirSignature(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.hold = true
	s.prompt("x", "")
	id := receive(t, "delivery", d.got)
	r, _ := d.run(d.rows[id])
	bad := r
	bad.Sealed = append(wire.Bytes{}, r.Sealed...)
	bad.Sealed[len(bad.Sealed)-1] ^= 1
	d.mustRefuse(tunnel.Control, wire.FrameResult, bad, wire.CodeMalformed)
	bad = r
	bad.State = wire.StateFailed
	d.mustRefuse(tunnel.Control, wire.FrameResult, bad, wire.CodeMalformed)
	bad = r
	bad.Token = make(wire.Bytes, 16)
	d.mustRefuse(tunnel.Control, wire.FrameResult, bad, wire.CodeStaleToken)
	if c := s.get(id, ""); c.State == wire.StateCompleted {
		t.Fatal("a bad result was taken")
	}
	d.must(tunnel.Control, wire.FrameResult, r, nil)
	d.must(tunnel.Control, wire.FrameResult, r, nil) // its reply may have been lost
	if c := s.get(id, "?wait=20"); c.State != wire.StateCompleted {
		t.Errorf("it is %s", c.State)
	}
}
