package opencode

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// settleIdle looks at every idle session in which a turn or a request may have ended. In
// a busy one only an earlier turn can be over, which onMessage sees.
func (f *follower) settleIdle(ctx context.Context) error {
	return f.settleAll(ctx, func(s tracked) bool { return s.state == wire.SessionIdle })
}

// settleAll looks at the chosen ones of the sessions with something open.
func (f *follower) settleAll(ctx context.Context, which func(tracked) bool) error {
	for _, id := range f.e.tracker.unsettled() {
		s, ok := f.e.tracker.find(id)
		if !ok || !which(s) {
			continue
		}
		if err := f.settle(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// settle ends what is over in a session.
func (f *follower) settle(ctx context.Context, id string) error {
	s, ok := f.e.tracker.find(id)
	if !ok {
		return nil
	}
	if s.state == wire.SessionIdle {
		if err := f.settleRequests(ctx, s); err != nil {
			return err
		}
	}
	open := f.e.tracker.openTurns(id)
	if len(open) == 0 {
		return nil
	}
	list, err := f.tail(ctx, s, open[0].created)
	if notFound(err) {
		f.forget(id)
		return nil
	}
	if err != nil {
		return err
	}
	f.tellTurns(id)
	for _, u := range open {
		ev := f.evidence(s, u, list)
		outcome, over := verdict(ev)
		if over && outcome == wire.OutcomeInterrupted && !ev.reborn {
			// The one verdict that rests on silence: ask before it is given.
			if over, err = f.idleStill(ctx, id); err != nil {
				return err
			}
		}
		if !over {
			continue
		}
		var failure json.RawMessage
		if ev.answer != nil {
			failure = present(ev.answer.Info.Error)
		}
		f.endTurn(id, u.ref, outcome, failure)
	}
	return nil
}

// idleStill asks whether a session that is thought to be idle is.
func (f *follower) idleStill(ctx context.Context, id string) (bool, error) {
	busy, err := f.e.busy(ctx, f.ep.client, id)
	if busy {
		f.setState(id, status{Type: wire.SessionBusy})
	}
	return !busy, err
}

// evidence gathers what is known of a turn.
func (f *follower) evidence(s tracked, u turn, list []message) evidence {
	now := time.Now()
	ev := evidence{idle: -1, age: now.Sub(u.created), reborn: f.ep.bornAfter(u.created), watched: s.watched}
	if s.state == wire.SessionIdle {
		ev.idle = now.Sub(s.idleAt)
	}
	after := map[string]bool{} // later messages
	seen := false
	for i, m := range list {
		switch {
		case m.Info.ID == u.ref:
			seen = true
		case m.Info.Role == "user" && seen:
			after[m.Info.ID] = true
		case m.Info.Role == "assistant" && m.Info.ParentID == u.ref:
			ev.answer = &list[i]
		case m.Info.Role == "assistant" && after[m.Info.ParentID]:
			ev.later = true
		}
		ended := m.Info.Time.Completed.time()
		if errorName(m.Info.Error) == "MessageAbortedError" && !ended.Before(u.created) {
			ev.aborted = true
		}
	}
	return ev
}

// endTurn reports the end of a turn, once.
func (f *follower) endTurn(session, ref, outcome string, failure json.RawMessage) {
	if f.e.tracker.endTurn(session, ref, outcome) {
		f.emit(wire.ExecEvent{
			Type: wire.ExecTurnEnded, SessionID: session, MessageID: ref, CommandRef: ref,
			Outcome: outcome, Data: failure,
		})
	}
}

// settleRequests closes what an idle session still has open: nobody waits for it, but
// after an abort OpenCode neither says so nor takes it off its list.
func (f *follower) settleRequests(ctx context.Context, s tracked) error {
	for _, r := range f.e.tracker.openRequests() {
		if r.SessionID != s.ID || time.Since(s.idleAt) < settleAfter/2 {
			continue
		}
		decision, _, err := f.e.fate(ctx, f.ep, r)
		if errors.Is(err, errOutside) {
			err = nil
		}
		if err != nil {
			return err
		}
		f.closeRequest(r.ID, decision)
	}
	return nil
}
