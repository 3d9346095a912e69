package opencode

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// fakeRuntime is a fake of OpenCode with one session: only what prompts need, with the
// failures that the real one does not produce on demand.
type fakeRuntime struct {
	dir    string
	stores func(id string) bool // whether a posted message is stored
	cut    bool                 // posts end without an answer
	parts  string               // of the stored message; empty: a text

	mu       sync.Mutex
	posts    int
	messages map[string]bool
}

func (f *fakeRuntime) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := filepath.Base(r.URL.Path)
	switch {
	case r.URL.Path == "/session/ses_1":
		fmt.Fprintf(w, `{"id":"ses_1","directory":%q,"title":"t"}`, f.dir)
	case r.Method == http.MethodPost:
		f.posts++
		if f.stores("") {
			f.messages["posted"] = true
		}
		if f.posts > 1 {
			f.parts = "" // a second post completes what was empty
		}
		if f.cut {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusNoContent)
	case f.messages["posted"] && messageID.MatchString(id):
		fmt.Fprintf(w, `{"info":{"id":%q,"sessionID":"ses_1","role":"user","time":{"created":%d}},"parts":[%s]}`, id, time.Now().UnixMilli(), cmp.Or(f.parts, `{"type":"text","text":"hi"}`))
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"name":"NotFoundError","data":{"message":"Message not found"}}`)
	}
}

// fakeExecutor is an executor whose runtime is the fake.
func fakeExecutor(t *testing.T, f *fakeRuntime) *Executor {
	t.Helper()
	e := newTestExecutor(t)
	f.dir, f.messages = e.opts.Projects[0].Dir, map[string]bool{}
	e.runtime.set(wire.RuntimeReady, "", &endpoint{client: fakeClient(t, f.ServeHTTP)}, nil)
	return e
}

func newTestExecutor(t *testing.T) *Executor {
	t.Helper()
	e, err := New(Options{Mode: Own, Binary: "/nowhere", StateDir: t.TempDir(), Projects: []wire.ExecProject{{Name: "p", Dir: t.TempDir()}}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func always(string) bool { return true }
func never(string) bool  { return false }

func prompt(e *Executor) wire.ExecCommand {
	return wire.ExecCommand{ID: "c1", Kind: kindPrompt, Ref: e.Prepare(kindPrompt), SessionID: "ses_1", Text: "hi", StartedAt: time.Now()}
}

// TestPromptCut: the answer to the post is lost. That is no definite failure, Find sees
// the message, and executing again posts nothing.
func TestPromptCut(t *testing.T) {
	f := &fakeRuntime{stores: always, cut: true}
	e := fakeExecutor(t, f)
	c := prompt(e)
	_, err := e.Execute(t.Context(), c)
	var failure *wire.ExecError
	if err == nil || errors.As(err, &failure) {
		t.Fatalf("a lost answer gave %v", err)
	}
	if found, err := e.Find(t.Context(), c); err != nil || found.State != wire.FoundRan || found.Result.MessageID != c.Ref {
		t.Errorf("found %+v, %v", found, err)
	}
	if r, err := e.Execute(t.Context(), c); err != nil || r.MessageID != c.Ref || f.posts != 1 {
		t.Errorf("again: %+v, %v, %d posts", r, err, f.posts)
	}
}

// TestPromptLost: the post never arrived; the message may still come for a while.
func TestPromptLost(t *testing.T) {
	e := fakeExecutor(t, &fakeRuntime{stores: never, cut: true})
	c := prompt(e)
	if _, err := e.Execute(t.Context(), c); err == nil {
		t.Fatal("a lost post succeeded")
	}
	if found, err := e.Find(t.Context(), c); err != nil || found.State != wire.FoundUnknown || found.RetryAfter <= 0 || found.RetryAfter > arrival {
		t.Errorf("just after: %+v, %v", found, err)
	}
	// A younger runtime never got it.
	_, ep, _ := e.runtime.see()
	e.runtime.set(wire.RuntimeReady, "", &endpoint{client: ep.client, started: time.Now()}, nil)
	if found, err := e.Find(t.Context(), c); err != nil || found.State != wire.FoundAbsent {
		t.Errorf("after a restart: %+v, %v", found, err)
	}
	e.runtime.set(wire.RuntimeDown, "", nil, nil)
	if found, err := e.Find(t.Context(), c); err != nil || found.State != wire.FoundUnknown || found.RetryAfter <= 0 {
		t.Errorf("while it is down: %+v, %v", found, err)
	}
}

// TestPromptUnfinished: OpenCode died after it stored the message and before its parts. An empty message was never read
// and is sent again under its id; of one that has a part nobody knows.
func TestPromptUnfinished(t *testing.T) {
	for name, c := range map[string]struct {
		parts  string
		after  string // what Find says of a younger runtime
		posts  int
		result bool
	}{
		"empty":   {parts: " ", after: wire.FoundAbsent, posts: 2, result: true},
		"partial": {parts: `{"type":"text","text":"hi"}`, after: wire.FoundUnknown, posts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeRuntime{stores: always, cut: true, parts: c.parts}
			e := fakeExecutor(t, f)
			cmd := prompt(e)
			if !c.result { // one part of two
				cmd.Attachments = []wire.ExecAttachment{{Mime: "text/plain", URL: "data:,x"}}
			}
			if _, err := e.Execute(t.Context(), cmd); err == nil {
				t.Fatal("a lost post succeeded")
			}
			if found, err := e.Find(t.Context(), cmd); err != nil || found.State != wire.FoundUnknown || found.RetryAfter <= 0 {
				t.Errorf("while its runtime lives: %+v, %v", found, err)
			}
			_, ep, _ := e.runtime.see()
			e.runtime.set(wire.RuntimeReady, "", &endpoint{client: ep.client, started: time.Now()}, nil)
			if found, err := e.Find(t.Context(), cmd); err != nil || found.State != c.after || found.RetryAfter != 0 {
				t.Errorf("after a restart: %+v, %v", found, err)
			}
			f.cut = false
			r, err := e.Execute(t.Context(), cmd)
			if (err == nil && r.MessageID == cmd.Ref) != c.result || f.posts != c.posts {
				t.Errorf("again: %+v, %v, %d posts", r, err, f.posts)
			}
		})
	}
}

// TestPromptNotStored: 204, but no message: not admitted.
func TestPromptNotStored(t *testing.T) {
	e := fakeExecutor(t, &fakeRuntime{stores: never})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := e.Execute(ctx, prompt(e))
	var failure *wire.ExecError
	if err == nil || errors.As(err, &failure) {
		t.Errorf("204 without a message gave %v", err)
	}
}

func TestExecuteWaitsForRuntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestExecutor(t)
		var failure *wire.ExecError
		began := time.Now()
		if _, err := e.Execute(t.Context(), prompt(e)); !errors.As(err, &failure) || failure.Code != wire.ExecUnavailable || time.Since(began) != readyWait {
			t.Errorf("without a runtime: %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Execute(ctx, prompt(e)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the agent stops: %v", err)
		}
		if _, err := e.Execute(t.Context(), wire.ExecCommand{Kind: "dance"}); !errors.As(err, &failure) || failure.Code != wire.ExecUnsupported {
			t.Errorf("an unknown kind: %v", err)
		}
	})
}

// TestExecuteRidesOverRestart: a connection refused is tried again on the next runtime.
func TestExecuteRidesOverRestart(t *testing.T) {
	f := &fakeRuntime{stores: always}
	e := fakeExecutor(t, f)
	_, good, _ := e.runtime.see()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	e.runtime.set(wire.RuntimeReady, "", &endpoint{client: newClient("http://"+l.Addr().String(), "pw")}, nil)
	done := make(chan error, 1)
	go func() {
		_, err := e.Execute(t.Context(), prompt(e))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("gave up at once: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	e.runtime.set(wire.RuntimeReady, "", good, nil)
	if err := <-done; err != nil || f.posts != 1 {
		t.Errorf("%v, %d posts", err, f.posts)
	}
}

func TestDefinite(t *testing.T) {
	own := &wire.ExecError{Code: wire.ExecInvalid}
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	for _, tt := range []struct {
		err  error
		code string // empty: not definite
	}{
		{own, wire.ExecInvalid},
		{errOutside, wire.ExecNotFound},
		{&refusal{Status: 404, Name: "NotFoundError", Message: "/home/x"}, wire.ExecNotFound},
		{&refusal{Status: 400, Name: "BadRequest"}, wire.ExecRefused},
		{fmt.Errorf("wrapped: %w", dial), wire.ExecUnavailable},
		{&refusal{Status: 500}, ""},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, ""},
		{context.DeadlineExceeded, ""},
	} {
		var failure *wire.ExecError
		got := definite(tt.err)
		if errors.As(got, &failure) != (tt.code != "") || (failure != nil && failure.Code != tt.code) {
			t.Errorf("%v became %v, want code %q", tt.err, got, tt.code)
		}
	}
	if definite(nil) != nil {
		t.Error("success became an error")
	}
}

func TestReply(t *testing.T) {
	q := asked{Questions: make([]json.RawMessage, 2)}
	for _, tt := range []struct {
		c              wire.ExecCommand
		path, decision string
		body           string
	}{
		{wire.ExecCommand{Kind: kindAllow, RequestID: "per_1", Allow: true, Reason: "ignored"}, "/permission/per_1/reply", wire.DecisionAllowed, "map[reply:once]"},
		{wire.ExecCommand{Kind: kindAllow, RequestID: "per_1"}, "/permission/per_1/reply", wire.DecisionDenied, "map[reply:reject]"},
		{wire.ExecCommand{Kind: kindAllow, RequestID: "per_1", Reason: "why"}, "/permission/per_1/reply", wire.DecisionDenied, "map[message:why reply:reject]"},
		{wire.ExecCommand{Kind: kindReply, RequestID: "que_1", Answers: [][]string{{"a"}, nil}}, "/question/que_1/reply", wire.DecisionAnswered, "map[answers:[[a] []]]"},
		{wire.ExecCommand{Kind: kindReject, RequestID: "que_1"}, "/question/que_1/reject", wire.DecisionRejected, "<nil>"},
	} {
		path, body, decision, err := reply(tt.c, q)
		if err != nil || path != tt.path || decision != tt.decision || fmt.Sprint(body) != tt.body {
			t.Errorf("%+v: %s %v %s %v", tt.c, path, body, decision, err)
		}
	}
	for _, answers := range [][][]string{nil, {{"a"}}, {{"a"}, {"b"}, {"c"}}} {
		if _, _, _, err := reply(wire.ExecCommand{Kind: kindReply, Answers: answers}, q); err == nil {
			t.Errorf("%d answers for 2 questions pass", len(answers))
		}
	}
}
