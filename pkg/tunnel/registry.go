package tunnel

import "time"

const (
	fightTime = time.Minute // in which
	fightMax  = 3           // replacements lock a peer
)

// fight is when a peer's links were last replaced, newest first.
type fight [fightMax]time.Time

// note adds a replacement and reports whether it was one too many.
func (f *fight) note(now time.Time) bool {
	copy(f[1:], f[:fightMax-1])
	f[0] = now
	return !f[fightMax-1].IsZero() && now.Sub(f[fightMax-1]) < fightTime
}

// verdict is what place decided: who must go, and why.
type verdict struct {
	losers   []*Link
	reason   string
	conflict bool // this link's arrival locked the peer
}

// place gives l its peer's place if it is the newest (SPEC section 6), ends the
// links that lost and introduces l to the broker.
func (s *Server) place(l *Link) {
	v := s.decide(l)
	for _, loser := range v.losers {
		go loser.end(s.closeError(v.reason))
	}
	if v.conflict {
		s.log.Warn("tunnel: a peer is locked, its identity is in use twice", "peer", l.peer.ID)
		if s.cfg.OnConflict != nil {
			go s.cfg.OnConflict(l.peer)
		}
	}
	if l.introduced == nil {
		return
	}
	go func() {
		defer close(l.introduced)
		if s.cfg.OnLink != nil {
			s.cfg.OnLink(l)
		}
	}()
}

// decide changes the registry for a new link.
func (s *Server) decide(l *Link) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.links[l.peer.ID]
	switch {
	case l.Err() != nil: // dead already; remove has been here or will find nothing
		return verdict{}
	case s.locked[l.peer.ID]:
		return verdict{losers: []*Link{l}, reason: ReasonConflict}
	case s.drain.Load() != nil:
		return verdict{losers: []*Link{l}, reason: ReasonDrain}
	case old != nil && old.epoch >= l.epoch:
		return verdict{losers: []*Link{l}, reason: ReasonReplaced}
	case old != nil && old.Err() == nil && !old.ghost() && s.fight(l.peer.ID):
		s.locked[l.peer.ID] = true
		delete(s.links, l.peer.ID)
		return verdict{losers: []*Link{old, l}, reason: ReasonConflict, conflict: true}
	}
	s.links[l.peer.ID] = l
	s.wheel.add(l)
	l.introduced = make(chan struct{})
	if old == nil {
		return verdict{}
	}
	return verdict{losers: []*Link{old}, reason: ReasonReplaced}
}

// closeError adds to a drain's reason when to come back.
func (s *Server) closeError(reason string) *CloseError {
	e := &CloseError{Reason: reason}
	if d := s.drain.Load(); d != nil && reason == ReasonDrain {
		e.ComeBackIn = *d
	}
	return e
}

// fight notes a replacement of a live link; mu is held. Old fights are forgotten.
func (s *Server) fight(id string) bool {
	now := time.Now()
	for k, f := range s.fights {
		if now.Sub(f[0]) >= fightTime {
			delete(s.fights, k)
		}
	}
	f := s.fights[id]
	if f == nil {
		f = new(fight)
		s.fights[id] = f
	}
	if !f.note(now) {
		return false
	}
	delete(s.fights, id)
	return true
}

// remove forgets a link that has ended.
func (s *Server) remove(l *Link) {
	s.mu.Lock()
	if s.links[l.peer.ID] == l {
		delete(s.links, l.peer.ID)
	}
	s.wheel.remove(l)
	introduced := l.introduced
	s.mu.Unlock()
	if introduced == nil {
		return
	}
	<-introduced
	if s.cfg.OnClose != nil {
		s.cfg.OnClose(l)
	}
}

// Link returns the live link of a peer.
func (s *Server) Link(peerID string) (*Link, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.links[peerID]
	return l, ok
}

// Links returns the live links, in no order.
func (s *Server) Links() []*Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Link, 0, len(s.links))
	for _, l := range s.links {
		all = append(all, l)
	}
	return all
}

// Count is the number of live links.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links)
}

// Disconnect ends a peer's link within a second, with a reason token; false when
// it had none. From its return on the link takes and gives nothing. The agent
// may come back at once: refuse it in Authenticate, or Lock it.
func (s *Server) Disconnect(peerID, reason string) bool {
	s.mu.Lock()
	l, ok := s.links[peerID]
	delete(s.links, peerID)
	s.mu.Unlock()
	if ok {
		l.Close(reason)
	}
	return ok
}

// Lock refuses the peer's upgrades with 403 identity_conflict and ends its link,
// as a conflict does; a broker that starts again locks what its store says was locked.
func (s *Server) Lock(peerID string) {
	s.mu.Lock()
	s.locked[peerID] = true
	s.mu.Unlock()
	s.Disconnect(peerID, ReasonConflict)
}

// Unlock lets a locked peer connect again; false when it was not locked.
func (s *Server) Unlock(peerID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.locked[peerID]
	delete(s.locked, peerID)
	return was
}

func (s *Server) isLocked(peerID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locked[peerID]
}
