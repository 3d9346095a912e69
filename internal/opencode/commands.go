package opencode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// Kinds of commands that OpenCode can carry out; revoke_surface and revoke_pairing are
// the agent's own.
const (
	kindCreate  = "create_session"
	kindPrompt  = "prompt"
	kindAbort   = "abort"
	kindAllow   = "permission.respond"
	kindReply   = "question.reply"
	kindReject  = "question.reject"
	kindStatus  = "status"
	kindHistory = "history"
)

const (
	listed      = 100 // sessions of one project in status
	pageDefault = 50
	pageMax     = 100
	// storeWait is how long a prompt may take from its 204 to its stored message.
	storeWait = 15 * time.Second
	storePoll = 250 * time.Millisecond
)

// Execute performs one command. A *wire.ExecError is a definite failure: there was no
// effect. After any other error the outcome is not known, and Find tells.
func (e *Executor) Execute(ctx context.Context, c wire.ExecCommand) (wire.ExecResult, error) {
	do, known := map[string]func(context.Context, *endpoint, wire.ExecCommand) (wire.ExecResult, error){
		kindCreate: e.create, kindPrompt: e.prompt, kindAbort: e.abort, kindAllow: e.decide, kindReply: e.decide,
		kindReject: e.decide, kindStatus: e.status, kindHistory: e.history,
	}[c.Kind]
	if !known {
		return wire.ExecResult{}, &wire.ExecError{Code: wire.ExecUnsupported, Message: "this desktop does not know this kind of command"}
	}
	defer e.attempts.end(c.ID)
	for deadline := time.Now().Add(readyWait); ; {
		ep, err := e.ready(ctx)
		if err != nil {
			return wire.ExecResult{}, err
		}
		result, err := do(ctx, ep, c)
		if !neverSent(err) || time.Now().After(deadline) {
			return result, definite(err)
		}
		// It has just died and is about to come back: nothing is lost by waiting.
		_, _, changed := e.runtime.see()
		pause(ctx, changed, aliveEvery)
	}
}

// definite turns errors which are certain to have had no effect into an ExecError that
// holds no local content, and leaves the others as they are.
func definite(err error) error {
	var done *wire.ExecError
	var r *refusal
	switch {
	case err == nil || errors.As(err, &done):
		return err
	case errors.Is(err, errOutside), notFound(err):
		return &wire.ExecError{Code: wire.ExecNotFound, Message: "there is no such session"}
	case errors.As(err, &r) && r.Status < http.StatusInternalServerError:
		return &wire.ExecError{Code: wire.ExecRefused, Message: fmt.Sprintf("OpenCode refused the command (%d %s)", r.Status, r.Name)}
	case neverSent(err):
		return &wire.ExecError{Code: wire.ExecUnavailable, Message: "OpenCode was not reached"}
	}
	return err
}

func invalid(format string, args ...any) error {
	return &wire.ExecError{Code: wire.ExecInvalid, Message: fmt.Sprintf(format, args...)}
}

// known reads a command's session afresh: it may have been deleted or renamed.
func (e *Executor) known(ctx context.Context, ep *endpoint, id string) (tracked, error) {
	if !sessionID.MatchString(id) {
		return tracked{}, invalid("the session's id is missing or malformed")
	}
	s, err := ep.session(ctx, id)
	if err != nil {
		return tracked{}, err
	}
	e.tracker.note(s)
	return e.lookup(ctx, ep.client, id)
}

func (e *Executor) create(ctx context.Context, ep *endpoint, c wire.ExecCommand) (wire.ExecResult, error) {
	dir, ok := e.projectDir(c.Project)
	if !ok {
		return wire.ExecResult{}, &wire.ExecError{Code: wire.ExecNotFound, Message: "this desktop has no project of that name"}
	}
	body := map[string]any{"metadata": map[string]string{commandKey: c.ID}}
	if c.Title != "" {
		body["title"] = c.Title
	}
	var s session
	if _, err := ep.call(ctx, http.MethodPost, "/session", dir, nil, body, &s); err != nil {
		return wire.ExecResult{}, err
	}
	return e.created(s), nil
}

// created is the result of create_session.
func (e *Executor) created(s session) wire.ExecResult {
	e.tracker.note(s)
	v := e.view(tracked{session: s, state: wire.SessionIdle})
	return wire.ExecResult{Session: &v}
}

func (e *Executor) prompt(ctx context.Context, ep *endpoint, c wire.ExecCommand) (wire.ExecResult, error) {
	if strings.TrimSpace(c.Text) == "" {
		return wire.ExecResult{}, invalid("the prompt has no text")
	}
	if !messageID.MatchString(c.Ref) {
		return wire.ExecResult{}, invalid("the prompt has no message id")
	}
	s, err := e.known(ctx, ep, c.SessionID)
	if err != nil {
		return wire.ExecResult{}, err
	}
	if err := checkAgent(ctx, ep.client, s, c.Agent); err != nil {
		return wire.ExecResult{}, err
	}
	// A message id that is posted twice appends to the message: look first.
	m, err := ep.message(ctx, s.ID, c.Ref)
	switch {
	case err == nil && whole(m, c):
		return e.prompted(s, m), nil
	case err == nil && len(m.Parts) > 0:
		return wire.ExecResult{}, errPartial
	case err != nil && !notFound(err):
		return wire.ExecResult{}, err
	}
	if _, err := ep.call(ctx, http.MethodPost, "/session/"+s.ID+"/prompt_async", s.Directory, nil, promptBody(c), nil); err != nil {
		return wire.ExecResult{}, err
	}
	if m, err = stored(ctx, ep.client, c); err != nil {
		return wire.ExecResult{}, err
	}
	return e.prompted(s, m), nil
}

// promptBody is the body of prompt_async.
func promptBody(c wire.ExecCommand) map[string]any {
	parts := []map[string]string{{"type": "text", "text": c.Text}}
	for _, a := range c.Attachments {
		p := map[string]string{"type": "file", "mime": a.Mime, "url": a.URL}
		if a.Filename != "" {
			p["filename"] = a.Filename
		}
		parts = append(parts, p)
	}
	body := map[string]any{"messageID": c.Ref, "parts": parts}
	if c.Agent != "" {
		body["agent"] = c.Agent
	}
	if c.Variant != "" {
		body["variant"] = c.Variant
	}
	return body
}

// checkAgent refuses an agent that does not exist: prompt_async would answer 204 and
// store nothing.
func checkAgent(ctx context.Context, c *client, s tracked, name string) error {
	if name == "" {
		return nil
	}
	var agents []struct {
		Name string `json:"name"`
	}
	if _, err := c.call(ctx, http.MethodGet, "/agent", s.Directory, nil, nil, &agents); err != nil {
		return err
	}
	for _, a := range agents {
		if a.Name == name {
			return nil
		}
	}
	return invalid("there is no agent of that name")
}

// errPartial says that a message holds a part of what was sent: it must neither be sent again nor be called admitted.
var errPartial = errors.New("opencode: holds only a part of the prompt")

// whole says whether a message holds everything that was sent. OpenCode stores a message first and its parts one by one
// after it, so one that dies between leaves a message which no turn has read; sent again under its id, it gets its text.
func whole(m message, c wire.ExecCommand) bool { return len(m.Parts) >= 1+len(c.Attachments) }

// stored waits until the whole message can be read back: that is when a prompt is admitted.
func stored(ctx context.Context, c *client, cmd wire.ExecCommand) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, storePoll) {
		m, err := c.message(ctx, cmd.SessionID, cmd.Ref)
		if err == nil && whole(m, cmd) || err != nil && !notFound(err) {
			return m, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return m, fmt.Errorf("opencode: took the prompt but has not stored it: %w", ctx.Err())
		}
	}
}

// prompted is the result of a prompt, and makes its turn known to the stream.
func (e *Executor) prompted(s tracked, m message) wire.ExecResult {
	e.tracker.openTurn(s.ID, m.Info.ID, m.Info.Time.Created.time())
	v := e.view(s)
	return wire.ExecResult{Session: &v, MessageID: m.Info.ID}
}

func (e *Executor) abort(ctx context.Context, ep *endpoint, c wire.ExecCommand) (wire.ExecResult, error) {
	s, err := e.known(ctx, ep, c.SessionID)
	if err != nil {
		return wire.ExecResult{}, err
	}
	turn, err := e.running(ctx, ep.client, s)
	if err != nil {
		return wire.ExecResult{}, err
	}
	if turn == "" || (c.MessageID != "" && c.MessageID != turn) {
		return wire.ExecResult{}, &wire.ExecError{Code: wire.ExecNotRunning, Message: "this turn is not running"}
	}
	// OpenCode's answer says nothing: it is true for every session.
	if _, err := ep.call(ctx, http.MethodPost, "/session/"+s.ID+"/abort", s.Directory, nil, nil, nil); err != nil {
		return wire.ExecResult{}, err
	}
	return wire.ExecResult{MessageID: turn, Message: "the turn was aborted"}, nil
}

// running asks which turn a session runs: empty when it is idle.
func (e *Executor) running(ctx context.Context, c *client, s tracked) (string, error) {
	busy, err := e.busy(ctx, c, s.ID)
	if err != nil || !busy {
		return "", err
	}
	page, _, err := c.messages(ctx, s.session, "", pageMax)
	if err != nil {
		return "", err
	}
	return runningTurn(page), nil
}

// runningTurn picks the turn that a busy session works on: that of the last answer, if
// the answer is not final, else the oldest message after it.
func runningTurn(page []message) string {
	last := -1
	answered := map[string]bool{}
	for i, m := range page {
		if m.Info.Role == "assistant" {
			last = i
			answered[m.Info.ParentID] = true
		}
	}
	if last >= 0 {
		m := page[last].Info
		if m.Time.Completed == 0 || (m.Finish == "tool-calls" && present(m.Error) == nil) {
			return m.ParentID
		}
	}
	for _, m := range page {
		after := last < 0 || m.Info.ID > page[last].Info.ParentID
		if m.Info.Role == "user" && after && !answered[m.Info.ID] {
			return m.Info.ID
		}
	}
	if last >= 0 {
		return page[last].Info.ParentID
	}
	return ""
}

func (e *Executor) status(ctx context.Context, ep *endpoint, _ wire.ExecCommand) (wire.ExecResult, error) {
	var result wire.ExecResult
	for _, p := range e.opts.Projects {
		list, err := ep.sessions(ctx, p.Dir, listed)
		if err != nil {
			return result, err
		}
		states, err := ep.statuses(ctx, p.Dir)
		if err != nil {
			return result, err
		}
		for _, s := range list {
			st := states[s.ID]
			result.Sessions = append(result.Sessions,
				e.view(tracked{session: s, state: cmp.Or(st.Type, wire.SessionIdle), retry: st.Message}))
		}
	}
	slices.SortFunc(result.Sessions, func(a, b wire.ExecSession) int { return b.UpdatedAt.Compare(a.UpdatedAt) })
	requests, err := e.openRequests(ctx, ep)
	result.Requests = requests
	return result, err
}

func (e *Executor) history(ctx context.Context, ep *endpoint, c wire.ExecCommand) (wire.ExecResult, error) {
	if c.Limit < 0 || c.Limit > pageMax {
		return wire.ExecResult{}, invalid("a page has 1 to %d messages", pageMax)
	}
	s, err := e.known(ctx, ep, c.SessionID)
	if err != nil {
		return wire.ExecResult{}, err
	}
	before := c.Cursor
	if messageID.MatchString(before) {
		m, err := ep.message(ctx, s.ID, before)
		if err != nil {
			return wire.ExecResult{}, err
		}
		if before, err = cursorOf(m.Info); err != nil {
			return wire.ExecResult{}, err
		}
	}
	list, next, err := ep.messages(ctx, s.session, before, cmp.Or(c.Limit, pageDefault))
	if err != nil {
		return wire.ExecResult{}, err
	}
	page := wire.ExecPage{SessionID: s.ID, Next: next, Messages: []wire.ExecMessage{}}
	for _, m := range list {
		page.Messages = append(page.Messages, wire.ExecMessage{
			ID: m.Info.ID, Role: m.Info.Role, ParentID: m.Info.ParentID, CreatedAt: m.Info.Time.Created.time(),
			Error: present(m.Info.Error), Parts: m.Parts,
		})
	}
	return wire.ExecResult{History: &page}, nil
}
