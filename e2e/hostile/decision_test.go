//go:build e2e

package hostile

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

// asking is a turn of a real OpenCode that waits for an approval.
type asking struct {
	*attack
	file    string // what the command would make
	turn    *lab.Proc
	request surface.Request
}

// ask prompts for a shell command, and waits until the desktop asks whether it may.
func (a *attack) ask(file string) *asking {
	a.t.Helper()
	q := &asking{attack: a, file: filepath.Join(a.desktop.Project, file)}
	known := map[string]bool{}
	for _, r := range a.requests() {
		known[r.ID] = true
	}
	var err error
	q.turn, err = a.phone.cli.Start("prompt", "--session", a.phone.session, "run: touch "+file)
	check(a.t, err)
	a.await("the request", func() bool {
		for _, r := range a.requests() {
			if !known[r.ID] && r.Full != nil {
				q.request = r
				return true
			}
		}
		return false
	})
	return q
}

func (a *attack) requests() []surface.Request {
	a.t.Helper()
	all, err := a.phone.Requests(a.ctx)
	check(a.t, err)
	return all
}

// decide answers the request that the surface shows.
func (a *attack) decide(r surface.Request, decision string) (surface.Outcome, error) {
	return a.phone.Decide(a.ctx, r, surface.Answer{Decision: decision}, nil)
}

// waits wants that nobody has answered the request and that nothing came of it.
func (q *asking) waits(still bool) {
	q.t.Helper()
	if _, err := os.Stat(q.file); err == nil {
		q.t.Errorf("%s was made without a yes", filepath.Base(q.file))
	}
	open := false
	for _, r := range q.requests() {
		open = open || r.ID == q.request.ID
	}
	if open != still {
		q.t.Errorf("the request waits: %v, wanted %v", open, still)
	}
}

// deny ends the turn honestly.
func (q *asking) deny() {
	q.t.Helper()
	o, err := q.decide(q.request, "deny")
	check(q.t, err)
	if o.State() != wire.StateCompleted {
		q.t.Errorf("an honest answer ended as %+v", o.Body)
	}
	q.turn.Code()
}

// payload is the answer that would let the request's command run.
func (q *asking) payload() wire.Decision {
	return wire.Decision{
		SessionID: q.request.Full.SessionID, RequestID: q.request.ID, RequestSHA256: q.request.Digest[:], Decision: "allow",
		ShownAt: q.request.Shown.UnixMilli(),
	}
}

func aboutRequests(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/requests") }

// TestLiesAboutApprovals: nothing that a broker does makes a real OpenCode run what nobody allowed.
func TestLiesAboutApprovals(t *testing.T) {
	w := newBroker(t, "bin")
	w.desktop, w.agent = w.newDesktop("desk", w.withOpenCode()...)
	p := w.link("phone", true)
	w.begin(p)
	for _, row := range []struct {
		name  string
		do    func(*attack)
		lines []string
	}{
		{"a forged approval", forgedApproval, []string{"command.refused refused bad_signature"}},
		{"an altered request", alteredRequest, nil},
		{"an old request in place of the new one", oldRequest, nil},
		{"an approval repeated for the next request", repeatedApproval, nil},
		{"an approval held back until it is too late", heldApproval, nil},
		{"a request kept from the surface", keptRequest, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			sub := *w
			sub.t = t
			a := &attack{world: &sub, phone: p}
			defer a.honest()
			seen := len(a.audit())
			row.do(a)
			wantLines(t, a.audit()[seen:], row.lines)
		})
	}
}

func forgedApproval(a *attack) {
	q := a.ask("forged")
	payload, err := json.Marshal(q.payload())
	check(a.t, err)
	now := time.Now()
	d := a.holdAny(a.phone.Surface, proof.Status, wire.Status{}) // a header of the surface, to copy
	own := a.parse(d).Header
	stranger := a.stranger()
	forged, err := stranger.SealCommand(a.bundle(), seal.Command{
		Kind: proof.PermissionRespond, Payload: payload, Iat: now, Exp: now.Add(time.Minute),
	}, proof.Chain{Seq: own.Seq - 1, Hash: own.Prev})
	check(a.t, err)
	header := append([]byte{}, forged[:proof.HeaderSize]...)
	copy(header[19:], own.Surface[:])
	a.deliver(under(d, proof.SignEnvelope(header, forged[proof.HeaderSize:len(forged)-64], stranger.Signer())), "refused")
	a.deliver(d, "received")
	a.honest()
	q.waits(true)
	q.deny()
}

func alteredRequest(a *attack) {
	q := a.ask("altered")
	honest := a.liar.lie(func(l *liar) {
		l.after = on(aboutRequests, func(o *wire.OpenRequests) {
			for i := range o.Requests {
				o.Requests[i].Batch = flip(o.Requests[i].Batch, len(o.Requests[i].Batch)/2)
			}
		})
	})
	shown, err := a.phone.Requests(a.ctx)
	if err == nil || !strings.Contains(err.Error(), "the desktop did not sign") {
		a.t.Errorf("the surface shows %+v, %v", shown, err)
	}
	honest()
	q.waits(true)
	changed := q.request // and a surface that was deceived all the same signs another digest
	changed.Digest[0] ^= 1
	if o, err := a.decide(changed, "allow"); err != nil || o.State() == wire.StateCompleted || !o.Signed {
		a.t.Errorf("an answer to another text ended as %+v, %v", o, err)
	}
	q.waits(true)
	q.deny()
}

func oldRequest(a *attack) {
	first := a.ask("old")
	var old wire.OpenRequests
	honest := a.liar.lie(func(l *liar) { l.after = on(aboutRequests, func(o *wire.OpenRequests) { old = *o }) })
	a.requests()
	honest()
	first.deny()
	second := a.ask("new")
	honest = a.liar.lie(func(l *liar) { l.after = on(aboutRequests, func(o *wire.OpenRequests) { *o = old }) })
	shown := a.requests()
	honest()
	if len(shown) != 1 || shown[0].ID != first.request.ID {
		a.t.Fatalf("the liar's list shows %+v", shown)
	}
	o, err := a.decide(shown[0], "allow")
	if err != nil || o.State() == wire.StateCompleted || !o.Signed {
		a.t.Errorf("an answer to a request that is gone ended as %+v, %v", o, err)
	}
	first.waits(false)
	second.waits(true)
	second.deny()
}

func repeatedApproval(a *attack) {
	first := a.ask("approved")
	d := a.holdAny(a.phone.Surface, proof.PermissionRespond, first.payload())
	a.deliver(d, "received")
	a.honest()
	first.turn.Code()
	if _, err := os.Stat(first.file); err != nil {
		a.t.Fatalf("the genuine approval did not let it run: %v", err)
	}
	second := a.ask("not-approved")
	a.deliver(d, "duplicate")
	a.deliver(under(d, d.Envelope), "duplicate")
	second.waits(true)
	second.deny()
}

func heldApproval(a *attack) {
	q := a.ask("held")
	d := a.holdAny(a.phone.Surface, proof.PermissionRespond, q.payload())
	a.honest()
	a.stop(d.Command, wire.StateCancelled, "tombstone") // the broker says "cancelled", and delivers it all the same
	a.deliver(d, "duplicate")
	q.waits(true)
	q.denyAgain()
}

// denyAgain is deny after a lie that may cost the surface a refusal.
func (q *asking) denyAgain() {
	q.t.Helper()
	for range 3 {
		if o, err := q.decide(q.request, "deny"); err == nil && o.State() == wire.StateCompleted {
			q.turn.Code()
			return
		}
	}
	q.t.Error("three honest answers were refused after the lie")
}

func keptRequest(a *attack) {
	q := a.ask("kept")
	honest := a.liar.lie(func(l *liar) {
		l.after = on(aboutRequests, func(o *wire.OpenRequests) { o.Requests, o.Epochs = nil, nil })
	})
	if shown := a.requests(); len(shown) != 0 {
		a.t.Errorf("the lie is not told: %+v", shown)
	}
	o, err := a.phone.Do(a.ctx, proof.Status, wire.Status{}, nil) // the desktop's signed word is another one
	check(a.t, err)
	if !o.Signed || !strings.Contains(strings.Join(exact(o.Body.Requests), ""), q.request.ID) {
		a.t.Errorf("the desktop's own list does not have the request: %+v", o.Body)
	}
	honest()
	q.waits(true)
	q.deny()
}

func exact(all []wire.Exact) (texts []string) {
	for _, e := range all {
		texts = append(texts, string(e))
	}
	return texts
}
