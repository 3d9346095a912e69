package tunnel

import (
	"context"
	"sync"
	"time"
)

// drainPoll is how often a draining link counts its streams; yamux tells no one.
const drainPoll = 20 * time.Millisecond

// Drain ends all links in good order (SPEC section 7): it refuses upgrades from
// now on, lets open streams end until ctx does, and closes each link, telling
// its agent not to come back sooner than comeBackIn. It returns when all have
// ended, with ctx's error if it had to cut some. The server takes no links after it.
func (s *Server) Drain(ctx context.Context, comeBackIn time.Duration) error {
	s.mu.Lock()
	s.drain.Store(&comeBackIn)
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range s.Links() {
		wg.Go(func() { l.drain(ctx, comeBackIn) })
	}
	wg.Wait()
	return ctx.Err()
}

// drain waits for the streams of one link and closes it.
func (l *Link) drain(ctx context.Context, comeBackIn time.Duration) {
	l.leaving.Store(true)
	l.hurry()
	go func() { _ = l.check(l.sess.GoAway()) }() // it may wait writeTime, or until the link ends
	t := time.NewTicker(drainPoll)
	defer t.Stop()
	for l.sess.NumStreams() > 0 && ctx.Err() == nil && l.Err() == nil {
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	l.end(&CloseError{Reason: ReasonDrain, ComeBackIn: comeBackIn})
	<-l.done
}

// hurry closes the lanes that nothing is in flight on.
func (l *Link) hurry() {
	l.mu.Lock()
	lanes, serving := l.lanes, l.serving
	l.mu.Unlock()
	for c := range numClasses {
		if lanes[c] != nil {
			lanes[c].hurry()
		}
		if serving[c] != nil {
			serving[c].hurry()
		}
	}
}
