package opencode

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

const (
	// tailPage and tailPages bound how far back the messages of a session are read.
	tailPage  = 50
	tailPages = 10
	// overlap is taken off the time from which on events were missed: the clocks of
	// the events and of the connection are not the same.
	overlap = 2 * time.Second
)

// resync finds what the stream did not say since a time: requests that opened or closed,
// turns that began or ended, parts that changed, states. A zero time (a first connection
// without a past) looks only at what runs now and at what the journal had open.
func (f *follower) resync(ctx context.Context, since time.Time) error {
	busy := map[string]bool{}
	recent := map[string]bool{}
	for _, dir := range f.e.directories() {
		states, err := f.ep.statuses(ctx, dir)
		if err != nil {
			return err
		}
		list, err := f.ep.sessions(ctx, dir, listed)
		if err != nil {
			return err
		}
		for _, s := range list {
			if f.e.tracker.note(s) && !since.IsZero() {
				f.tellSession(s.ID)
			}
			if !since.IsZero() && s.Time.Updated.time().After(since.Add(-overlap)) {
				recent[s.ID] = true
			}
		}
		for id, st := range states {
			if ours, err := f.ours(ctx, id); err != nil {
				return err
			} else if ours && st.Type != wire.SessionIdle {
				busy[id] = true
				f.setState(id, st)
			}
		}
	}
	if err := f.catchUpAll(ctx, busy, recent, since); err != nil {
		return err
	}
	if err := f.compareRequests(ctx); err != nil {
		return err
	}
	return f.settleAll(ctx, func(tracked) bool { return true })
}

// setState takes a session's state and reports a change.
func (f *follower) setState(id string, st status) {
	if f.e.tracker.setState(id, st, time.Now()) {
		f.tellSession(id)
	}
}

// catchUpAll sets the sessions that do not run to idle, and reads the messages of those
// in which something may have happened.
func (f *follower) catchUpAll(ctx context.Context, busy, recent map[string]bool, since time.Time) error {
	for _, id := range f.e.tracker.all() {
		if ours, err := f.ours(ctx, id); err != nil {
			return err
		} else if !ours {
			f.forget(id)
			continue
		}
		if !busy[id] {
			f.setState(id, status{Type: wire.SessionIdle})
		}
		if busy[id] || recent[id] || len(f.e.tracker.openTurns(id)) > 0 {
			if err := f.catchUp(ctx, id, busy[id], since); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget ends what was open in a session that is gone.
func (f *follower) forget(id string) {
	for _, u := range f.e.tracker.openTurns(id) {
		f.endTurn(id, u.ref, wire.OutcomeInterrupted, nil)
	}
	f.e.tracker.drop(id)
}

// catchUp reads a session's last messages: turns that began since a time or still run,
// and the parts of answers that changed since then.
func (f *follower) catchUp(ctx context.Context, id string, busy bool, since time.Time) error {
	s, ok := f.e.tracker.find(id)
	if !ok {
		return nil
	}
	from := since.Add(-overlap)
	if open := f.e.tracker.openTurns(id); len(open) > 0 && open[0].created.Before(from) {
		from = open[0].created
	}
	list, err := f.tail(ctx, s, from)
	if err != nil {
		return err
	}
	running := ""
	if busy {
		running = runningTurn(list)
	}
	for _, m := range list {
		slim := m.Info
		slim.Error = nil
		f.e.tracker.sawMessage(slim)
		created := m.Info.Time.Created.time()
		missed := !since.IsZero() && created.After(since.Add(-overlap))
		read := len(m.Parts) > 0 // an empty one is no turn, see whole
		if m.Info.Role == "user" && read && (missed || m.Info.ID == running) {
			f.e.tracker.openTurn(id, m.Info.ID, created)
		}
	}
	f.tellTurns(id)
	for _, m := range list {
		if !since.IsZero() && changedSince(m.Info, since.Add(-overlap)) {
			f.tellParts(ctx, m)
		}
	}
	return nil
}

// changedSince says whether a message may have new parts.
func changedSince(m info, t time.Time) bool {
	return m.Time.Created.time().After(t) ||
		(m.Role == "assistant" && (m.Time.Completed == 0 || m.Time.Completed.time().After(t)))
}

// tellParts reports all parts of a message as they are.
func (f *follower) tellParts(ctx context.Context, m message) {
	for _, raw := range m.Parts {
		var head part
		if json.Unmarshal(raw, &head) == nil {
			f.tellPart(ctx, head, raw)
		}
	}
}

// tail reads messages back to a time, in order, at most tailPages pages.
func (f *follower) tail(ctx context.Context, s tracked, from time.Time) ([]message, error) {
	var list []message
	before := ""
	for range tailPages {
		page, next, err := f.ep.messages(ctx, s.session, before, tailPage)
		if err != nil {
			return nil, err
		}
		list = append(page, list...)
		if next == "" || len(page) == 0 || page[0].Info.Time.Created.time().Before(from) {
			break
		}
		before = next
	}
	return list, nil
}

// compareRequests reports requests that opened and closed unseen.
func (f *follower) compareRequests(ctx context.Context) error {
	now, err := f.e.openRequests(ctx, f.ep)
	if err != nil {
		return err
	}
	for _, r := range now {
		f.tellRequest(r)
	}
	for _, r := range f.e.tracker.openRequests() {
		if slices.ContainsFunc(now, func(n wire.ExecRequest) bool { return n.ID == r.ID }) {
			continue
		}
		decision, _, err := f.e.fate(ctx, f.ep, r)
		if err != nil {
			return err
		}
		f.closeRequest(r.ID, decision)
	}
	return nil
}
