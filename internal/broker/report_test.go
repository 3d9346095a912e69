package broker

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// held posts a prompt that the desktop journals and does not execute.
func held(t *testing.T, w *world) (*testDesk, *testSurface, wire.Deliver) {
	t.Helper()
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.hold = true
	s.prompt("held", "")
	id := receive(t, "delivery", d.got)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d, s, d.rows[id]
}

func TestCommandWaitsForAPersonAtTheDesktop(t *testing.T) {
	w := start(t, nil)
	d, s, c := held(t, w)
	ref := wire.CommandRef{Command: c.Command, Token: c.Token}
	d.must(tunnel.Control, wire.FrameWaiting, ref, nil)
	if got := s.get(c.Command, ""); got.State != wire.StateWaitingLocal {
		t.Errorf("it is %s", got.State)
	}
	d.must(tunnel.Control, wire.FrameAccepted, ref, nil)
	if got := s.get(c.Command, ""); got.State != wire.StateAccepted {
		t.Errorf("after the yes it is %s", got.State)
	}
	d.mustRefuse(tunnel.Control, wire.FrameWaiting, wire.CommandRef{Command: c.Command, Token: make(wire.Bytes, 16)}, wire.CodeStaleToken)
	d.mustRefuse(tunnel.Control, wire.FrameAccepted, wire.CommandRef{Command: "cmd_x", Token: c.Token}, wire.CodeNotFound)
}

// The agent's word that a command waits may overtake its answer to the delivery, on another lane.
func TestWaitingThatOvertakesTheDeliveryStands(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.hold = true
	said := make(chan error, 1)
	d.onDeliver = func(c wire.Deliver) {
		sent := make(chan struct{})
		go func() {
			close(sent)
			said <- d.call(tunnel.Control, wire.FrameWaiting, wire.CommandRef{Command: c.Command, Token: c.Token}, nil)
		}()
		<-sent
		runtime.Gosched()
	}
	for range 20 {
		c := s.prompt("x", "")
		receive(t, "delivery", d.got)
		if err := receive(t, "the answer", said); err != nil {
			t.Fatal(err)
		}
		if got := s.get(c.ID, ""); got.State != wire.StateWaitingLocal {
			t.Fatalf("it is %s", got.State)
		}
	}
}

func TestResultOfAnEarlierLinkNeedsTheNewToken(t *testing.T) {
	w := start(t, nil)
	d, s, c := held(t, w)
	d.disconnect()
	reply := d.connect()
	if len(reply.Report.Rows) != 1 || reply.Report.Rows[0].Command != c.Command {
		t.Fatalf("the report's answer is %+v", reply.Report)
	}
	r, _ := d.run(c)
	d.mustRefuse(tunnel.Control, wire.FrameResult, r, wire.CodeStaleToken)
	var again wire.ReportReply
	rep := wire.Report{JournalID: d.journal[:], Counter: 1, HighWater: d.high, Open: []wire.ReportRow{{Command: c.Command, State: "done", Result: &r}}}
	d.must(tunnel.Control, wire.FrameReport, rep, &again)
	if len(again.Rows) != 1 || string(again.Rows[0].Token) != string(reply.Report.Rows[0].Token) {
		t.Fatalf("the second report's answer is %+v", again)
	}
	r.Token = again.Rows[0].Token
	d.must(tunnel.Control, wire.FrameResult, r, nil)
	if got := s.get(c.Command, "?wait=20"); got.State != wire.StateCompleted {
		t.Errorf("it is %s", got.State)
	}
}

func TestRowsThatTheBrokerDoesNotKnowAreDoneWith(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.hello = func(h *wire.Hello) {
		h.Report.Open = []wire.ReportRow{{Command: "cmd_AAAAAAAAAAAAAAAAAAAAAAAAAA", State: "received"}}
	}
	if reply := d.connect(); len(reply.Report.Known) != 1 || len(reply.Report.Rows) != 0 {
		t.Errorf("the answer is %+v", reply.Report)
	}
	rep := wire.Report{JournalID: d.journal[:], Counter: 1, Open: []wire.ReportRow{{
		Command: "cmd_AAAAAAAAAAAAAAAAAAAAAAAAAA", State: "done", Result: &wire.Result{Command: "cmd_BBBBBBBBBBBBBBBBBBBBBBBBBB", State: wire.StateFailed},
	}}}
	d.mustRefuse(tunnel.Control, wire.FrameReport, rep, wire.CodeMalformed)
}

func TestGrantIsRenewedUnderAHigherSerial(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	g := s.grant
	g.Serial, g.NotAfter = g.Serial+1, g.NotAfter+1
	g.Issued++
	g.Scopes = proof.ScopesUpTo(proof.ScopeObserve)
	renewed := wire.LinkGranted{Public: g.Sign(d.keys.Signer()), Label: "phone"}
	d.must(tunnel.Control, wire.FrameLinkGrant, renewed, nil)
	raw := s.seal(proof.Prompt, wire.Prompt{Text: "x"}, time.Minute)
	w.refused(http.MethodPost, s.commands(), s.token, wire.CommandPost{Sealed: raw}, 403, wire.CodeForbidden)
	d.mustRefuse(tunnel.Control, wire.FrameLinkGrant, renewed, wire.CodeConflict)
	forged := g
	forged.Serial++
	renewed.Public = forged.Sign(s.keys.Signer())
	d.mustRefuse(tunnel.Control, wire.FrameLinkGrant, renewed, wire.CodeMalformed)
}

func TestStreamCatchesUpInTurns(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.beginEpoch()
	const batches = 40 // more than one turn writes
	for i := range batches {
		d.publish(proof.ClassText, proof.Reference{}, fmt.Sprintf(`["%d"]`, i))
	}
	st := w.listen(s.subscribe(fromStart), "")
	for i := range batches {
		var e wire.StreamEvent
		if st.next(wire.StreamBatch, &e); e.Cursor != uint64(i+1) {
			t.Fatalf("batch %d has cursor %d", i+1, e.Cursor)
		}
	}
}

func TestRequestsOfANetworkAreLimited(t *testing.T) {
	w := start(t, func(c *Config) { c.Limits = map[string]int{string(limits.Requests): 3} })
	for range 3 {
		w.ask(http.MethodGet, wire.PathBroker, "", nil, nil)
	}
	res, err := w.public.Get(w.base + wire.PathBroker)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if p := decode(t, res, nil); p == nil || p.Code != wire.CodeLimited || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d %+v", res.StatusCode, p)
	}
}

func TestBatchesAreHeldAgainstTheirEpoch(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.beginEpoch()
	first := d.publish(proof.ClassText, proof.Reference{}, `["x"]`)
	id := d.epoch.ID()
	d.mustRefuse(tunnel.Control, wire.FrameEpoch, wire.Epoch{Epoch: id[:], Boxes: map[string]wire.Bytes{"AAAAAAAAAAAAAAAAAAAAAA": []byte("x")}}, wire.CodeMalformed)
	other := w.enrol()
	other.connect()
	other.linkSurface(proof.ModeLink, proof.ScopePrompt)
	other.beginEpoch()
	raw := proof.SignBatch(proof.BatchHeader{
		Pairing: d.keys.Pairing(), Epoch: id, Key: proof.KeyView, Seq: 9, Class: proof.ClassText, Size: 3, Time: 1,
	}.Encode(), []byte("abc"), other.keys.Signer())
	other.mustRefuse(tunnel.Events, wire.FrameBatch, wire.Batch{Batch: raw}, wire.CodeMalformed) // signed by another desktop
	unknown := proof.SignBatch(proof.BatchHeader{
		Pairing: d.keys.Pairing(), Epoch: proof.EpochID{9}, Key: proof.KeyView, Seq: 1, Class: proof.ClassText, Size: 3, Time: 1,
	}.Encode(), []byte("abc"), d.keys.Signer())
	d.mustRefuse(tunnel.Events, wire.FrameBatch, wire.Batch{Batch: unknown}, wire.CodeConflict)
	if next := d.publish(proof.ClassText, proof.Reference{}, `["y"]`); next != first+1 {
		t.Errorf("a refused batch was counted: %d after %d", next, first)
	}
}
