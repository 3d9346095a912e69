package opencode

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"cowork.example.com/broker/pkg/wire"
	"golang.org/x/sync/errgroup"
)

const (
	// settleEvery is how often sessions in doubt are looked at again.
	settleEvery = 500 * time.Millisecond
	// Waits between two attempts to open the stream.
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second
)

// Run supervises the runtime and gives events to sink, one at a time and in order, until
// ctx ends; it then ends the runtime (not an attached one) and returns nil. A crash of
// this program leaves the runtime for the next Run to adopt. Sink may block; what it
// misses by that is not lost but comes later.
func (e *Executor) Run(ctx context.Context, sink func(wire.ExecEvent)) error {
	var g errgroup.Group
	g.Go(func() error { return e.supervise(ctx) })
	g.Go(func() error {
		e.followAll(ctx, sink)
		return nil
	})
	return g.Wait()
}

// followAll follows one life of the runtime after the other, and one connection after
// the other within a life.
func (e *Executor) followAll(ctx context.Context, sink func(wire.ExecEvent)) {
	var last *endpoint
	told := ""
	wait := firstWait
	for ctx.Err() == nil {
		h, ep, changed := e.runtime.see()
		if h.State != told {
			told = h.State
			sink(wire.ExecEvent{Type: wire.ExecRuntime, Time: time.Now(), Health: &h})
		}
		if ep == nil {
			pause(ctx, changed, time.Hour)
			continue
		}
		if last != nil && ep != last {
			e.tracker.reborn()
		}
		last = ep
		f := &follower{e: e, ep: ep, sink: sink}
		err := f.follow(ctx)
		if f.synced {
			wait = firstWait
		}
		if ctx.Err() == nil {
			e.log.Warn("event stream ended, will read what it missed", "error", err)
		}
		pause(ctx, changed, wait/2+rand.N(wait/2+1))
		wait = min(2*wait, lastWait)
	}
}

// pause waits for a change, the end, or at most d.
func pause(ctx context.Context, changed <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-t.C:
	}
}

// follower reads one connection's events. All its methods run on one goroutine.
type follower struct {
	e      *Executor
	ep     *endpoint
	sink   func(wire.ExecEvent)
	synced bool
}

// follow reads events until the connection or ctx ends. The first event says that
// nothing can be missed from here on: what was missed before is read then.
func (f *follower) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan event)
	ended := make(chan error, 1)
	go func() {
		ended <- f.ep.stream(ctx, func(ev event) error {
			select {
			case events <- ev:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case err = <-ended:
			if err == nil {
				err = errors.New("opencode: closed the event stream")
			}
			return err
		case ev := <-events:
			err = f.take(ctx, ev)
		case <-tick.C:
			err = f.settleIdle(ctx)
		}
		if err != nil {
			cancel()
			<-ended //nolint:errcheck // the reader has stopped; why is known
			return err
		}
	}
}

// take handles one event, the first one of a connection by a resync before it.
func (f *follower) take(ctx context.Context, ev event) error {
	before := f.e.tracker.heard(time.Now())
	if !f.synced {
		if err := f.resync(ctx, before); err != nil {
			f.e.tracker.heard(before) // not caught up yet: next time from there
			return err
		}
		f.synced = true
	}
	return f.handle(ctx, ev)
}

// emit gives one event to the sink.
func (f *follower) emit(ev wire.ExecEvent) {
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	f.sink(ev)
}

// handle turns one event of the runtime into events of ours. Unknown types and other
// folders are passed over.
func (f *follower) handle(ctx context.Context, ev event) error {
	switch ev.Type {
	case "server.instance.disposed", "global.disposed":
		return f.resync(ctx, time.Now())
	}
	if _, ours := f.e.project(ev.Directory); !ours {
		return nil
	}
	switch ev.Type {
	case "session.created", "session.updated":
		return f.onSession(ev)
	case "session.deleted":
		return f.onDeleted(ctx, ev)
	case "session.status", "session.idle":
		return f.onStatus(ctx, ev)
	case "message.updated":
		return f.onMessage(ctx, ev)
	case "message.part.updated":
		return f.onPart(ctx, ev)
	case "message.part.delta":
		return f.onDelta(ctx, ev)
	case "permission.asked", "question.asked":
		return f.onAsked(ctx, ev)
	case "permission.replied", "question.replied", "question.rejected":
		return f.onReplied(ev)
	case "session.diff": // file contents, and said again by the parts
		return nil
	}
	return f.onOther(ctx, ev)
}

// ref is the turn that a message or a session's happening belongs to.
func (f *follower) ref(ctx context.Context, session, message string) string {
	m := f.e.tracker.messageInfo(message)
	s, known := f.e.tracker.find(session)
	switch {
	case known && s.ParentID == "" && m.Role == "user":
		return m.ID
	case known && s.ParentID == "" && m.ParentID != "":
		return m.ParentID
	}
	root, err := f.e.rootOf(ctx, f.ep.client, session)
	if err != nil {
		return ""
	}
	return f.e.tracker.turnOf(root)
}

// ours says whether a session is in the projects, reading it when it is new; an error is
// one of the connection.
func (f *follower) ours(ctx context.Context, session string) (bool, error) {
	if !sessionID.MatchString(session) {
		return false, nil
	}
	_, err := f.e.lookup(ctx, f.ep.client, session)
	if errors.Is(err, errOutside) || notFound(err) {
		return false, nil
	}
	return err == nil, err
}

// decode reads an event's properties leniently: what does not fit is passed over.
func decode(ev event, into any) bool { return json.Unmarshal(ev.Props, into) == nil }
