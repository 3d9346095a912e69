package opencode

import (
	"context"
	"errors"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// errOutside says that a session is in none of the projects; surfaces are told that it
// does not exist.
var errOutside = errors.New("opencode: the session is outside the projects")

// lookup returns what is known of a session, asking the runtime when it is new.
func (e *Executor) lookup(ctx context.Context, c *client, id string) (tracked, error) {
	s, ok := e.tracker.find(id)
	if !ok {
		got, err := c.session(ctx, id)
		if err != nil {
			return tracked{}, err
		}
		e.tracker.note(got)
		s = tracked{session: got, state: wire.SessionIdle}
	}
	if _, inside := e.project(s.Directory); !inside {
		return tracked{}, errOutside
	}
	return s, nil
}

// rootOf walks from a subagent's session to the top of its tree.
func (e *Executor) rootOf(ctx context.Context, c *client, id string) (string, error) {
	for range maxParents {
		s, err := e.lookup(ctx, c, id)
		if err != nil {
			return "", err
		}
		if s.ParentID == "" {
			return s.ID, nil
		}
		id = s.ParentID
	}
	return "", errors.New("opencode: the session's tree is too deep")
}

// within says whether a session is another one or below it.
func (e *Executor) within(ctx context.Context, c *client, id, top string) (bool, error) {
	for range maxParents {
		if id == top {
			return true, nil
		}
		s, err := e.lookup(ctx, c, id)
		if err != nil || s.ParentID == "" {
			return false, err
		}
		id = s.ParentID
	}
	return false, nil
}

// view is a session as the agent gets it.
func (e *Executor) view(s tracked) wire.ExecSession {
	name, _ := e.project(s.Directory)
	return wire.ExecSession{
		ID: s.ID, ParentID: s.ParentID, Title: s.Title, Project: name, Directory: s.Directory,
		State: s.state, Retry: s.retry, TurnID: e.tracker.turnOf(s.ID),
		CreatedAt: s.Time.Created.time(), UpdatedAt: s.Time.Updated.time(),
	}
}

// toRequest is a request as the agent gets it.
func (e *Executor) toRequest(ctx context.Context, c *client, a asked) (wire.ExecRequest, error) {
	root, err := e.rootOf(ctx, c, a.SessionID)
	if err != nil {
		return wire.ExecRequest{}, err
	}
	s, err := e.lookup(ctx, c, a.SessionID)
	if err != nil {
		return wire.ExecRequest{}, err
	}
	name, _ := e.project(s.Directory)
	return wire.ExecRequest{
		ID: a.ID, Kind: a.kind(), SessionID: a.SessionID, RootID: root, Project: name,
		MessageID: a.Tool.MessageID, CallID: a.Tool.CallID, Permission: a.Permission, Exact: a.exact,
	}, nil
}

// openRequests asks every project for its pending requests and keeps those that still
// wait. It changes nothing in the tracker.
func (e *Executor) openRequests(ctx context.Context, ep *endpoint) ([]wire.ExecRequest, error) {
	var list []wire.ExecRequest
	for _, dir := range e.directories() {
		states, err := ep.statuses(ctx, dir)
		if err != nil {
			return nil, err
		}
		pending, err := ep.pending(ctx, dir)
		if err != nil {
			return nil, err
		}
		for _, a := range pending {
			r, err := e.waiting(ctx, ep, a, states)
			if err != nil {
				return nil, err
			}
			if r != nil {
				list = append(list, *r)
			}
		}
	}
	return list, nil
}

// waiting returns the request if it still waits, nil if it is a leftover of an aborted
// turn or none of ours.
func (e *Executor) waiting(ctx context.Context, ep *endpoint, a asked, states map[string]status) (*wire.ExecRequest, error) {
	if _, over := e.tracker.decision(a.ID); over {
		return nil, nil
	}
	live, err := stillWaits(ctx, ep.client, a, states)
	if err != nil || !live {
		return nil, err
	}
	if r, known := e.tracker.request(a.ID); known {
		return &r, nil
	}
	r, err := e.toRequest(ctx, ep.client, a)
	if errors.Is(err, errOutside) || notFound(err) {
		return nil, nil
	}
	return &r, err
}

// stillWaits says whether someone waits for the answer to a request that OpenCode lists:
// its session runs, and its tool call has not ended.
func stillWaits(ctx context.Context, c *client, a asked, states map[string]status) (bool, error) {
	if st, busy := states[a.SessionID]; !busy || st.Type == wire.SessionIdle {
		return false, nil
	}
	if a.Tool.MessageID == "" {
		return true, nil
	}
	m, err := c.message(ctx, a.SessionID, a.Tool.MessageID)
	if notFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	p, found := toolPart(m, a.Tool.CallID)
	ended := found && (p.State.Status == "completed" || p.State.Status == "error")
	return !ended && m.Info.Time.Completed == 0, nil
}

// directories are the project folders, and those below them that sessions were seen in.
func (e *Executor) directories() []string {
	var list []string
	for _, p := range e.opts.Projects {
		list = append(list, p.Dir)
	}
	return e.tracker.moreDirectories(list, func(dir string) bool {
		_, ok := e.project(dir)
		return ok
	})
}

// fate finds out what became of a request that is not open: from its reply event, else
// from its tool call. When neither can tell it is lost, and sure is false: it may have
// been decided just before its turn or its runtime ended.
func (e *Executor) fate(ctx context.Context, ep *endpoint, r wire.ExecRequest) (decision string, sure bool, err error) {
	if d, ok := e.tracker.decision(r.ID); ok && d != wire.DecisionLost {
		return d, true, nil
	}
	if r.MessageID == "" || !messageID.MatchString(r.MessageID) || !sessionID.MatchString(r.SessionID) {
		return wire.DecisionLost, false, nil
	}
	m, err := ep.message(ctx, r.SessionID, r.MessageID)
	if notFound(err) {
		return wire.DecisionLost, false, nil
	}
	if err != nil {
		return "", false, err
	}
	p, found := toolPart(m, r.CallID)
	if !found {
		return wire.DecisionLost, false, nil
	}
	live := m.Info.Time.Completed == 0 && !ep.bornAfter(idTime(r.ID, time.Now()))
	if live {
		if live, err = e.busy(ctx, ep.client, r.SessionID); err != nil {
			return "", false, err
		}
	}
	decision, sure = decided(r.Kind, p, live)
	return decision, sure, nil
}

// busy asks whether a session runs a turn.
func (e *Executor) busy(ctx context.Context, c *client, id string) (bool, error) {
	s, err := e.lookup(ctx, c, id)
	if err != nil {
		return false, err
	}
	states, err := c.statuses(ctx, s.Directory)
	st, ok := states[id]
	return ok && st.Type != wire.SessionIdle, err
}
