package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// reader is a linked surface that opens what the publisher seals.
type reader struct {
	keys *seal.Surface
	id   proof.SurfaceID
}

// linked adds a surface to the journal with a grant that its desktop signed.
func (h *half) linked(scope proof.Scope) *reader {
	h.t.Helper()
	keys, err := seal.NewSurface()
	if err != nil {
		h.t.Fatal(err)
	}
	r := &reader{keys: keys, id: keys.ID(h.keys.Pairing())}
	serial, err := h.journal.HighestSerial(context.Background(), h.keys.Pairing())
	if err != nil {
		h.t.Fatal(err)
	}
	g := proof.Grant{
		Pairing: h.keys.Pairing(), Surface: r.id, Ssig: keys.Ssig(), Skem: keys.Skem(), Scopes: proof.ScopesUpTo(scope), Serial: serial + 1,
		Issued: time.Now().UnixMilli(), NotAfter: time.Now().Add(proof.GrantLife).UnixMilli(), Transcript: proof.Digest{1},
	}
	signed, _, err := h.keys.SealGrant(g)
	if err != nil {
		h.t.Fatal(err)
	}
	h.record(journal.PutSurface(journal.Surface{
		Pairing: g.Pairing, ID: r.id, Label: "phone", Scopes: g.Scopes, Ssig: g.Ssig, Skem: g.Skem, Grant: signed, Serial: g.Serial,
		Issued: time.UnixMilli(g.Issued), NotAfter: time.UnixMilli(g.NotAfter),
	}))
	return r
}

// got is a batch as a surface sees it; closed for those whose key it has not.
type got struct {
	header proof.BatchHeader
	events []wire.Event
	raw    []byte
	closed bool
}

// read opens everything that the broker was sent, holding order and count.
func (h *half) read(r *reader) (all []got) {
	h.t.Helper()
	epochs := map[proof.EpochID]*seal.EpochKeys{}
	for _, raw := range h.broker.of(wire.FrameEpoch) {
		var e wire.Epoch
		if err := json.Unmarshal(raw, &e); err != nil {
			h.t.Fatal(err)
		}
		box, ok := e.Boxes[r.id.String()]
		if !ok {
			continue
		}
		keys, err := r.keys.OpenEpoch(h.keys.Dsig(), box)
		if err != nil {
			h.t.Fatal(err)
		}
		epochs[keys.Header.Epoch] = keys
	}
	for _, raw := range h.broker.of(wire.FrameBatch) {
		var b wire.Batch
		if err := json.Unmarshal(raw, &b); err != nil {
			h.t.Fatal(err)
		}
		batch, err := proof.OpenBatch(h.keys.Dsig(), b.Batch)
		if err != nil {
			h.t.Fatal(err)
		}
		g := got{header: batch.Header, raw: b.Batch, closed: true}
		if keys := epochs[batch.Header.Epoch]; keys != nil {
			if _, body, err := keys.Open(h.keys.Dsig(), b.Batch); err == nil {
				g.closed = false
				if err := json.Unmarshal(body, &g.events); err != nil {
					h.t.Fatal(err)
				}
			} else if !errors.Is(err, seal.ErrNoKey) {
				h.t.Fatal(err)
			}
		}
		all = append(all, g)
	}
	return all
}

// wantUnbroken wants each epoch's batches once each and in order.
func wantUnbroken(t *testing.T, all []got) {
	t.Helper()
	last := map[proof.EpochID]uint64{}
	for _, g := range all {
		if g.header.Seq != last[g.header.Epoch]+1 {
			t.Errorf("epoch %x: batch %d after %d", g.header.Epoch, g.header.Seq, last[g.header.Epoch])
		}
		last[g.header.Epoch] = g.header.Seq
	}
}

// texts are the streamed texts in order.
func texts(all []got) (out []string) {
	for _, g := range all {
		for _, e := range g.events {
			var d wire.TextDelta
			if e.Type == wire.EventText && json.Unmarshal(e.Data, &d) == nil {
				out = append(out, d.Text)
			}
		}
	}
	return out
}

func classes(all []got) (out []proof.Class) {
	for _, g := range all {
		out = append(out, g.header.Class)
	}
	return out
}

// publish runs a publisher over a link until the returned function is called.
func (h *half) publish() (p *publisher, stop func()) {
	h.t.Helper()
	p = newPublisher(h.deps, h.id)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	h.connect(p)
	synctest.Wait()
	return p, func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	}
}

func (h *half) connect(p *publisher) {
	h.t.Helper()
	if err := p.Connected(context.Background(), h.broker, wire.HelloReply{}); err != nil {
		h.t.Fatal(err)
	}
}

func text(s string) wire.ExecEvent {
	data, _ := json.Marshal(map[string]string{"partID": "p", "field": "text", "delta": s})
	return wire.ExecEvent{Type: wire.ExecText, SessionID: "s", MessageID: "m", Data: data}
}

func request(id string) wire.ExecEvent {
	return wire.ExecEvent{Type: wire.ExecRequestOpen, SessionID: "s", Request: &wire.ExecRequest{
		ID: id, SessionID: "s", Kind: wire.RequestPermission, Permission: "bash", Exact: json.RawMessage(`{"metadata":{"command":"rm <x> & é"}}`),
	}}
}

// The first text after a silence goes at once, what follows within 50 ms goes together, and 16 KiB do not wait.
func TestCoalescing(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		r := h.linked(proof.ScopePrompt)
		p, stop := h.publish()
		defer stop()
		began := time.Now()
		p.Event(text("one "))
		synctest.Wait()
		if all := h.read(r); len(all) != 1 || time.Since(began) != 0 {
			t.Fatalf("%d batches at once", len(all))
		}
		for range 10 {
			p.Event(text("more "))
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if all := h.read(r); len(all) != 1 {
			t.Fatalf("%d batches before 50 ms are over", len(all))
		}
		time.Sleep(batchDelay)
		synctest.Wait()
		all := h.read(r)
		if len(all) != 2 || len(all[1].events) != 10 {
			t.Fatalf("%d batches, the second with %d events", len(all), len(all[len(all)-1].events))
		}
		p.Event(text("x "))
		synctest.Wait()
		before := len(h.read(r))
		for range 6 {
			p.Event(text(strings.Repeat("word ", 1000) + "\n"))
		}
		synctest.Wait()
		if n := len(h.read(r)); n <= before {
			t.Error("30 KB wait")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		all = h.read(r)
		wantUnbroken(t, all)
		for _, g := range all {
			if g.header.Size > batchBytes+8<<10 {
				t.Errorf("a batch of %d bytes", g.header.Size)
			}
		}
		if got := len(strings.Join(texts(all), "")); got != len("one ")+50+2+6*5001 {
			t.Errorf("%d bytes of text arrived", got)
		}
	})
}

// Request events are batches of their own, at once, and never behind text that waits; so is a turn's end.
func TestRequestsDoNotWait(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		r := h.linked(proof.ScopeDecide)
		p, stop := h.publish()
		defer stop()
		began := time.Now()
		p.Event(text("first "))
		p.Event(text("waiting "))
		p.Event(request("r1"))
		p.Event(text("after "))
		p.Event(wire.ExecEvent{Type: wire.ExecTurnEnded, SessionID: "s", Outcome: wire.OutcomeDone})
		p.CloseRequest("r1", "allowed", "phone")
		p.CloseRequest("r1", "denied", "desk")
		synctest.Wait()
		all := h.read(r)
		want := []proof.Class{
			proof.ClassText, proof.ClassText, proof.ClassRequestOpen, proof.ClassRequestOpen, proof.ClassText, proof.ClassTurnEnded, proof.ClassRequestClosed,
		}
		if !slices.Equal(classes(all), want) || time.Since(began) != 0 {
			t.Fatalf("classes %v, want %v", classes(all), want)
		}
		for _, g := range all {
			if g.header.Class.IsRequest() != (len(g.events) == 1 && !g.header.Reference.IsZero()) && g.header.Class.IsRequest() {
				t.Errorf("a request's batch: %+v", g)
			}
		}
		wantUnbroken(t, all)
	})
}

// Each kind of surface sees what its scope allows, and the exact bytes are those of the digest.
func TestDecideAndViewKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		decides, views := h.linked(proof.ScopeDecide), h.linked(proof.ScopePrompt)
		h.setPolicy(pairing.ShowDecide)
		p, stop := h.publish()
		defer stop()
		p.Event(request("r1"))
		synctest.Wait()
		bytes, digest, ok := p.RequestBytes("r1")
		if !ok || proof.RequestDigest(h.keys.Pairing(), bytes) != digest {
			t.Fatalf("the request is %s", bytes)
		}
		full, summary := h.read(decides), h.read(views)
		if len(full) != 2 || full[0].closed || string(full[0].events[0].Data) != string(bytes) {
			t.Fatalf("who decides sees %+v, not %s", full, bytes)
		}
		if !summary[0].closed || summary[1].closed || strings.Contains(string(summary[1].events[0].Data), "rm ") {
			t.Fatalf("who looks on sees %+v", summary)
		}
		if _, _, ok := p.RequestBytes("r2"); ok {
			t.Error("an unknown request has bytes")
		}
	})
}

func (h *half) setPolicy(show pairing.Show) {
	h.t.Helper()
	policy := h.policy()
	policy.ShowRequests = show
	raw, err := json.Marshal(policy)
	if err != nil {
		h.t.Fatal(err)
	}
	h.record(journal.SetPolicy(h.keys.Pairing(), raw))
}

// anyBox is what one of an announcement's boxes says in the open.
func anyBox(t *testing.T, h *half, frame json.RawMessage) proof.EpochHeader {
	t.Helper()
	var e wire.Epoch
	if err := json.Unmarshal(frame, &e); err != nil {
		t.Fatal(err)
	}
	for _, raw := range e.Boxes {
		box, err := proof.OpenEpochBox(h.keys.Dsig(), raw)
		if err != nil {
			t.Fatal(err)
		}
		return box.Header
	}
	t.Fatal("an announcement without boxes")
	return proof.EpochHeader{}
}

// A new epoch begins at each start, at each change of surfaces and after a day, names the one before, and publishes
// the open requests again, byte for byte.
func TestEpochs(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		h.setPolicy(pairing.ShowDecide)
		first := h.linked(proof.ScopeDecide)
		p, stop := h.publish()
		p.Event(request("r1"))
		synctest.Wait()
		exact, _, _ := p.RequestBytes("r1")
		second := h.linked(proof.ScopeDecide)
		if err := p.SurfacesChanged(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(proof.EpochLife)
		p.Event(text("after a day "))
		synctest.Wait()
		stop()
		h.close()
		h.open()
		p, stop = h.publish()
		defer stop()
		synctest.Wait()
		epochs := h.broker.of(wire.FrameEpoch)
		if len(epochs) != 4 {
			t.Fatalf("%d epochs began", len(epochs))
		}
		var before proof.EpochID
		for i, body := range epochs {
			box := anyBox(t, h, body)
			if box.Previous != before {
				t.Errorf("epoch %d names %v as the one before, which was %v", i, box.Previous, before)
			}
			before = box.Epoch
		}
		opens := 0
		for _, g := range h.read(first) {
			if g.header.Class == proof.ClassRequestOpen && g.header.Key == proof.KeyDecide {
				opens++
				if string(g.events[0].Data) != string(exact) {
					t.Errorf("published as %s, before as %s", g.events[0].Data, exact)
				}
			}
		}
		if opens != 4 {
			t.Errorf("the request was published %d times", opens)
		}
		for i, g := range h.read(second) {
			if (g.header.Epoch == h.read(first)[0].header.Epoch) != g.closed {
				t.Errorf("batch %d of epoch %x: the new surface can read it: %v", i, g.header.Epoch, !g.closed)
			}
		}
		wantUnbroken(t, h.read(first))
		if again, _, ok := p.RequestBytes("r1"); !ok || string(again) != string(exact) {
			t.Error("after a restart the request is another one")
		}
	})
}

func TestRevokedSurfaceReadsNoMore(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		stays, goes := h.linked(proof.ScopePrompt), h.linked(proof.ScopePrompt)
		p, stop := h.publish()
		defer stop()
		p.Event(text("both "))
		synctest.Wait()
		h.record(journal.RevokeSurface(h.keys.Pairing(), goes.id, time.Now(), journal.Desk))
		if err := p.SurfacesChanged(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		p.Event(text("one "))
		synctest.Wait()
		if got := texts(h.read(goes)); !slices.Equal(got, []string{"both "}) {
			t.Errorf("the revoked surface reads %q", got)
		}
		if got := texts(h.read(stays)); !slices.Equal(got, []string{"both ", "one "}) {
			t.Errorf("the other reads %q", got)
		}
		h.record(journal.RevokeSurface(h.keys.Pairing(), stays.id, time.Now(), journal.Desk))
		if err := p.SurfacesChanged(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := len(h.broker.of(wire.FrameBatch))
		p.Event(text("nobody "))
		synctest.Wait()
		if n := len(h.broker.of(wire.FrameBatch)); n != before {
			t.Error("something was sealed for nobody")
		}
	})
}

// The link is cut at every point of sending, before and after the broker has a batch; nothing is lost or kept twice.
func TestOutboxResumes(t *testing.T) {
	const batches = 6
	for cut := range batches {
		for _, kept := range []bool{true, false} {
			inBubble(t, func(t *testing.T, h *half) {
				r := h.linked(proof.ScopePrompt)
				seen, newest := map[string]bool{}, wire.HelloReply{}
				n, down := 0, false
				h.broker.on(wire.FrameBatch, func(raw json.RawMessage) (any, error) {
					if down {
						return nil, errCrash
					}
					var b wire.Batch
					if err := json.Unmarshal(raw, &b); err != nil {
						return nil, err
					}
					n++
					down = n == cut+1
					if down && !kept {
						return nil, errCrash
					}
					batch, err := proof.OpenBatch(h.keys.Dsig(), b.Batch)
					if err != nil {
						return nil, err
					}
					seen[string(b.Batch)] = true
					newest.BatchEpoch, newest.BatchSeq = batch.Header.Epoch[:], batch.Header.Seq
					if down {
						return nil, errCrash
					}
					return wire.BatchReply{}, nil
				})
				p, stop := h.publish()
				for i := range batches {
					p.Event(text(fmt.Sprintf("%d ", i)))
					time.Sleep(time.Second)
				}
				synctest.Wait()
				p.Disconnected()
				if cut%2 == 0 { // the agent dies too
					stop()
					h.close()
					h.open()
					p, stop = h.publish()
				}
				defer stop()
				down = false
				if err := p.Connected(t.Context(), h.broker, newest); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * outboxRetry)
				synctest.Wait()
				if len(seen) != batches {
					t.Errorf("cut at %d, kept %v: %d batches", cut, kept, len(seen))
				}
				if left, err := h.journal.OutboxSize(t.Context(), h.keys.Pairing()); err != nil || left != 0 {
					t.Errorf("cut at %d, kept %v: %d are left, %v", cut, kept, left, err)
				}
				_ = r
			})
		}
	}
}

// A batch that the broker will never take does not hold up those after it; one that it may take later does.
func TestRefusedBatch(t *testing.T) {
	for code, forGood := range map[string]bool{
		wire.CodeConflict: true, wire.CodeMalformed: true, wire.CodeTooLarge: true, wire.CodeInternal: false, wire.CodeLimited: false,
	} {
		inBubble(t, func(t *testing.T, h *half) {
			r := h.linked(proof.ScopePrompt)
			refusals := 0
			h.broker.on(wire.FrameBatch, func(json.RawMessage) (any, error) {
				if refusals++; refusals == 1 {
					return nil, &tunnel.CallError{Code: code, Message: "no"}
				}
				return wire.BatchReply{}, nil
			})
			p, stop := h.publish()
			defer stop()
			p.Event(text("one "))
			synctest.Wait()
			time.Sleep(time.Second)
			p.Event(text("two "))
			time.Sleep(2 * outboxRetry)
			synctest.Wait()
			want := []string{"one ", "two "}
			if forGood {
				want = want[1:]
			}
			if got := texts(h.read(r)); !slices.Equal(got, want) {
				t.Errorf("%s: %q arrived, want %q", code, got, want)
			}
		})
	}
}

// Beats are signed every 15 s while a surface looks on, and only then.
func TestBeats(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		h.linked(proof.ScopePrompt)
		p, stop := h.publish()
		defer stop()
		time.Sleep(time.Minute + time.Second)
		if n := len(h.broker.of(wire.FrameBeat)); n != 0 {
			t.Fatalf("%d beats for nobody", n)
		}
		p.Event(request("r1"))
		p.Attached(1)
		synctest.Wait()
		if n := len(h.broker.of(wire.FrameBeat)); n != 1 {
			t.Fatalf("%d beats when a surface came", n)
		}
		time.Sleep(2 * proof.BeatEvery)
		synctest.Wait()
		all := h.broker.of(wire.FrameBeat)
		if len(all) < 3 {
			t.Fatalf("%d beats in 30 s", len(all))
		}
		var b wire.Beat
		if err := json.Unmarshal(all[len(all)-1], &b); err != nil {
			t.Fatal(err)
		}
		beat, err := proof.OpenBeat(h.keys.Dsig(), b.Beat)
		_, digest, _ := p.RequestBytes("r1")
		if err != nil || beat.Requests != proof.RequestsDigest([]proof.Digest{digest}) || beat.Seq == 0 || beat.Time == 0 {
			t.Errorf("beat %+v %v", beat, err)
		}
		p.Attached(0)
		synctest.Wait()
		before := len(h.broker.of(wire.FrameBeat))
		time.Sleep(time.Minute + time.Second)
		if n := len(h.broker.of(wire.FrameBeat)); n != before {
			t.Error("beats go on for nobody")
		}
	})
}

// What was told before the end is sealed and kept.
func TestStopLosesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		r := h.linked(proof.ScopePrompt)
		p, stop := h.publish()
		p.Disconnected()
		for i := range 100 {
			p.Event(text(fmt.Sprintf("%d ", i)))
		}
		stop()
		p.Event(text("too late "))
		if err := p.SurfacesChanged(t.Context()); !errors.Is(err, errOffline) {
			t.Errorf("after the end: %v", err)
		}
		h.close()
		h.open()
		_, stop = h.publish()
		defer stop()
		synctest.Wait()
		if got := texts(h.read(r)); len(got) != 100 || got[99] != "99 " {
			t.Errorf("%d texts arrived: %q", len(got), got)
		}
	})
}

// A request that was decided just before the agent died is closed at the broker by the next one.
func TestCloseThatWasNotPublished(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		r := h.linked(proof.ScopePrompt)
		p, stop := h.publish()
		p.Event(request("r1"))
		synctest.Wait()
		stop()
		h.record(journal.CloseRequest(h.keys.Pairing(), "r1", wire.DecisionAllowed, "phone", time.Now()))
		h.close()
		time.Sleep(time.Hour)
		h.open()
		_, stop = h.publish()
		defer stop()
		synctest.Wait()
		all := h.read(r)
		last := all[len(all)-1]
		var closed wire.RequestClosed
		if last.header.Class != proof.ClassRequestClosed || json.Unmarshal(last.events[0].Data, &closed) != nil ||
			closed.ID != "r1" || closed.Outcome != wire.DecisionAllowed || last.header.Reference != all[0].header.Reference {
			t.Errorf("the last batch is %+v", last)
		}
	})
}
