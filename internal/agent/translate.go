package agent

import (
	"context"
	"encoding/json"
	"time"

	"cowork.example.com/broker/internal/redact"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

const (
	maxStreams = 64  // texts that stream at once
	maxTurns   = 256 // turns whose prompt is remembered
)

// take turns one event of the executor into what surfaces see of it. It runs in the publisher's goroutine.
func (p *publisher) take(ctx context.Context, e wire.ExecEvent) {
	switch e.Type {
	case wire.ExecRequestOpen:
		p.openRequest(ctx, e)
		return
	case wire.ExecRequestClosed:
		p.requestClosed(ctx, e)
		return
	}
	typ, class, data := p.translate(e)
	if data == nil {
		return
	}
	raw, err := json.Marshal(data)
	if err != nil {
		p.log.Error("an event has no JSON", "type", e.Type, "error", err)
		return
	}
	p.add(ctx, item{class: class, key: proof.KeyView, event: wire.Event{
		Type: typ, SessionID: e.SessionID, MessageID: e.MessageID, Command: p.commandOf(ctx, e.CommandRef),
		Time: eventTime(e, p.now()).UnixMilli(), Data: raw,
	}})
}

func eventTime(e wire.ExecEvent, now time.Time) time.Time {
	if e.Time.IsZero() {
		return now
	}
	return e.Time
}

// translate gives the event's type and class for surfaces and its data, redacted; nil for what they do not get.
func (p *publisher) translate(e wire.ExecEvent) (typ string, class proof.Class, data any) {
	r := p.redactor()
	switch e.Type {
	case wire.ExecText:
		if d := p.delta(r, e); d != nil {
			return wire.EventText, proof.ClassText, d
		}
	case wire.ExecPart:
		if part := partOf(r, e.Data); part != nil {
			delete(p.streams, part.ID)
			return wire.EventPart, proof.ClassText, part
		}
	case wire.ExecSessionChanged:
		if e.Session != nil {
			return wire.EventSession, proof.ClassOther, sessionOf(r, *e.Session)
		}
	case wire.ExecTurnStarted:
		return wire.EventTurnStarted, proof.ClassOther, wire.Turn{TurnID: e.CommandRef}
	case wire.ExecTurnEnded:
		clear(p.streams)
		return wire.EventTurnEnded, proof.ClassTurnEnded, wire.Turn{TurnID: e.CommandRef, Outcome: e.Outcome, Message: failureText(r, e.Data)}
	case wire.ExecRuntime:
		if e.Health != nil {
			return wire.EventRuntime, proof.ClassOther, wire.RuntimeState{State: e.Health.State, Message: r.Text(e.Health.Problem)}
		}
	}
	return "", 0, nil
}

// delta redacts a piece of streamed text; nil while nothing of it can be said.
func (p *publisher) delta(r *redact.Redactor, e wire.ExecEvent) any {
	var d struct {
		PartID, Field, Delta string
	}
	if json.Unmarshal(e.Data, &d) != nil || d.Field != "text" {
		return nil
	}
	s := p.streams[d.PartID]
	if s == nil {
		if len(p.streams) >= maxStreams {
			clear(p.streams)
		}
		s = &redactStream{}
		p.streams[d.PartID] = s
	}
	s.redact = r.Text
	text := s.push(d.Delta)
	if text == "" {
		return nil
	}
	return wire.TextDelta{Part: d.PartID, Text: text}
}

// commandOf names the prompt that began a turn by its envelope; empty for turns of the desk.
func (p *publisher) commandOf(ctx context.Context, ref string) string {
	if ref == "" {
		return ""
	}
	if name, ok := p.turns[ref]; ok {
		return name
	}
	turn, err := p.journal.Turn(ctx, ref)
	if err != nil || turn.Envelope.IsZero() || turn.Pairing != p.pairing.ID {
		return ""
	}
	if len(p.turns) >= maxTurns {
		clear(p.turns)
	}
	p.turns[ref] = turn.Envelope.String()
	return p.turns[ref]
}

// runtimePart is what this agent reads of the runtime's part objects.
type runtimePart struct {
	ID    string `json:"id"`
	Type  string `json:"type"`
	Text  string `json:"text"`
	Tool  string `json:"tool"`
	State struct {
		Status string          `json:"status"`
		Input  json.RawMessage `json:"input"`
		Output string          `json:"output"`
		Error  string          `json:"error"`
	} `json:"state"`
	Filename string `json:"filename"`
}

// partOf is a part as surfaces see it; nil for the runtime's own bookkeeping.
func partOf(r *redact.Redactor, raw json.RawMessage) *wire.Part {
	var in runtimePart
	if json.Unmarshal(raw, &in) != nil || in.ID == "" {
		return nil
	}
	out := wire.Part{ID: in.ID, Type: in.Type}
	switch in.Type {
	case "text", "reasoning":
		out.Text = r.Text(in.Text)
	case "tool":
		out.Tool, out.State, out.Output = in.Tool, in.State.Status, r.Text(in.State.Output)
		if in.State.Error != "" {
			out.Output = r.Text(in.State.Error)
		}
		if input, err := r.JSON(in.State.Input); err == nil {
			out.Input = input
		}
	case "file":
		out.Text = r.Text(in.Filename)
	default:
		return nil
	}
	return &out
}

// sessionOf is a session as surfaces see it.
func sessionOf(r *redact.Redactor, s wire.ExecSession) wire.Session {
	return wire.Session{
		ID: s.ID, Title: r.Text(s.Title), Project: s.Project, State: s.State, Turn: s.TurnID, Parent: s.ParentID,
		Created: millis(s.CreatedAt), Updated: millis(s.UpdatedAt),
	}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// failureText is the plain message of the runtime's error object, redacted.
func failureText(r *redact.Redactor, raw json.RawMessage) string {
	var e struct {
		Name string `json:"name"`
		Data struct {
			Message string `json:"message"`
		} `json:"data"`
	}
	if len(raw) == 0 || json.Unmarshal(raw, &e) != nil {
		return ""
	}
	if e.Data.Message == "" {
		return r.Text(e.Name)
	}
	return r.Text(e.Data.Message)
}
