package broker

import (
	"net/http"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

var fromStart = new(uint64)

func TestStreamHasEpochsBatchesBeatsResultsAndPresence(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.beginEpoch()
	d.publish(proof.ClassText, proof.Reference{}, `["before"]`)
	st := w.listen(s.subscribe(fromStart), "")
	var p wire.PairingState
	st.next(wire.StreamPresence, &p)
	if !p.Online || len(p.Grant) != 0 || p.Seq != 0 {
		t.Errorf("presence %+v", p)
	}
	var box wire.EpochBox
	st.next(wire.StreamEpoch, &box)
	keys, err := s.keys.OpenEpoch(d.keys.Dsig(), box.Box)
	if err != nil {
		t.Fatal(err)
	}
	want := func(text string) string {
		t.Helper()
		var e wire.StreamEvent
		ev := st.next(wire.StreamBatch, &e)
		_, got, err := keys.Open(d.keys.Dsig(), e.Batch)
		if err != nil || string(got) != text {
			t.Fatalf("batch %q, %v; want %q", got, err, text)
		}
		return ev.id
	}
	want(`["before"]`)
	if a := body[wire.Attached](d.told(wire.FrameAttached)); a.Streams != 1 {
		t.Errorf("the desktop was told of %d streams", a.Streams)
	}
	d.publish(proof.ClassText, proof.Reference{}, `["now"]`)
	id := want(`["now"]`)

	beat := proof.Beat{Pairing: d.keys.Pairing(), Time: 1, Epoch: d.epoch.ID(), Seq: d.epoch.Seq()}
	d.must(tunnel.Events, wire.FrameBeat, wire.Beat{Pairing: d.id, Beat: beat.Sign(d.keys.Signer())}, nil)
	var got wire.Beat
	st.next(wire.StreamBeat, &got)
	if _, err := proof.OpenBeat(d.keys.Dsig(), got.Beat); err != nil {
		t.Error(err)
	}
	c := s.prompt("via stream", "")
	var r wire.Command
	st.next(wire.StreamResult, &r)
	if r.ID != c.ID || r.State != wire.StateCompleted || s.open(r) == "" {
		t.Errorf("result %+v", r)
	}
	st.cancel()
	if a := body[wire.Attached](d.told(wire.FrameAttached)); a.Streams != 0 {
		t.Errorf("after the last stream the desktop was told of %d", a.Streams)
	}
	d.publish(proof.ClassText, proof.Reference{}, `["missed"]`)
	st = w.listen(s.subscribe(nil), id)
	want(`["missed"]`)
	d.disconnect()
	for st.next(wire.StreamPresence, &p); p.Online; st.next(wire.StreamPresence, &p) {
	}
}

func TestGapIsToldOnce(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.beginEpoch()
	d.publish(proof.ClassText, proof.Reference{}, `["x"]`)
	other := uint64(1000) // a cursor from another life of the broker
	st := w.listen(s.subscribe(&other), "")
	var gap wire.StreamGap
	st.next(wire.StreamSnapshot, &gap)
	if gap.Pairing != d.id || gap.Reason != "gap" {
		t.Errorf("gap %+v", gap)
	}
	st.next(wire.StreamBatch, nil)
	d.publish(proof.ClassText, proof.Reference{}, `["y"]`)
	for e := range st.events {
		if e.name == wire.StreamSnapshot {
			t.Fatal("told twice")
		}
		if e.name == wire.StreamBatch {
			break
		}
	}
}

func TestOpenRequestsAreKeptUntilClosed(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopeDecide)
	d.beginEpoch()
	ref := proof.Reference{7}
	d.publish(proof.ClassRequestOpen, ref, `["may I"]`)
	get := func() wire.OpenRequests {
		var out wire.OpenRequests
		w.ask(http.MethodGet, at(wire.PathRequests, d.id), s.token, nil, &out)
		return out
	}
	out := get()
	if len(out.Requests) != 1 || len(out.Epochs) != 1 || out.Cursor != 1 {
		t.Fatalf("open: %+v", out)
	}
	keys, err := s.keys.OpenEpoch(d.keys.Dsig(), out.Epochs[0].Box)
	if err != nil {
		t.Fatal(err)
	}
	if _, text, err := keys.Open(d.keys.Dsig(), out.Requests[0].Batch); err != nil || string(text) != `["may I"]` {
		t.Errorf("%q, %v", text, err)
	}
	d.publish(proof.ClassRequestClosed, ref, `["done"]`)
	if out := get(); len(out.Requests) != 0 || out.Cursor != 2 {
		t.Errorf("after the close: %+v", out)
	}
}

func TestRevokedSurfaceIsCutWithinASecond(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	kept := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	st := w.listen(s.subscribe(nil), "")
	st.next(wire.StreamPresence, nil)
	begin := time.Now()
	w.operate(http.MethodPost, at(wire.PathOpSurfaceRevoke, d.id, s.id), nil, nil)
	var end wire.StreamGap
	st.next(wire.StreamEnd, &end)
	if _, open := <-st.events; open || end.Reason != "revoked" {
		t.Errorf("the stream goes on: %v, %+v", open, end)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if r := body[wire.Revocation](d.told(wire.FrameRevoked)); r.Surface != s.id || r.By != "operator" {
		t.Errorf("the desktop was told %+v", r)
	}
	w.refused(http.MethodGet, at(wire.PathPairing, d.id), s.token, nil, 401, wire.CodeUnauthorized)
	w.refused(http.MethodPost, wire.PathStreams, "", s.subscribe(nil), 401, wire.CodeUnauthorized)
	w.refused(http.MethodPost, wire.PathAuthToken, "", s.auth(), 401, wire.CodeUnauthorized)
	kept.prompt("still here", "?wait=20")
}

func TestSurfaceRevokesItself(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	w.ask(http.MethodPost, at(wire.PathRevokeSelf, d.id), s.token, nil, nil)
	w.refused(http.MethodPost, at(wire.PathRevokeSelf, d.id), s.token, nil, 401, wire.CodeUnauthorized)
	if r := body[wire.Revocation](d.told(wire.FrameRevoked)); r.By != "surface" {
		t.Errorf("the desktop was told %+v", r)
	}
}

func TestDesktopRevokesASurfaceAndThePairing(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s, other := d.linkSurface(proof.ModeLink, proof.ScopePrompt), d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	st := w.listen(s.subscribe(nil), "")
	st.next(wire.StreamPresence, nil)
	rev := proof.Revocation{Pairing: d.keys.Pairing(), Surface: s.grant.Surface, Time: 1}
	forged := wire.Revocation{Surface: s.id, By: "desktop", Time: 2, Proof: rev.Sign(d.keys.Signer())}
	d.mustRefuse(tunnel.Control, wire.FrameRevoke, forged, wire.CodeMalformed)
	d.must(tunnel.Control, wire.FrameRevoke, wire.Revocation{Surface: s.id, By: "desktop", Time: 1, Proof: rev.Sign(d.keys.Signer())}, nil)
	st.next(wire.StreamEnd, nil)
	w.refused(http.MethodGet, at(wire.PathPairing, d.id), s.token, nil, 401, wire.CodeUnauthorized)
	w.ask(http.MethodGet, at(wire.PathPairing, d.id), other.token, nil, nil)

	all := proof.Revocation{Pairing: d.keys.Pairing(), Time: 3}
	d.must(tunnel.Control, wire.FrameRevoke, wire.Revocation{By: "desktop", Time: 3, Proof: all.Sign(d.keys.Signer())}, nil)
	w.refused(http.MethodGet, at(wire.PathPairing, d.id), other.token, nil, 401, wire.CodeUnauthorized)
	receive(t, "the end of the link", d.link.Done())
	if _, err := d.dial(); err == nil {
		t.Error("a revoked desktop could connect")
	}
}

func TestStreamForManyPairingsEndsTheBadOnesOnly(t *testing.T) {
	w := start(t, nil)
	a, b := w.enrol(), w.enrol()
	a.connect()
	b.connect()
	sa, sb := a.linkSurface(proof.ModeLink, proof.ScopePrompt), b.linkSurface(proof.ModeLink, proof.ScopePrompt)
	subs := append(sa.subscribe(nil), wire.StreamSubscribe{Pairing: b.id, Token: sa.token})
	st := w.listen(subs, "")
	var end wire.StreamGap
	st.next(wire.StreamEnd, &end)
	if end.Pairing != b.id || end.Reason != "expired" {
		t.Errorf("end %+v", end)
	}
	st.cancel()
	st = w.listen(append(sa.subscribe(nil), sb.subscribe(nil)...), "")
	seen := map[string]bool{}
	for len(seen) < 2 {
		var p wire.PairingState
		st.next(wire.StreamPresence, &p)
		seen[p.Pairing] = true
	}
	b.beginEpoch()
	b.publish(proof.ClassText, proof.Reference{}, `["b"]`)
	var e wire.StreamEvent
	if ev := st.next(wire.StreamBatch, &e); e.Pairing != b.id || ev.id != a.id+":0,"+b.id+":1" {
		t.Errorf("batch of %s with id %s", e.Pairing, ev.id)
	}
	w.refused(http.MethodPost, wire.PathStreams, "", append(sa.subscribe(nil), sa.subscribe(nil)...), 400, wire.CodeMalformed)
	w.refused(http.MethodPost, wire.PathStreams, "", []wire.StreamSubscribe{}, 400, wire.CodeMalformed)
	many := make([]wire.StreamSubscribe, wire.MaxStreams+1)
	w.refused(http.MethodPost, wire.PathStreams, "", many, 400, wire.CodeMalformed)
}

func TestStreamsOfASurfaceAreLimited(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	for range 4 {
		w.listen(s.subscribe(nil), "").next(wire.StreamPresence, nil)
	}
	w.refused(http.MethodPost, wire.PathStreams, "", s.subscribe(nil), 429, wire.CodeLimited)
}

func TestStreamEndsWithItsToken(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	st := w.listen(s.subscribe(nil), "")
	st.next(wire.StreamPresence, nil)
	w.clock.advance(proof.TokenLife + time.Second)
	d.beginEpoch() // something to look at; a quiet stream ends at its next heartbeat
	var end wire.StreamGap
	st.next(wire.StreamEnd, &end)
	if end.Reason != "expired" {
		t.Errorf("end %+v", end)
	}
}
