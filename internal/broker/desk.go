package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// helloTime is how long a link may live without its hello.
	helloTime = 30 * time.Second
	// deliverTime is how long the agent may take to journal one command.
	deliverTime = 30 * time.Second
	// stopTime is how long the agent may take to answer a stop.
	stopTime = 30 * time.Second
	// tellTime is the deadline of a message that can be told again.
	tellTime = 10 * time.Second
	// fencedTime is how long a link may outlive a newer one that was admitted.
	fencedTime = 10 * time.Second
	// retryStore is how long a pump waits after the store failed.
	retryStore = 5 * time.Second
)

// desk is one live link of one desktop.
type desk struct {
	d       *desktops
	link    *tunnel.Link
	pairing proof.PairingID
	dsig    proof.SigKey
	epoch   mailbox.Epoch
	since   time.Time

	mu         sync.Mutex
	delivering string        // the command that is being handed over
	recorded   chan struct{} // closed when what came of it is in the store

	ready   atomic.Bool  // the hello was answered
	told    atomic.Int64 // number of streams that the agent knows of
	hello   *time.Timer
	deliver *pump // commands, in order
	tend    *pump // stops and the number of streams
}

func newDesk(d *desktops, link *tunnel.Link, row pairing.Pairing, now time.Time) *desk {
	k := &desk{d: d, link: link, pairing: row.ID, dsig: row.Dsig, epoch: mailbox.Epoch(link.Epoch()), since: now}
	k.deliver = &pump{group: &d.group, work: k.deliverAll}
	k.tend = &pump{group: &d.group, work: k.tendAll}
	k.hello = time.AfterFunc(helloTime, func() {
		if !k.ready.Load() {
			link.Close("no_hello")
		}
	})
	return k
}

// stop ends the pumps of a link that has ended.
func (k *desk) stop() {
	k.hello.Stop()
	k.deliver.stop()
	k.tend.stop()
}

// kick looks for work. Before the hello there is none.
func (k *desk) kick() {
	if k.ready.Load() {
		k.deliver.kick()
		k.tend.kick()
	}
}

func (k *desk) call(ctx context.Context, class tunnel.Class, frame string, body, reply any) error {
	return call(ctx, k.link, class, frame, body, reply)
}

// serve answers one frame of the agent. It is the tunnel's Handler.
func (k *desk) serve(ctx context.Context, class tunnel.Class, req []byte) ([]byte, error) {
	var f wire.Frame
	if err := strict(req, &f); err != nil {
		return nil, &tunnel.CallError{Code: wire.CodeMalformed, Message: "not a frame"}
	}
	h, ok := frames[f.Type]
	if !ok || h.class != class {
		return nil, &tunnel.CallError{Code: wire.CodeUnsupported, Message: "no such frame on this lane"}
	}
	if !k.ready.Load() && f.Type != wire.FrameHello {
		return nil, &tunnel.CallError{Code: wire.CodeHelloFirst, Message: "nothing is served before hello"}
	}
	out, err := h.handle(k, ctx, f.Body)
	if err != nil {
		return nil, frameError(err)
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return json.Marshal(wire.Frame{Type: f.Type, Body: body})
}

// strict decodes one JSON value with no unknown field and nothing after it.
func strict(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if dec.InputOffset() != int64(len(bytes.TrimRight(raw, " \t\r\n"))) {
		return errors.New("bytes after the value")
	}
	return nil
}

// mailboxCodes are what the agent hears of the mailbox's refusals.
var mailboxCodes = map[mailbox.Code]string{
	mailbox.NotFound: wire.CodeNotFound, mailbox.Order: wire.CodeConflict, mailbox.Conflict: wire.CodeConflict,
	mailbox.Stale: wire.CodeStaleToken, mailbox.Fenced: wire.CodeConflict, mailbox.Limited: wire.CodeLimited,
	mailbox.TooLarge: wire.CodeTooLarge, mailbox.TooLate: wire.CodeConflict, mailbox.Closed: wire.CodeForbidden,
	mailbox.Restored: wire.CodeConflict, mailbox.Full: wire.CodeFull,
}

// frameError turns a refusal of the rules into one that crosses the tunnel; anything else stays here.
func frameError(err error) error {
	if e, ok := errors.AsType[*mailbox.Error](err); ok {
		return &tunnel.CallError{Code: mailboxCodes[e.Code], Message: e.Message}
	}
	if e, ok := errors.AsType[*pairing.Error](err); ok {
		return &tunnel.CallError{Code: e.Code, Message: e.Message}
	}
	return err
}

// deliverAll hands over what waits, one command after another, in their order. A command whose journalling is not
// known ends the link: the next link's report tells.
func (k *desk) deliverAll() {
	for k.link.Err() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), deliverTime)
		more, err := k.deliverOne(ctx)
		cancel()
		switch {
		case err != nil:
			k.failed("delivery", err)
			return
		case !more:
			return
		}
	}
}

func (k *desk) deliverOne(ctx context.Context) (more bool, err error) {
	if waits, err := k.waits(ctx); err != nil || !waits {
		return false, err
	}
	m := k.d.mailbox
	c, ok, err := m.Claim(ctx, k.pairing, k.epoch, k.d.now())
	if err != nil || !ok {
		return false, err
	}
	if c.Skip {
		k.d.inner.Wake(k.pairing) // it may have expired in this very claim: its sender waits
		k.d.feed.Wake(k.pairing)
		return true, k.skip(ctx, c)
	}
	defer k.begin(string(c.ID))()
	var got wire.Delivered
	out := wire.Deliver{Command: string(c.ID), Sequence: c.Sequence, Token: c.Token[:], Envelope: c.Envelope}
	if err := k.call(ctx, tunnel.Command, wire.FrameDeliver, out, &got); err != nil {
		return false, &linkError{err}
	}
	if got.State == wire.StateWaitingLocal {
		return true, m.Waiting(ctx, k.pairing, c.ID, c.Token, k.d.now())
	}
	return true, m.Accepted(ctx, k.pairing, c.ID, c.Token, k.d.now())
}

// begin notes that a command is being handed over; the function that it returns says that this is over.
func (k *desk) begin(command string) (end func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	recorded := make(chan struct{})
	k.delivering, k.recorded = command, recorded
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.delivering = ""
		close(recorded)
	}
}

// settled waits until the hand-over of a command, if it is under way, is recorded: the agent's next word about it may
// overtake its answer, which comes on another lane.
func (k *desk) settled(ctx context.Context, command string) {
	k.mu.Lock()
	recorded, busy := k.recorded, k.delivering == command
	k.mu.Unlock()
	if !busy {
		return
	}
	select {
	case <-recorded:
	case <-ctx.Done():
	}
}

// waits looks whether there is something to claim. Most wake-ups are about something else, and a look needs no
// transaction of the store's one writer.
func (k *desk) waits(ctx context.Context) (waits bool, err error) {
	err = k.d.rows.View(ctx, func(r mailbox.Reader) error {
		_, err := r.Next(k.pairing)
		if waits = err == nil; mailbox.CodeOf(err) == mailbox.NotFound {
			return nil
		}
		return err
	})
	return waits, err
}

func (k *desk) skip(ctx context.Context, c mailbox.Command) error {
	out := wire.Skip{
		Command: string(c.ID), Header: c.Header, Envelope: c.Digest[:], BodyHash: c.BodyHash[:], Signature: c.Signature,
		State: c.State.String(),
	}
	var got wire.Delivered
	if err := k.call(ctx, tunnel.Command, wire.FrameSkip, out, &got); err != nil {
		return &linkError{err}
	}
	return k.d.mailbox.Skipped(ctx, k.pairing, k.epoch, c.ID, k.d.now())
}

// linkError is a failure of the link or the agent, as opposed to the store.
type linkError struct{ err error }

func (e *linkError) Error() string { return e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

// failed ends a link whose agent did not answer as it must, and tries again later when it was the store.
func (k *desk) failed(what string, err error) {
	if k.link.Err() != nil || errors.Is(err, tunnel.ErrDraining) {
		return // it ends anyway
	}
	if _, ok := errors.AsType[*linkError](err); ok {
		k.d.log.Warn("a desktop did not answer", "pairing", k.pairing, "what", what, "error", err)
		k.link.Close(what + "_failed")
		return
	}
	switch mailbox.CodeOf(err) {
	case mailbox.Fenced:
		// A newer link was admitted, and the tunnel ends this one when that has won. If it never came up, this one is
		// of no use any more.
		time.AfterFunc(fencedTime, func() { k.link.Close("fenced") })
		return
	case mailbox.Closed:
		return // whoever revoked the pairing tells the desktop, and cuts the link then
	}
	k.d.log.Error("the store failed a link", "pairing", k.pairing, "what", what, "error", err)
	time.AfterFunc(retryStore, k.kick)
}

// tendAll tells the number of streams and asks for stops.
func (k *desk) tendAll() {
	if err := k.tellAttached(); err != nil {
		k.failed("attached", err)
		return
	}
	if err := k.askStops(); err != nil {
		k.failed("stop", err)
	}
}

func (k *desk) tellAttached() error {
	n := int64(k.d.feed.Count(k.pairing))
	if !k.ready.Load() || k.told.Load() == n {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), tellTime)
	defer cancel()
	if err := k.call(ctx, tunnel.Control, wire.FrameAttached, wire.Attached{Streams: int(n)}, nil); err != nil {
		return &linkError{err}
	}
	k.told.Store(n)
	return nil
}

// askStops asks for every wish that has no answer yet. The agent answers each within stopTime.
func (k *desk) askStops() error {
	ctx, cancel := context.WithTimeout(context.Background(), storeCall)
	stops, err := k.d.mailbox.Stops(ctx, k.pairing, k.epoch)
	cancel()
	if err != nil {
		return err
	}
	for _, c := range stops {
		if err := k.askStop(c); err != nil {
			return err
		}
	}
	return nil
}

func (k *desk) askStop(c mailbox.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	var got wire.Stopped
	if err := k.call(ctx, tunnel.Control, wire.FrameStop, wire.Stop{Command: string(c.ID), Why: c.Stop.String()}, &got); err != nil {
		return &linkError{err}
	}
	if got.Answer != "started" && got.Answer != "tombstone" {
		return &linkError{fmt.Errorf("a stop was answered %q", got.Answer)}
	}
	err := k.d.mailbox.Stopped(ctx, k.pairing, k.epoch, c.ID, got.Answer == "started", k.d.now())
	if mailbox.CodeOf(err) == mailbox.Conflict {
		return nil // it was answered already
	}
	return err
}
