package httpapi

import (
	"sync"

	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/proof"
)

// Reasons with which a stream ends.
const (
	EndRevoked = "revoked"
	EndExpired = "expired"
	EndLocked  = "locked"
	EndSlow    = "slow"
	EndDrain   = "drain"
)

// Feed tells open streams what they cannot read in the store: beats, presence, that there is something new to read,
// and that they end. It keeps the newest of each only, so that a slow reader costs nothing. All methods are safe for
// concurrent use and never block.
type Feed struct {
	// attached is told how many subscriptions a pairing has after each change, outside the lock and in order.
	attached func(pairing proof.PairingID, streams int)

	mu   sync.Mutex
	subs map[proof.PairingID]map[*subscription]struct{}
	told sync.Mutex // orders the calls of attached
}

// NewFeed makes a Feed. attached may be nil; it must not call back.
func NewFeed(attached func(pairing proof.PairingID, streams int)) *Feed {
	if attached == nil {
		attached = func(proof.PairingID, int) {}
	}
	return &Feed{attached: attached, subs: map[proof.PairingID]map[*subscription]struct{}{}}
}

// news is what happened to a subscription since it was last asked.
type news struct {
	beat     []byte // the newest
	changed  bool   // events or results may have come
	posted   []mailbox.CommandID
	presence bool
	end      string // a reason, once it ends
}

// subscription is one surface's part in one stream. wake is shared by the subscriptions of a stream and holds one.
type subscription struct {
	feed    *Feed
	pairing proof.PairingID
	surface proof.SurfaceID
	wake    chan struct{}
	pending news // guarded by feed.mu
}

// subscribe adds a surface; the caller must close the subscription.
func (f *Feed) subscribe(p proof.PairingID, s proof.SurfaceID, wake chan struct{}) *subscription {
	sub := &subscription{feed: f, pairing: p, surface: s, wake: wake}
	f.change(p, func(set map[*subscription]struct{}) { set[sub] = struct{}{} })
	return sub
}

// close ends the subscription. Closing twice is safe.
func (s *subscription) close() {
	s.feed.change(s.pairing, func(set map[*subscription]struct{}) { delete(set, s) })
}

// take returns what happened and forgets it, but for the end.
func (s *subscription) take() news {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	n := s.pending
	s.pending = news{end: n.end}
	return n
}

// change edits a pairing's set and tells its new size if it differs.
func (f *Feed) change(p proof.PairingID, edit func(map[*subscription]struct{})) {
	f.told.Lock()
	defer f.told.Unlock()
	f.mu.Lock()
	set := f.subs[p]
	if set == nil {
		set = map[*subscription]struct{}{}
		f.subs[p] = set
	}
	before := len(set)
	edit(set)
	after := len(set)
	if after == 0 {
		delete(f.subs, p)
	}
	f.mu.Unlock()
	if before != after {
		f.attached(p, after)
	}
}

// Count returns how many subscriptions a pairing has.
func (f *Feed) Count(p proof.PairingID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs[p])
}

// Beat relays a signed beat to the streams of a pairing. beat must not be changed afterwards.
func (f *Feed) Beat(p proof.PairingID, beat []byte) {
	f.each(p, func(s *subscription) { s.pending.beat = beat })
}

// Wake says that events or results of a pairing may have come.
func (f *Feed) Wake(p proof.PairingID) {
	f.each(p, func(s *subscription) { s.pending.changed = true })
}

// posted tells a surface's streams which command to watch: one that ends at once would never be seen as open.
func (f *Feed) posted(p proof.PairingID, surface proof.SurfaceID, id mailbox.CommandID) {
	f.each(p, func(s *subscription) {
		if s.surface == surface && len(s.pending.posted) < mailbox.MaxOpenSurface {
			s.pending.posted, s.pending.changed = append(s.pending.posted, id), true
		}
	})
}

// Presence says that the pairing's desktop came or went, or that what it stated changed.
func (f *Feed) Presence(p proof.PairingID) {
	f.each(p, func(s *subscription) { s.pending.presence = true })
}

// End ends the streams' part of a surface, or of the whole pairing when surface is zero.
func (f *Feed) End(p proof.PairingID, surface proof.SurfaceID, reason string) {
	f.each(p, func(s *subscription) {
		if surface.IsZero() || s.surface == surface {
			s.pending.end = reason
		}
	})
}

// EndAll ends every stream, for a drain.
func (f *Feed) EndAll(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, set := range f.subs {
		for s := range set {
			s.pending.end = reason
			s.poke()
		}
	}
}

func (f *Feed) each(p proof.PairingID, edit func(*subscription)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs[p] {
		edit(s)
		s.poke()
	}
}

func (s *subscription) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already
	}
}

// again says that there is more to read, so that the next turn looks.
func (s *subscription) again() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.pending.changed = true
}
