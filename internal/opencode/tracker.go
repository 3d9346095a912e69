package opencode

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

const (
	maxSessions = 2048 // remembered; idle ones beyond it are read again when needed
	maxMessages = 8192 // whose role is remembered
	maxClosed   = 2048 // requests and turns whose end is remembered
	// maxParents bounds the walk from a subagent's session to the top of its tree.
	maxParents = 64
)

// tracker is what is known of the runtime's sessions, turns and requests. It outlives
// connections and restarts of the runtime. Only the stream's goroutine changes turns and
// requests; commands read, so that everything is under one lock. It does no I/O.
type tracker struct {
	mu       sync.Mutex
	sessions map[string]*tracked
	requests map[string]wire.ExecRequest // open ones
	closed   *recent[string]             // request id -> decision
	ended    *recent[string]             // turn -> outcome
	roles    *recent[info]               // message id -> its info
	last     time.Time                   // when the stream last said anything
}

// tracked is one session.
type tracked struct {
	session
	state   string
	retry   string
	idleAt  time.Time // since when it is idle
	watched bool      // it was seen busy and then idle by the present runtime
	running string    // the turn that the last answer belongs to
	turns   map[string]*turn
}

// turn is a turn whose end was not seen yet.
type turn struct {
	ref     string
	created time.Time
	told    bool // turn.started was sent
}

// newTracker starts from what the agent's journal has open.
func newTracker(turns []wire.ExecTurn, requests []wire.ExecRequest, since, now time.Time) *tracker {
	t := &tracker{
		sessions: map[string]*tracked{}, requests: map[string]wire.ExecRequest{},
		closed: newRecent[string](maxClosed), ended: newRecent[string](maxClosed), roles: newRecent[info](maxMessages),
		last: since,
	}
	for _, o := range turns {
		s := t.add(session{ID: o.SessionID})
		s.turns[o.Ref] = &turn{ref: o.Ref, created: idTime(o.Ref, now), told: true}
	}
	for _, r := range requests {
		t.requests[r.ID] = r
	}
	return t
}

// add puts a session in, idle until something else is known. The lock is held.
func (t *tracker) add(s session) *tracked {
	if len(t.sessions) >= maxSessions {
		for id, old := range t.sessions {
			if old.state == wire.SessionIdle && len(old.turns) == 0 {
				delete(t.sessions, id)
				break
			}
		}
	}
	n := &tracked{session: s, state: wire.SessionIdle, idleAt: time.Now(), turns: map[string]*turn{}}
	t.sessions[s.ID] = n
	return n
}

// note takes what the runtime says about a session; changed says whether a person would
// see a difference.
func (t *tracker) note(s session) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	have, known := t.sessions[s.ID]
	if !known {
		t.add(s)
		return true
	}
	changed = have.Title != s.Title || have.Directory != s.Directory
	have.session = s
	return changed
}

// drop forgets a session that was deleted.
func (t *tracker) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.sessions, id)
}

// find returns a copy of what is known of a session with a directory.
func (t *tracker) find(id string) (tracked, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[id]
	if !ok || s.Directory == "" {
		return tracked{}, false
	}
	return *s, true
}

// setState takes a session's state; changed says whether it is another one.
func (t *tracker) setState(id string, st status, now time.Time) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[id]
	if !ok {
		return false
	}
	state := cmp.Or(st.Type, wire.SessionIdle)
	changed = s.state != state || s.retry != st.Message
	if state == wire.SessionIdle && s.state != wire.SessionIdle {
		s.idleAt, s.watched = now, true
	}
	s.state, s.retry = state, st.Message
	return changed
}

// reborn says that a new runtime has taken over: nothing runs any more.
func (t *tracker) reborn() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sessions {
		s.state, s.retry, s.watched, s.idleAt = wire.SessionIdle, "", false, time.Now()
	}
}

// heard notes that the stream said something, and returns when it did so before.
func (t *tracker) heard(now time.Time) (before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, t.last = t.last, now
	return before
}

// openTurn adds a turn unless it is known or has ended.
func (t *tracker) openTurn(sessionID, ref string, created time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[sessionID]
	if !ok || s.ParentID != "" {
		return // a subagent's turns are part of its parent's
	}
	if _, over := t.ended.get(ref); over || s.turns[ref] != nil {
		return
	}
	s.turns[ref] = &turn{ref: ref, created: created}
	if s.state == wire.SessionIdle {
		s.idleAt, s.watched = time.Now(), false // its busy is still to come
	}
}

// tell returns the turns of a session whose start was not reported yet, and marks them.
func (t *tracker) tell(sessionID string) (refs []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.sessions[sessionID]; ok {
		for _, u := range byAge(s.turns) {
			if !u.told {
				u.told = true
				refs = append(refs, u.ref)
			}
		}
	}
	return refs
}

// endTurn closes a turn; false when it was closed before.
func (t *tracker) endTurn(sessionID, ref, outcome string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[sessionID]
	if !ok || s.turns[ref] == nil {
		return false
	}
	delete(s.turns, ref)
	t.ended.put(ref, outcome)
	return true
}

// openTurns returns the open turns of a session, the oldest first.
func (t *tracker) openTurns(sessionID string) []turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []turn
	if s, ok := t.sessions[sessionID]; ok {
		for _, u := range byAge(s.turns) {
			list = append(list, *u)
		}
	}
	return list
}

// byAge sorts turns, the oldest first.
func byAge(turns map[string]*turn) []*turn {
	list := make([]*turn, 0, len(turns))
	for _, u := range turns {
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b *turn) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.ref, b.ref))
	})
	return list
}

// unsettled lists sessions with open turns, and idle ones with open requests.
func (t *tracker) unsettled() (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting := map[string]bool{}
	for _, r := range t.requests {
		waiting[r.SessionID] = true
	}
	for id, s := range t.sessions {
		if len(s.turns) > 0 || (waiting[id] && s.state == wire.SessionIdle) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// all lists the known sessions.
func (t *tracker) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.sessions))
}

// sawMessage remembers a message's role and which turn the session's answers belong to.
func (t *tracker) sawMessage(m info) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roles.put(m.ID, m)
	if s, ok := t.sessions[m.SessionID]; ok && m.Role == "assistant" {
		s.running = m.ParentID
	}
}

// messageInfo returns what is remembered of a message.
func (t *tracker) messageInfo(id string) info {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, _ := t.roles.get(id)
	return m
}

// turnOf is the running turn of a session; empty when none is known to run.
func (t *tracker) turnOf(sessionID string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[sessionID]
	if !ok {
		return ""
	}
	if _, open := s.turns[s.running]; open {
		return s.running
	}
	if list := byAge(s.turns); len(list) > 0 {
		return list[0].ref
	}
	return ""
}

// maxDirectories bounds the folders that are asked about beside the projects.
const maxDirectories = 32

// moreDirectories appends the folders of known sessions that inside allows.
func (t *tracker) moreDirectories(list []string, inside func(string) bool) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	have := len(list)
	for _, s := range t.sessions {
		if len(list) < have+maxDirectories && s.Directory != "" && !slices.Contains(list, s.Directory) && inside(s.Directory) {
			list = append(list, s.Directory)
		}
	}
	return list
}
