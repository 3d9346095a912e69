package opencode

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

const (
	// searched is among how many sessions of a project a created one is looked for.
	searched = 500
	// askAgain is when to ask Find again while the runtime is not there.
	askAgain = 2 * time.Second
)

// attempts remembers when calls of commands ended in this process.
type attempts struct {
	mu   sync.Mutex
	ends *recent[time.Time]
}

func newAttempts() *attempts { return &attempts{ends: newRecent[time.Time](maxClosed)} }

func (a *attempts) end(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ends.put(id, time.Now())
}

func (a *attempts) ended(id string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	t, _ := a.ends.get(id)
	return t
}

// Find tells what became of a command whose row says started. It only reads. While the
// runtime is not reached the answer is Unknown with a time to ask again.
func (e *Executor) Find(ctx context.Context, c wire.ExecCommand) (wire.ExecFound, error) {
	_, ep, _ := e.runtime.see()
	if ep == nil {
		return later(askAgain), nil
	}
	var found wire.ExecFound
	var err error
	switch c.Kind {
	case kindPrompt:
		found, err = e.findPrompt(ctx, ep, c)
	case kindCreate:
		found, err = e.findCreated(ctx, ep, c)
	case kindAbort:
		found, err = e.findAbort(ctx, ep, c)
	case kindAllow, kindReply, kindReject:
		found, err = e.findDecision(ctx, ep, c)
	default: // status and history change nothing; other kinds never reached the runtime
		return wire.ExecFound{State: wire.FoundAbsent}, nil
	}
	var r *refusal
	if err != nil && !errors.As(err, &r) && ctx.Err() == nil {
		return later(askAgain), nil // not reached or not understood just now
	}
	return found, err
}

func later(d time.Duration) wire.ExecFound {
	return wire.ExecFound{State: wire.FoundUnknown, RetryAfter: d}
}

// absent says that a command left no trace: it never ran, once its request cannot arrive
// any more, which is when the runtime is a newer one or its connection is long gone.
func (e *Executor) absent(ep *endpoint, c wire.ExecCommand) wire.ExecFound {
	last := c.StartedAt
	if ended := e.attempts.ended(c.ID); ended.After(last) {
		last = ended
	} else if last.Before(e.born) {
		last = e.born // an earlier process: it may have been sending until just before
	}
	if ep.bornAfter(last) {
		return wire.ExecFound{State: wire.FoundAbsent}
	}
	if passed := time.Since(last); passed < arrival {
		return later(arrival - passed)
	}
	return wire.ExecFound{State: wire.FoundAbsent}
}

func (e *Executor) findPrompt(ctx context.Context, ep *endpoint, c wire.ExecCommand) (wire.ExecFound, error) {
	if !sessionID.MatchString(c.SessionID) || !messageID.MatchString(c.Ref) {
		return wire.ExecFound{State: wire.FoundAbsent}, nil // it was refused before anything was sent
	}
	m, err := ep.message(ctx, c.SessionID, c.Ref)
	if notFound(err) {
		return e.absent(ep, c), nil
	}
	if err != nil {
		return wire.ExecFound{}, err
	}
	if !whole(m, c) {
		return e.unfinished(ep, c, m), nil
	}
	s, err := e.lookup(ctx, ep.client, c.SessionID)
	if err != nil {
		return wire.ExecFound{}, err
	}
	return wire.ExecFound{State: wire.FoundRan, Result: e.prompted(s, m)}, nil
}

// unfinished judges a message that lacks parts: they may still come, or their runtime died over them. An empty message
// has never been read; of one that lacks only some nobody can know.
func (e *Executor) unfinished(ep *endpoint, c wire.ExecCommand, m message) wire.ExecFound {
	found := e.absent(ep, c)
	if found.State == wire.FoundAbsent && len(m.Parts) > 0 {
		return wire.ExecFound{State: wire.FoundUnknown}
	}
	return found
}

func (e *Executor) findCreated(ctx context.Context, ep *endpoint, c wire.ExecCommand) (wire.ExecFound, error) {
	dir, ok := e.projectDir(c.Project)
	if !ok {
		return wire.ExecFound{State: wire.FoundAbsent}, nil
	}
	list, err := ep.sessions(ctx, dir, searched)
	if err != nil {
		return wire.ExecFound{}, err
	}
	i := slices.IndexFunc(list, func(s session) bool { return c.ID != "" && s.Metadata[commandKey] == c.ID })
	if i < 0 {
		return e.absent(ep, c), nil
	}
	return wire.ExecFound{State: wire.FoundRan, Result: e.created(list[i])}, nil
}

// findAbort: what matters is that the turn does not run; an abort names its turn, so it
// may be sent again.
func (e *Executor) findAbort(ctx context.Context, ep *endpoint, c wire.ExecCommand) (wire.ExecFound, error) {
	if !sessionID.MatchString(c.SessionID) {
		return wire.ExecFound{State: wire.FoundAbsent}, nil
	}
	s, err := e.lookup(ctx, ep.client, c.SessionID)
	if notFound(err) || errors.Is(err, errOutside) {
		return wire.ExecFound{State: wire.FoundAbsent}, nil
	}
	if err != nil {
		return wire.ExecFound{}, err
	}
	turn, err := e.running(ctx, ep.client, s)
	if err != nil {
		return wire.ExecFound{}, err
	}
	if turn == "" || (c.MessageID != "" && c.MessageID != turn) {
		return wire.ExecFound{State: wire.FoundRan, Result: wire.ExecResult{MessageID: c.MessageID, Message: "the turn does not run any more"}}, nil
	}
	return e.absent(ep, c), nil
}

// findDecision: a request that still waits was not decided; one that does not shows in
// its tool call how it was. By whom, only the journal can say.
func (e *Executor) findDecision(ctx context.Context, ep *endpoint, c wire.ExecCommand) (wire.ExecFound, error) {
	requests, err := e.openRequests(ctx, ep)
	if err != nil {
		return wire.ExecFound{}, err
	}
	if slices.ContainsFunc(requests, func(r wire.ExecRequest) bool { return r.ID == c.RequestID }) {
		return e.absent(ep, c), nil
	}
	r := wire.ExecRequest{ID: c.RequestID}
	if c.Request != nil {
		r = *c.Request
	}
	decision, sure, err := e.fate(ctx, ep, r)
	if err != nil {
		return wire.ExecFound{}, err
	}
	if !sure {
		return wire.ExecFound{State: wire.FoundUnknown}, nil
	}
	if same, err := e.sameDecision(ctx, ep, c, r, decision); err != nil || same {
		return wire.ExecFound{State: wire.FoundRan, Result: wire.ExecResult{Decision: decision}}, err
	}
	failure := &wire.ExecError{Code: wire.ExecDecided, Message: "this request was already " + decision}
	return wire.ExecFound{State: wire.FoundRan, Result: wire.ExecResult{Decision: decision}, Err: failure}, nil
}

// sameDecision says whether what became of a request is what the command wanted; for a
// question the answers must be the command's.
func (e *Executor) sameDecision(ctx context.Context, ep *endpoint, c wire.ExecCommand, r wire.ExecRequest, decision string) (bool, error) {
	if decision != wanted(c) || c.Kind != kindReply || r.MessageID == "" {
		return decision == wanted(c), nil
	}
	m, err := ep.message(ctx, r.SessionID, r.MessageID)
	if err != nil {
		return false, err
	}
	p, _ := toolPart(m, r.CallID)
	var given struct {
		Answers [][]string `json:"answers"`
	}
	if json.Unmarshal(p.State.Metadata, &given) != nil || p.State.Status != "completed" {
		return true, nil // answered, and the tool has not written yet with what
	}
	return slices.EqualFunc(given.Answers, c.Answers, slices.Equal[[]string]), nil
}
