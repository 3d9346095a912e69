package broker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// frameHandler answers one type of frame of an agent.
type frameHandler struct {
	class  tunnel.Class
	handle func(k *desk, ctx context.Context, body json.RawMessage) (any, error)
}

// frames is all that an agent may ask.
var frames = map[string]frameHandler{
	wire.FrameHello:     {tunnel.Control, on((*desk).onHello)},
	wire.FrameReport:    {tunnel.Control, on((*desk).onReport)},
	wire.FrameResult:    {tunnel.Control, on((*desk).onResult)},
	wire.FrameWaiting:   {tunnel.Control, on((*desk).onWaiting)},
	wire.FrameAccepted:  {tunnel.Control, on((*desk).onAccepted)},
	wire.FrameLinkOpen:  {tunnel.Control, on((*desk).onLinkOpen)},
	wire.FrameLinkGrant: {tunnel.Control, on((*desk).onLinkGrant)},
	wire.FrameLinkEnd:   {tunnel.Control, on((*desk).onLinkEnd)},
	wire.FrameRevoke:    {tunnel.Control, on((*desk).onRevoke)},
	wire.FrameBundle:    {tunnel.Control, on((*desk).onBundle)},
	wire.FrameEpoch:     {tunnel.Control, on((*desk).onEpoch)},
	wire.FrameBatch:     {tunnel.Events, on((*desk).onBatch)},
	wire.FrameBeat:      {tunnel.Events, on((*desk).onBeat)},
}

// on decodes the body of a frame for its handler.
func on[In, Out any](handle func(*desk, context.Context, In) (Out, error)) func(*desk, context.Context, json.RawMessage) (any, error) {
	return func(k *desk, ctx context.Context, body json.RawMessage) (any, error) {
		var in In
		if err := strict(body, &in); err != nil {
			return nil, malformed("the body is not that of this frame")
		}
		return handle(k, ctx, in)
	}
}

func malformed(text string) error { return &pairing.Error{Code: wire.CodeMalformed, Message: text} }

var durable wire.Durable

func (k *desk) onResult(ctx context.Context, in wire.Result) (wire.Durable, error) {
	o, err := k.outcome(ctx, in)
	if err != nil {
		return durable, err
	}
	return durable, k.d.mailbox.Result(ctx, k.pairing, o, k.d.now())
}

// outcome holds a result against its own signature and the command that it names.
func (k *desk) outcome(ctx context.Context, in wire.Result) (mailbox.Outcome, error) {
	state, err := mailbox.ParseState(in.State)
	id, err2 := mailbox.ParseCommandID(in.Command)
	if errors.Join(err, err2) != nil {
		return mailbox.Outcome{}, malformed("the result names no command or no state")
	}
	out := mailbox.Outcome{Command: id, Token: mailbox.ParseToken(in.Token), State: state, Reason: in.Reason, Sealed: in.Sealed}
	if len(in.Sealed) == 0 {
		return out, nil
	}
	r, err := proof.OpenResult(k.dsig, in.Sealed)
	if err != nil || r.Header.Pairing != k.pairing || r.Header.Command != in.Command || r.Header.State != in.State {
		return mailbox.Outcome{}, malformed("the sealed result does not verify, or is another one")
	}
	c, err := k.d.mailbox.Get(ctx, k.pairing, id)
	if mailbox.CodeOf(err) == mailbox.NotFound {
		return out, nil // the mailbox says so, or passes it over in a report
	}
	if err == nil && (c.Surface != r.Header.Surface || c.Digest != r.Header.Envelope) {
		err = malformed("the sealed result is of another envelope")
	}
	return out, err
}

func (k *desk) onWaiting(ctx context.Context, in wire.CommandRef) (wire.Durable, error) {
	k.settled(ctx, in.Command)
	return durable, k.d.mailbox.Waiting(ctx, k.pairing, mailbox.CommandID(in.Command), mailbox.ParseToken(in.Token), k.d.now())
}

func (k *desk) onAccepted(ctx context.Context, in wire.CommandRef) (wire.Durable, error) {
	k.settled(ctx, in.Command)
	return durable, k.d.mailbox.Accepted(ctx, k.pairing, mailbox.CommandID(in.Command), mailbox.ParseToken(in.Token), k.d.now())
}

func (k *desk) row(ctx context.Context) (pairing.Pairing, error) {
	return k.d.registry.Pairings.Pairing(ctx, k.pairing)
}

func (k *desk) onLinkOpen(ctx context.Context, in wire.LinkOpen) (wire.LinkOpened, error) {
	open, err := proof.ParseMessage[proof.Open](in.Open)
	if err != nil {
		return wire.LinkOpened{}, malformed("this does not open a linking session")
	}
	row, err := k.row(ctx)
	if err != nil {
		return wire.LinkOpened{}, err
	}
	l, err := k.d.linking.Open(ctx, row, open, k.d.now())
	if err != nil {
		return wire.LinkOpened{}, err
	}
	return wire.LinkOpened{Nameplate: l.Nameplate, Expires: l.Expires.UnixMilli()}, nil
}

// onLinkGrant takes message 6 of a linking; without a pid it is the renewal of a grant that exists.
func (k *desk) onLinkGrant(ctx context.Context, in wire.LinkGranted) (wire.Durable, error) {
	row, err := k.row(ctx)
	if err != nil {
		return durable, err
	}
	if len(in.Pid) == 0 {
		_, err := k.d.registry.Renew(ctx, row, in.Public, k.d.now())
		return durable, err
	}
	l, _, err := k.d.linking.Grant(ctx, row, in.Grant, in.Public, k.d.now())
	if err != nil {
		return durable, err
	}
	k.d.api.LinkMoved(l.Pid)
	return durable, nil
}

func (k *desk) onLinkEnd(ctx context.Context, in wire.LinkEnd) (wire.Durable, error) {
	var pid proof.LinkID
	if len(in.Pid) != len(pid) {
		return durable, malformed("a pid has 8 bytes")
	}
	copy(pid[:], in.Pid)
	event := pairing.EventBurn
	if in.Reason == proof.LinkCancelled.String() || in.Reason == proof.LinkExpired.String() {
		event = pairing.EventCancel
	}
	row, err := k.row(ctx)
	if err != nil {
		return durable, err
	}
	if in.Reason == "" || len(in.Reason) > mailbox.MaxReason {
		return durable, malformed("the reason is not a code")
	}
	l, err := k.d.linking.EndByDesktop(ctx, row, pid, event, in.Reason, k.d.now())
	if err != nil {
		return durable, err
	}
	k.d.api.LinkMoved(pid)
	if l.State != proof.LinkDone && !l.Surface.IsZero() {
		k.d.api.SurfaceGone(k.pairing, l.Surface)
	}
	return durable, nil
}

// onRevoke takes a revocation that the desktop signed: of a surface, or of the pairing.
func (k *desk) onRevoke(ctx context.Context, in wire.Revocation) (wire.Durable, error) {
	rev := proof.Revocation{Pairing: k.pairing, Time: in.Time}
	if in.Surface != "" {
		id, err := proof.ParseSurfaceID(in.Surface)
		if err != nil {
			return durable, malformed("the surface is not an id")
		}
		rev.Surface = id
	}
	if rev.Verify(k.dsig, in.Proof) != nil {
		return durable, malformed("the revocation is not signed by the desktop")
	}
	if in.Surface != "" {
		return durable, k.revokeSurface(ctx, rev.Surface)
	}
	if err := k.d.registry.Revoke(ctx, k.pairing, "desktop", k.origin(), k.d.now()); err != nil {
		return durable, err
	}
	k.d.api.PairingGone(k.pairing, "desktop")
	return durable, nil
}

func (k *desk) revokeSurface(ctx context.Context, id proof.SurfaceID) error {
	if err := k.d.registry.RevokeSurface(ctx, k.pairing, id, "desktop", k.origin(), k.d.now()); err != nil {
		return err
	}
	k.d.api.SurfaceGone(k.pairing, id)
	return nil
}

func (k *desk) origin() pairing.Origin {
	return pairing.Origin{Kind: "desktop", ID: k.pairing.String(), Key: k.dsig.String()}
}

func (k *desk) onBundle(ctx context.Context, in wire.Bundle) (wire.Durable, error) {
	row, err := k.row(ctx)
	if err != nil {
		return durable, err
	}
	if err := k.d.registry.Bundle(ctx, row, in.Bundle, k.d.now()); err != nil {
		return durable, err
	}
	k.d.feed.Presence(k.pairing)
	return durable, nil
}

// onEpoch stores the boxes of a new epoch; each must be signed for exactly this pairing, epoch and surface.
func (k *desk) onEpoch(ctx context.Context, in wire.Epoch) (wire.Durable, error) {
	var id proof.EpochID
	if len(in.Epoch) != len(id) || len(in.Boxes) > mailbox.MaxBoxes {
		return durable, malformed("an epoch's id has 8 bytes, and it has at most 256 boxes")
	}
	copy(id[:], in.Epoch)
	boxes := make(map[proof.SurfaceID][]byte, len(in.Boxes))
	for name, raw := range in.Boxes {
		surface, err := proof.ParseSurfaceID(name)
		if err != nil {
			return durable, malformed("a box is for no surface")
		}
		box, err := proof.OpenEpochBox(k.dsig, raw)
		if err != nil || box.Header.Pairing != k.pairing || box.Header.Epoch != id || box.Header.Surface != surface {
			return durable, malformed("a box does not verify, or is for another epoch or surface")
		}
		boxes[surface] = raw
	}
	return durable, k.d.mailbox.BeginEpoch(ctx, k.pairing, k.epoch, id, boxes, k.d.now())
}

func (k *desk) onBatch(ctx context.Context, in wire.Batch) (wire.BatchReply, error) {
	b, err := proof.OpenBatch(k.dsig, in.Batch)
	if err != nil || b.Header.Pairing != k.pairing {
		return wire.BatchReply{}, malformed("the batch does not verify")
	}
	row := mailbox.Batch{
		Epoch: b.Header.Epoch, Seq: b.Header.Seq, Class: mailbox.Class(b.Header.Class.String()),
		Time: time.UnixMilli(b.Header.Time), Bytes: in.Batch,
	}
	if b.Header.Class.IsRequest() {
		row.Request = string(b.Header.Reference[:])
	}
	cursor, err := k.d.mailbox.Append(ctx, k.pairing, k.epoch, []mailbox.Batch{row}, k.d.now())
	return wire.BatchReply{Cursor: cursor}, err
}

// onBeat relays a sign of life that the desktop signed. It is not stored: an old one would say nothing.
func (k *desk) onBeat(_ context.Context, in wire.Beat) (wire.Durable, error) {
	if _, err := proof.OpenBeat(k.dsig, in.Beat); err != nil || in.Pairing != k.pairing.String() {
		return durable, malformed("the beat does not verify")
	}
	k.d.feed.Beat(k.pairing, in.Beat)
	return durable, nil
}
