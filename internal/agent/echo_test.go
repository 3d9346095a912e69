package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

func TestEcho(t *testing.T) {
	e := NewEcho(time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan wire.ExecEvent, 16)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, func(ev wire.ExecEvent) { events <- ev }) }()
	created, err := e.Execute(ctx, wire.ExecCommand{Kind: "create_session", Title: "t"})
	if err != nil || created.Session == nil {
		t.Fatalf("%+v %v", created, err)
	}
	for {
		if e.(*echo).hasSink() {
			break
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
	cmd := wire.ExecCommand{Kind: "prompt", SessionID: created.Session.ID, Ref: e.Prepare("prompt"), Text: "hello"}
	if found, _ := e.Find(ctx, cmd); found.State != wire.FoundAbsent {
		t.Fatalf("%+v", found)
	}
	got, err := e.Execute(ctx, cmd)
	if err != nil || got.MessageID != cmd.Ref {
		t.Fatalf("%+v %v", got, err)
	}
	if found, _ := e.Find(ctx, cmd); found.State != wire.FoundRan {
		t.Fatalf("%+v", found)
	}
	var types []string
	for len(types) < 4 {
		ev := <-events
		if ev.Type == wire.ExecSessionChanged {
			continue
		}
		if types = append(types, ev.Type); ev.CommandRef != cmd.Ref {
			t.Errorf("%+v", ev)
		}
	}
	if want := []string{wire.ExecTurnStarted, wire.ExecText, wire.ExecPart, wire.ExecTurnEnded}; types[0] != want[0] || types[3] != want[3] {
		t.Fatalf("%q", types)
	}
	history, err := e.Execute(ctx, wire.ExecCommand{Kind: "history", SessionID: cmd.SessionID, Limit: 1})
	if err != nil || len(history.History.Messages) != 1 || history.History.Next == "" {
		t.Fatalf("%+v %v", history, err)
	}
	older, err := e.Execute(ctx, wire.ExecCommand{Kind: "history", SessionID: cmd.SessionID, Cursor: history.History.Next})
	if err != nil || len(older.History.Messages) != 1 || older.History.Messages[0].ID != cmd.Ref || older.History.Next != "" {
		t.Fatalf("%+v %v", older, err)
	}
	for kind, code := range map[string]string{"abort": wire.ExecNotRunning, "permission.respond": wire.ExecNotPending} {
		refused := &wire.ExecError{}
		if _, err := e.Execute(ctx, wire.ExecCommand{Kind: kind, SessionID: cmd.SessionID}); !errors.As(err, &refused) || refused.Code != code {
			t.Errorf("%s: %v", kind, err)
		}
	}
	refused := &wire.ExecError{}
	if _, err := e.Execute(ctx, wire.ExecCommand{Kind: "prompt", SessionID: "none"}); !errors.As(err, &refused) || refused.Code != wire.ExecNotFound {
		t.Errorf("%v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func (e *echo) hasSink() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sink != nil
}

func TestEchoForgetsTheOldest(t *testing.T) {
	e := NewEcho(time.Now).(*echo)
	for range maxEchoSessions + 1 {
		if _, err := e.Execute(t.Context(), wire.ExecCommand{Kind: "create_session"}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := e.Execute(t.Context(), wire.ExecCommand{Kind: "status"})
	if err != nil || len(list.Sessions) != maxEchoSessions || len(e.sessions) != maxEchoSessions {
		t.Fatalf("%d sessions, %v", len(list.Sessions), err)
	}
}
