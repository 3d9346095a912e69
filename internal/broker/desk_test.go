package broker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cowork.example.com/broker/internal/topology"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// testDesk is a desktop made of pkg/seal and pkg/tunnel: its journal is a map, its executor an echo.
type testDesk struct {
	t       *testing.T
	w       *world
	keys    *seal.Desktop
	id      string
	broker  proof.SigKey
	journal [16]byte

	hold      bool               // deliveries are journalled and not executed
	onDeliver func(wire.Deliver) // called before a delivery is answered

	mu      sync.Mutex
	link    *tunnel.Link
	session *seal.DesktopLink
	grants  map[proof.SurfaceID]proof.Grant
	rows    map[string]wire.Deliver // open rows
	high    uint64
	done    map[string]wire.Result // not yet acknowledged
	serial  uint64
	frames  chan wire.Frame // what the broker told, but for deliveries
	got     chan string     // ids of commands that were delivered
	ran     map[string]int  // executions by envelope hash
	epoch   *seal.Epoch
	hello   func(*wire.Hello)
}

// enrol makes a desktop and enrols it by a code of the operator.
func (w *world) enrol() *testDesk {
	w.t.Helper()
	keys, err := seal.NewDesktop(w.clock.now())
	if err != nil {
		w.t.Fatal(err)
	}
	d := &testDesk{
		t: w.t, w: w, keys: keys, id: keys.Pairing().String(), broker: w.started.Key, grants: map[proof.SurfaceID]proof.Grant{},
		rows: map[string]wire.Deliver{}, done: map[string]wire.Result{}, frames: make(chan wire.Frame, 100),
		got: make(chan string, 1000), ran: map[string]int{},
	}
	_, _ = rand.Read(d.journal[:])
	var out wire.EnrolReply
	w.ask(http.MethodPost, wire.PathEnrol, "", d.redeem(w.code()), &out)
	if out.Pairing != d.id || string(out.BrokerKey) != string(d.broker[:]) || out.PageOrigin != w.started.PageOrigin {
		w.t.Fatalf("enrolled as %+v", out)
	}
	return d
}

// code issues an enrolment code.
func (w *world) code() pairing.Code {
	w.t.Helper()
	var issued wire.CodeIssued
	w.operate(http.MethodPost, wire.PathOpCodes, wire.CodeIssue{Note: "test"}, &issued)
	code, err := pairing.ParseCode(issued.Text)
	if err != nil || !code.Names(w.started.Key) {
		w.t.Fatalf("a code that does not name the broker: %v", err)
	}
	return code
}

func (d *testDesk) redeem(code pairing.Code) wire.EnrolRequest {
	r := proof.Redeem{
		Broker: d.broker, Code: code.Letters(), Dsig: d.keys.Dsig(), Bundle: d.keys.Bundle(), Host: "desk", Versions: proof.OwnVersions(),
		Executor: "echo",
	}
	return wire.EnrolRequest{
		Code: string(r.Code), Dsig: r.Dsig[:], Bundle: r.Bundle, Host: r.Host, Versions: []int{1}, Executor: r.Executor,
		Proof: r.Sign(d.keys.Signer()),
	}
}

// dial opens the tunnel without saying hello.
func (d *testDesk) dial() (*tunnel.Link, error) {
	link, err := tunnel.Dial(d.t.Context(), tunnel.DialConfig{
		URL: "ws" + strings.TrimPrefix(d.w.base, "http") + wire.PathTunnel, Header: d.header, Proxy: "direct",
	})
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(func() { link.Close(tunnel.ReasonGoingAway) })
	link.Serve(d.serve)
	return link, nil
}

func (d *testDesk) header(context.Context) (http.Header, error) {
	var n wire.Nonce
	d.w.ask(http.MethodPost, wire.PathTunnelNonce, "", wire.TunnelNonceRequest{Pairing: d.id}, &n)
	h := http.Header{}
	h.Set(wire.HeaderTunnelPairing, d.id)
	h.Set(wire.HeaderTunnelNonce, n.Nonce.String())
	h.Set(wire.HeaderTunnelTime, strconv.FormatInt(d.w.clock.now().UnixMilli(), 10))
	sig := proof.SignTunnel(d.keys.Signer(), d.broker, n.Nonce, strings.TrimPrefix(d.w.base, "http://"))
	h.Set(wire.HeaderTunnelSignature, wire.Bytes(sig).String())
	return h, nil
}

// connect opens the tunnel and says hello with the journal's report.
func (d *testDesk) connect() wire.HelloReply {
	d.t.Helper()
	link, err := d.dial()
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.link = link
	d.mu.Unlock()
	var out wire.HelloReply
	if err := d.call(tunnel.Control, wire.FrameHello, d.helloFrame(), &out); err != nil {
		d.t.Fatal(err)
	}
	for id, r := range d.done { // the last link's results are repeated under the new tokens
		for _, row := range out.Report.Rows {
			if row.Command == id {
				r.Token = row.Token
				d.must(tunnel.Control, wire.FrameResult, r, nil)
			}
		}
	}
	clear(d.done)
	return out
}

func (d *testDesk) helloFrame() wire.Hello {
	d.mu.Lock()
	defer d.mu.Unlock()
	rep := wire.Report{JournalID: d.journal[:], Counter: 1, HighWater: d.high, Open: []wire.ReportRow{}}
	for id := range d.rows {
		rep.Open = append(rep.Open, wire.ReportRow{Command: id, State: "received"})
	}
	h := wire.Hello{
		ProtocolMin: 1, ProtocolMax: 1, Time: d.w.clock.now().UnixMilli(), Version: "test", Executor: "echo",
		Kinds: topology.Kinds(topology.DesktopLocal, topology.Sealed), Bundle: d.keys.Bundle(), Report: rep, Revoked: []string{},
	}
	if d.hello != nil {
		d.hello(&h)
	}
	signed := proof.Hello{Broker: d.broker, Time: h.Time, JournalID: rep.JournalID, Counter: rep.Counter, HighWater: rep.HighWater}
	h.Sig = signed.Sign(d.keys.Signer())
	return h
}

func (d *testDesk) call(class tunnel.Class, frame string, body, out any) error {
	d.mu.Lock()
	link := d.link
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return call(ctx, link, class, frame, body, out)
}

func (d *testDesk) must(class tunnel.Class, frame string, body, out any) {
	d.t.Helper()
	if err := d.call(class, frame, body, out); err != nil {
		d.t.Fatalf("%s: %v", frame, err)
	}
}

// mustRefuse wants a refusal with this code.
func (d *testDesk) mustRefuse(class tunnel.Class, frame string, body any, code string) string {
	d.t.Helper()
	err := d.call(class, frame, body, nil)
	refused, ok := errors.AsType[*tunnel.CallError](err)
	if !ok || refused.Code != code {
		d.t.Fatalf("%s: %v, want a refusal with %s", frame, err, code)
	}
	return refused.Message
}

// disconnect closes the link and waits until the broker knows.
func (d *testDesk) disconnect() {
	d.t.Helper()
	d.mu.Lock()
	link := d.link
	d.mu.Unlock()
	link.Close(tunnel.ReasonGoingAway)
	eventually(d.t, "the desktop is offline", func() bool {
		var p wire.OperatorPairing
		d.w.operate(http.MethodGet, at(wire.PathOpPairing, d.id), nil, &p)
		return !p.Online
	})
}

// serve answers the broker's frames.
func (d *testDesk) serve(_ context.Context, _ tunnel.Class, req []byte) ([]byte, error) {
	var f wire.Frame
	if err := json.Unmarshal(req, &f); err != nil {
		return nil, err
	}
	out, err := d.answer(f)
	if err != nil {
		return nil, &tunnel.CallError{Code: "refused", Message: "the test desktop refused"}
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return json.Marshal(wire.Frame{Body: body})
}

func (d *testDesk) answer(f wire.Frame) (any, error) {
	switch f.Type {
	case wire.FrameDeliver:
		return d.deliver(body[wire.Deliver](f))
	case wire.FrameLinkClaim:
		claim, err := proof.ParseMessage[proof.Claim](body[wire.LinkClaim](f).Claim)
		if err != nil {
			return nil, err
		}
		offer, err := d.session.Claim(claim, d.w.clock.now())
		if err != nil {
			return nil, err
		}
		raw, err := json.Marshal(offer)
		return wire.LinkOffer{Offer: raw}, err
	case wire.FrameLinkReveal:
		reveal, err := proof.ParseMessage[proof.Reveal](body[wire.LinkReveal](f).Reveal)
		if err != nil {
			return nil, err
		}
		_, err = d.session.Reveal(reveal, d.w.clock.now())
		return wire.Durable{}, err
	case wire.FrameLinkFinish:
		finish, err := proof.ParseMessage[proof.Finish](body[wire.LinkFinish](f).Finish)
		if err != nil {
			return nil, err
		}
		return wire.Durable{}, d.session.Finish(finish, d.w.clock.now())
	}
	d.frames <- f
	switch f.Type {
	case wire.FrameStop:
		return wire.Stopped{Command: body[wire.Stop](f).Command, Answer: d.stopped(body[wire.Stop](f).Command)}, nil
	case wire.FrameSkip:
		return wire.Delivered{State: "received"}, nil
	}
	return wire.Durable{}, nil
}

// stopped writes a tombstone for what was not executed.
func (d *testDesk) stopped(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, open := d.rows[id]; !open {
		return "started"
	}
	delete(d.rows, id)
	return "tombstone"
}

func body[T any](f wire.Frame) T {
	var v T
	if err := json.Unmarshal(f.Body, &v); err != nil {
		panic(err)
	}
	return v
}

// deliver journals a command and, unless told to hold, executes it.
func (d *testDesk) deliver(c wire.Deliver) (wire.Delivered, error) {
	d.mu.Lock()
	d.rows[c.Command] = c
	d.high = max(d.high, c.Sequence)
	hold := d.hold
	d.mu.Unlock()
	if d.onDeliver != nil {
		d.onDeliver(c)
	}
	d.got <- c.Command
	if !hold {
		go d.execute(c)
	}
	return wire.Delivered{State: "received"}, nil
}

// execute answers with the payload and reports the result.
func (d *testDesk) execute(c wire.Deliver) {
	r, ok := d.run(c)
	if !ok {
		return
	}
	if err := d.call(tunnel.Control, wire.FrameResult, r, nil); err != nil && d.t.Context().Err() == nil {
		d.mu.Lock()
		d.done[c.Command] = r
		d.mu.Unlock()
	}
}

// run opens and executes, once.
func (d *testDesk) run(c wire.Deliver) (wire.Result, bool) {
	env, err := proof.ParseEnvelope(c.Envelope)
	if err != nil {
		d.t.Error(err)
		return wire.Result{}, false
	}
	payload, verdict := d.keys.OpenCommand(env)
	if verdict != proof.OK {
		d.t.Errorf("command %s: %s", c.Command, verdict)
		return wire.Result{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.rows, c.Command)
	d.ran[env.Hash().String()]++
	head := proof.ResultHeader{
		Pairing: d.keys.Pairing(), Surface: env.Header.Surface, Envelope: env.Hash(), Command: c.Command,
		State: wire.StateCompleted, Counter: 1, Time: d.w.clock.now().UnixMilli(),
	}
	sealed, err := d.keys.SealResult(d.grants[env.Header.Surface].Skem, head, payload)
	if err != nil {
		d.t.Error(err)
	}
	return wire.Result{Command: c.Command, Token: c.Token, State: wire.StateCompleted, Sealed: sealed}, true
}

// told waits for a frame of this type.
func (d *testDesk) told(frame string) wire.Frame {
	d.t.Helper()
	for {
		if f := receive(d.t, "frame "+frame, d.frames); f.Type == frame {
			return f
		}
	}
}

// openLink begins a linking at the desktop and returns what its owner hands over.
func (d *testDesk) openLink(mode proof.Mode, highest proof.Scope) string {
	d.t.Helper()
	session, open, err := d.keys.OpenLink(seal.LinkConfig{
		Mode: mode, Origin: d.w.started.PageOrigin, Page: d.w.started.PageOrigin, Host: "desk", Policy: "prompts yes", Highest: highest,
	}, d.w.clock.now())
	if err != nil {
		d.t.Fatal(err)
	}
	d.session = session
	raw, err := json.Marshal(open)
	if err != nil {
		d.t.Fatal(err)
	}
	var out wire.LinkOpened
	d.must(tunnel.Control, wire.FrameLinkOpen, wire.LinkOpen{Open: raw}, &out)
	return session.Text(out.Nameplate)
}

// typeDigits is the owner: digits in, grant out.
func (d *testDesk) typeDigits(digits string) seal.Linked {
	d.t.Helper()
	d.serial++
	linked, err := d.session.Digits(digits, d.serial, d.w.clock.now())
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.grants[linked.Grant.Surface] = linked.Grant
	d.mu.Unlock()
	raw, err := json.Marshal(linked.Message)
	if err != nil {
		d.t.Fatal(err)
	}
	pid := d.session.Pid()
	d.must(tunnel.Control, wire.FrameLinkGrant, wire.LinkGranted{Pid: pid[:], Grant: raw, Public: linked.Signed, Label: linked.Label}, nil)
	return linked
}

// beginEpoch announces a new epoch to every surface.
func (d *testDesk) beginEpoch() {
	d.t.Helper()
	var prev proof.EpochID
	if d.epoch != nil {
		prev = d.epoch.ID()
	}
	d.epoch = seal.NewEpoch(d.keys.Pairing(), prev, d.w.clock.now())
	id := d.epoch.ID()
	out := wire.Epoch{Epoch: id[:], Boxes: map[string]wire.Bytes{}}
	for surface, g := range d.grants {
		box, err := d.epoch.Box(d.keys, g)
		if err != nil {
			d.t.Fatal(err)
		}
		out.Boxes[surface.String()] = box
	}
	d.must(tunnel.Control, wire.FrameEpoch, out, nil)
}

// publish seals one batch and sends it.
func (d *testDesk) publish(class proof.Class, ref proof.Reference, text string) uint64 {
	d.t.Helper()
	raw, _, err := d.epoch.Seal(d.keys, seal.Events{Key: proof.KeyView, Class: class, Reference: ref, Body: []byte(text), Time: d.w.clock.now()})
	if err != nil {
		d.t.Fatal(err)
	}
	var out wire.BatchReply
	d.must(tunnel.Events, wire.FrameBatch, wire.Batch{Batch: raw}, &out)
	return out.Cursor
}
