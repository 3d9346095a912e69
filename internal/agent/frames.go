package agent

import (
	"context"
	"encoding/json"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// codeOldLink refuses what comes over a link that is no longer the current one.
const codeOldLink = "old_link"

// route is what answers one type of frame, and the lane it comes on.
type route struct {
	class  tunnel.Class
	answer func(l *link, ctx context.Context, body json.RawMessage) (any, error)
}

// routes is every frame that a broker may send; anything else is refused.
var routes = map[string]route{
	wire.FrameDeliver:    {tunnel.Command, answer((*link).deliver)},
	wire.FrameSkip:       {tunnel.Command, answer((*link).skip)},
	wire.FrameStop:       {tunnel.Control, answer((*link).stop)},
	wire.FrameLinkClaim:  {tunnel.Control, answer((*link).linkClaim)},
	wire.FrameLinkReveal: {tunnel.Control, answer((*link).linkReveal)},
	wire.FrameLinkFinish: {tunnel.Control, answer((*link).linkFinish)},
	wire.FrameLinkLost:   {tunnel.Control, answer((*link).linkLost)},
	wire.FrameRevoked:    {tunnel.Control, answer((*link).revoked)},
	wire.FrameAttached:   {tunnel.Control, answer((*link).attached)},
	wire.FrameNotice:     {tunnel.Control, answer((*link).notice)},
}

// answer decodes a frame's body strictly for a handler.
func answer[Q, A any](handle func(*link, context.Context, Q) (A, error)) func(*link, context.Context, json.RawMessage) (any, error) {
	return func(l *link, ctx context.Context, body json.RawMessage) (any, error) {
		q, err := strictly[Q](body)
		if err != nil {
			return nil, &tunnel.CallError{Code: wire.CodeMalformed, Message: "the frame's body is not of its type"}
		}
		return handle(l, ctx, q)
	}
}

// serve answers one frame of the broker. Nothing counts before the link's report was answered: until then it waits.
func (l *link) serve(ctx context.Context, class tunnel.Class, req []byte) ([]byte, error) {
	f, err := strictly[wire.Frame](req)
	if err != nil {
		return nil, &tunnel.CallError{Code: wire.CodeMalformed, Message: "not a frame"}
	}
	r, ok := routes[f.Type]
	if !ok || r.class != class {
		return nil, &tunnel.CallError{Code: wire.CodeUnsupported, Message: "no such frame on this lane"}
	}
	select {
	case <-l.ready:
	case <-l.conn.Done():
		return nil, &tunnel.CallError{Code: codeOldLink}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	reply, err := r.answer(l, ctx, f.Body)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(reply)
	if err != nil {
		return nil, err
	}
	return json.Marshal(wire.Frame{Body: body})
}

// takes holds the inbox for this link, or refuses when it is not the current one. The caller must call done.
func (l *link) takes() (done func(), err error) {
	p := l.run
	p.inbox.Lock()
	p.mu.Lock()
	current, ended := p.current == l, p.ended
	p.mu.Unlock()
	if !current || ended {
		p.inbox.Unlock()
		return nil, &tunnel.CallError{Code: codeOldLink, Message: "this link no longer counts"}
	}
	return p.inbox.Unlock, nil
}

func (l *link) linkClaim(ctx context.Context, c wire.LinkClaim) (wire.LinkOffer, error) {
	return l.run.linker.HandleClaim(ctx, c)
}

func (l *link) linkReveal(ctx context.Context, r wire.LinkReveal) (wire.Durable, error) {
	return wire.Durable{}, l.run.linker.HandleReveal(ctx, r)
}

func (l *link) linkFinish(ctx context.Context, f wire.LinkFinish) (wire.Durable, error) {
	return wire.Durable{}, l.run.linker.HandleFinish(ctx, f)
}

func (l *link) linkLost(ctx context.Context, e wire.LinkEnd) (wire.Durable, error) {
	return wire.Durable{}, l.run.linker.HandleLost(ctx, e)
}

func (l *link) revoked(ctx context.Context, r wire.Revocation) (wire.Durable, error) {
	return wire.Durable{}, l.run.applyRevocations(ctx, []wire.Revocation{r})
}

func (l *link) attached(_ context.Context, a wire.Attached) (wire.Durable, error) {
	l.run.pub.Attached(a.Streams)
	return wire.Durable{}, nil
}

// notice tells the owner and the surfaces what the broker wants known. It is the broker's word.
func (l *link) notice(_ context.Context, n wire.Notice) (wire.Durable, error) {
	l.run.log.Warn("the broker says", "code", n.Code, "text", n.Text)
	data, err := json.Marshal(n)
	if err != nil {
		return wire.Durable{}, err
	}
	l.run.pub.Notice(wire.Event{Type: wire.EventNotice, Time: l.run.now().UnixMilli(), Data: data})
	return wire.Durable{}, nil
}
