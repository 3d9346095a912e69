package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// ExecutorEcho is the name of the executor that answers with the prompt.
const ExecutorEcho = "echo"

// maxEchoSessions bounds what the echo remembers; the oldest make room.
const maxEchoSessions = 1000

// echo answers each prompt with itself. It runs nothing and remembers only as long as it lives: for smoke tests and
// benchmarks, and status says that it is one.
type echo struct {
	now  func() time.Time
	born time.Time

	mu       sync.Mutex
	sink     func(wire.ExecEvent)
	sessions map[string]*echoSession
	order    []string // of sessions, oldest first
}

type echoSession struct {
	wire.ExecSession
	messages []wire.ExecMessage
}

// NewEcho returns the echo executor.
func NewEcho(now func() time.Time) Executor {
	return &echo{now: now, born: now(), sessions: map[string]*echoSession{}}
}

// Run gives events to sink until ctx ends.
func (e *echo) Run(ctx context.Context, sink func(wire.ExecEvent)) error {
	e.setSink(sink)
	<-ctx.Done()
	e.setSink(nil)
	return nil
}

func (e *echo) setSink(sink func(wire.ExecEvent)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sink = sink
}

func (e *echo) Prepare(kind string) string {
	if kind == proof.Prompt.String() {
		return "msg_" + rand.Text()
	}
	return ""
}

// Execute implements Executor. Decisions find nothing to decide: the echo never asks.
func (e *echo) Execute(_ context.Context, cmd wire.ExecCommand) (wire.ExecResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch cmd.Kind {
	case proof.CreateSession.String():
		return e.create(cmd), nil
	case proof.Status.String():
		return e.list(), nil
	}
	s, ok := e.sessions[cmd.SessionID]
	if !ok {
		return wire.ExecResult{}, &wire.ExecError{Code: wire.ExecNotFound, Message: "no such session"}
	}
	switch cmd.Kind {
	case proof.Prompt.String():
		return e.prompt(s, cmd), nil
	case proof.History.String():
		return wire.ExecResult{History: s.page(cmd)}, nil
	case proof.Abort.String():
		return wire.ExecResult{}, &wire.ExecError{Code: wire.ExecNotRunning, Message: "that turn does not run"}
	}
	return wire.ExecResult{}, &wire.ExecError{Code: wire.ExecNotPending, Message: "the echo asks nothing"}
}

func (e *echo) create(cmd wire.ExecCommand) wire.ExecResult {
	now := e.now()
	s := &echoSession{ExecSession: wire.ExecSession{
		ID: "ses_" + rand.Text(), Title: cmd.Title, Project: cmd.Project, State: wire.SessionIdle, CreatedAt: now, UpdatedAt: now,
	}}
	if len(e.order) == maxEchoSessions {
		delete(e.sessions, e.order[0])
		e.order = e.order[1:]
	}
	e.sessions[s.ID], e.order = s, append(e.order, s.ID)
	e.emit(wire.ExecEvent{Type: wire.ExecSessionChanged, SessionID: s.ID, Session: &s.ExecSession})
	copied := s.ExecSession
	return wire.ExecResult{Session: &copied}
}

func (e *echo) list() wire.ExecResult {
	r := wire.ExecResult{}
	for i := len(e.order) - 1; i >= 0; i-- {
		r.Sessions = append(r.Sessions, e.sessions[e.order[i]].ExecSession)
	}
	return r
}

// prompt stores the prompt and its answer, and tells it all as a turn.
func (e *echo) prompt(s *echoSession, cmd wire.ExecCommand) wire.ExecResult {
	now := e.now()
	part := "prt_" + strings.TrimPrefix(cmd.Ref, "msg_")
	answer := "msg_" + rand.Text()
	s.UpdatedAt = now
	s.messages = append(s.messages,
		wire.ExecMessage{ID: cmd.Ref, Role: "user", CreatedAt: now, Parts: []json.RawMessage{textPart(part+"_u", cmd.Text)}},
		wire.ExecMessage{ID: answer, Role: "assistant", ParentID: cmd.Ref, CreatedAt: now, Parts: []json.RawMessage{textPart(part, cmd.Text)}})
	event := func(typ, message string, data any, outcome string) {
		raw, err := json.Marshal(data)
		if err != nil {
			return // strings and maps of strings always have JSON
		}
		e.emit(wire.ExecEvent{Type: typ, SessionID: s.ID, MessageID: message, CommandRef: cmd.Ref, Time: now, Data: raw, Outcome: outcome})
	}
	event(wire.ExecTurnStarted, cmd.Ref, nil, "")
	event(wire.ExecText, answer, map[string]string{"partID": part, "field": "text", "delta": cmd.Text}, "")
	event(wire.ExecPart, answer, textPart(part, cmd.Text), "")
	event(wire.ExecTurnEnded, answer, nil, wire.OutcomeDone)
	copied := s.ExecSession
	return wire.ExecResult{Session: &copied, MessageID: cmd.Ref}
}

func textPart(id, text string) json.RawMessage {
	raw, err := json.Marshal(map[string]string{"id": id, "type": "text", "text": text})
	if err != nil {
		return nil // strings always have JSON
	}
	return raw
}

func (e *echo) emit(ev wire.ExecEvent) {
	if e.sink != nil {
		e.sink(ev)
	}
}

// page is the messages before a cursor, which is the id of the oldest one known.
func (s *echoSession) page(cmd wire.ExecCommand) *wire.ExecPage {
	end := len(s.messages)
	for i, m := range s.messages {
		if m.ID == cmd.Cursor {
			end = i
		}
	}
	limit := cmd.Limit
	if limit <= 0 {
		limit = 50
	}
	start := max(0, end-limit)
	p := &wire.ExecPage{SessionID: s.ID, Messages: s.messages[start:end:end]}
	if start > 0 {
		p.Next = s.messages[start].ID
	}
	return p
}

// Find implements Executor. What an echo did died with its process, so a command that is asked for never ran.
func (e *echo) Find(_ context.Context, cmd wire.ExecCommand) (wire.ExecFound, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sessions {
		for _, m := range s.messages {
			if cmd.Ref != "" && m.ID == cmd.Ref {
				copied := s.ExecSession
				return wire.ExecFound{State: wire.FoundRan, Result: wire.ExecResult{Session: &copied, MessageID: cmd.Ref}}, nil
			}
		}
	}
	return wire.ExecFound{State: wire.FoundAbsent}, nil
}

// Requests implements Executor: the echo asks nothing.
func (e *echo) Requests(context.Context) ([]wire.ExecRequest, error) { return nil, nil }

// Health implements Executor.
func (e *echo) Health(context.Context) wire.ExecHealth {
	return wire.ExecHealth{Executor: ExecutorEcho, State: wire.RuntimeReady, Since: e.born}
}
