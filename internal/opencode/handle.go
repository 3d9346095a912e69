package opencode

import (
	"context"
	"encoding/json"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

func (f *follower) onSession(ev event) error {
	var p struct {
		Info session `json:"info"`
	}
	if !decode(ev, &p) || !sessionID.MatchString(p.Info.ID) {
		return nil
	}
	if f.e.tracker.note(p.Info) || ev.Type == "session.created" {
		f.tellSession(p.Info.ID)
	}
	return nil
}

// tellSession reports a session as it is now.
func (f *follower) tellSession(id string) {
	if s, ok := f.e.tracker.find(id); ok {
		v := f.e.view(s)
		f.emit(wire.ExecEvent{Type: wire.ExecSessionChanged, SessionID: id, CommandRef: v.TurnID, Session: &v})
	}
}

func (f *follower) onDeleted(ctx context.Context, ev event) error {
	var p struct {
		Info session `json:"info"`
	}
	if !decode(ev, &p) {
		return nil
	}
	err := f.onOther(ctx, ev)
	for _, u := range f.e.tracker.openTurns(p.Info.ID) {
		f.endTurn(p.Info.ID, u.ref, wire.OutcomeInterrupted, nil)
	}
	for _, r := range f.e.tracker.openRequests() {
		if r.SessionID == p.Info.ID {
			f.closeRequest(r.ID, wire.DecisionLost)
		}
	}
	f.e.tracker.drop(p.Info.ID)
	return err
}

func (f *follower) onStatus(ctx context.Context, ev event) error {
	var p struct {
		SessionID string `json:"sessionID"`
		Status    status `json:"status"`
	}
	if !decode(ev, &p) {
		return nil
	}
	if ours, err := f.ours(ctx, p.SessionID); !ours {
		return err
	}
	if f.e.tracker.setState(p.SessionID, p.Status, time.Now()) {
		f.tellSession(p.SessionID)
		return f.settle(ctx, p.SessionID)
	}
	return nil
}

func (f *follower) onMessage(ctx context.Context, ev event) error {
	var p struct {
		Info info `json:"info"`
	}
	if !decode(ev, &p) || !messageID.MatchString(p.Info.ID) {
		return nil
	}
	if ours, err := f.ours(ctx, p.Info.SessionID); !ours {
		return err
	}
	m := p.Info
	m.Error = nil // remembered by the thousand
	f.e.tracker.sawMessage(m)
	if m.Role == "user" {
		// Old messages are updated too; a turn that ended before we came is none.
		if m.Time.Created.time().After(f.e.born.Add(-time.Second)) {
			f.e.tracker.openTurn(m.SessionID, m.ID, m.Time.Created.time())
		}
		f.tellTurns(m.SessionID)
		return nil
	}
	if open := f.e.tracker.openTurns(m.SessionID); len(open) > 1 && open[0].ref != m.ParentID {
		return f.settle(ctx, m.SessionID) // a later message is answered: the earlier turn is over
	}
	return nil
}

// tellTurns reports the turns that began.
func (f *follower) tellTurns(session string) {
	for _, ref := range f.e.tracker.tell(session) {
		f.emit(wire.ExecEvent{Type: wire.ExecTurnStarted, SessionID: session, MessageID: ref, CommandRef: ref})
	}
}

func (f *follower) onPart(ctx context.Context, ev event) error {
	var p struct {
		Part json.RawMessage `json:"part"`
	}
	var head part
	if !decode(ev, &p) || json.Unmarshal(p.Part, &head) != nil {
		return nil
	}
	if ours, err := f.ours(ctx, head.SessionID); !ours {
		return err
	}
	f.tellPart(ctx, head, p.Part)
	return nil
}

// tellPart reports a whole part.
func (f *follower) tellPart(ctx context.Context, head part, raw json.RawMessage) {
	f.emit(wire.ExecEvent{
		Type: wire.ExecPart, SessionID: head.SessionID, MessageID: head.MessageID,
		CommandRef: f.ref(ctx, head.SessionID, head.MessageID),
		Role:       f.e.tracker.messageInfo(head.MessageID).Role, Data: raw,
	})
}

func (f *follower) onDelta(ctx context.Context, ev event) error {
	var p struct {
		SessionID string `json:"sessionID"`
		MessageID string `json:"messageID"`
		PartID    string `json:"partID"`
		Field     string `json:"field"`
		Delta     string `json:"delta"`
	}
	if !decode(ev, &p) {
		return nil
	}
	if ours, err := f.ours(ctx, p.SessionID); !ours {
		return err
	}
	data, err := json.Marshal(map[string]string{"partID": p.PartID, "field": p.Field, "delta": p.Delta})
	if err != nil {
		return err
	}
	f.emit(wire.ExecEvent{
		Type: wire.ExecText, SessionID: p.SessionID, MessageID: p.MessageID,
		CommandRef: f.ref(ctx, p.SessionID, p.MessageID),
		Role:       f.e.tracker.messageInfo(p.MessageID).Role, Data: data,
	})
	return nil
}

func (f *follower) onAsked(ctx context.Context, ev event) error {
	a, ok := readAsked(ev.Props)
	if !ok {
		return nil
	}
	if ours, err := f.ours(ctx, a.SessionID); !ours {
		return err
	}
	r, err := f.e.toRequest(ctx, f.ep.client, a)
	if err != nil {
		return err
	}
	f.tellRequest(r)
	return nil
}

// tellRequest reports a request that opened, once.
func (f *follower) tellRequest(r wire.ExecRequest) {
	if f.e.tracker.openRequest(r) {
		f.emit(wire.ExecEvent{
			Type: wire.ExecRequestOpen, SessionID: r.SessionID, MessageID: r.MessageID,
			CommandRef: f.e.tracker.turnOf(r.RootID), Request: &r,
		})
	}
}

func (f *follower) onReplied(ev event) error {
	var p struct {
		RequestID string `json:"requestID"`
		Reply     string `json:"reply"`
	}
	if !decode(ev, &p) || p.RequestID == "" {
		return nil
	}
	decision := wire.DecisionAllowed
	switch {
	case ev.Type == "question.replied":
		decision = wire.DecisionAnswered
	case ev.Type == "question.rejected":
		decision = wire.DecisionRejected
	case p.Reply == "reject":
		decision = wire.DecisionDenied
	}
	f.closeRequest(p.RequestID, decision)
	return nil
}

// closeRequest reports what became of a request, once.
func (f *follower) closeRequest(id, decision string) {
	if r, open := f.e.tracker.closeRequest(id, decision); open {
		f.emit(wire.ExecEvent{
			Type: wire.ExecRequestClosed, SessionID: r.SessionID, MessageID: r.MessageID,
			CommandRef: f.e.tracker.turnOf(r.RootID), Request: &r, Outcome: decision,
		})
	}
}

// onOther passes on what belongs to a session and has no form of its own.
func (f *follower) onOther(ctx context.Context, ev event) error {
	var p struct {
		SessionID string `json:"sessionID"`
		Info      struct {
			ID string `json:"id"`
		} `json:"info"`
	}
	if !decode(ev, &p) {
		return nil
	}
	id := p.SessionID
	if id == "" {
		id = p.Info.ID
	}
	if ours, err := f.ours(ctx, id); !ours {
		return err
	}
	data, err := json.Marshal(map[string]any{"type": ev.Type, "properties": ev.Props})
	if err != nil {
		return err
	}
	f.emit(wire.ExecEvent{Type: wire.ExecOther, SessionID: id, CommandRef: f.ref(ctx, id, ""), Data: data})
	return nil
}
