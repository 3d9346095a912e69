package tunnel

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// wsPingEach is how many looks pass between two WebSocket pings.
const wsPingEach = 3

// chatter is what may come in between two of the broker's looks at an idle link: a
// pong, and perhaps a ping. The agent, whom the broker's pings reach each 20 s, pings
// only in silence, which is a miss already.
const chatter = 4 * muxHeaderSize

// maxMisses is how many looks may find a ping unanswered.
const maxMisses = 2

// beat is what the last look at a link saw; only the one who looks touches it,
// but for misses.
type beat struct {
	rx, tx  int64
	waiting bool // a ping is out
	looks   int
	misses  atomic.Int32
}

// ghost reports whether the peer owes an answer to a ping.
func (l *Link) ghost() bool { return l.beat.misses.Load() > 0 }

// look is one beat of the keepalive (SPEC section 8). Bytes that came in are an
// answer to anything; pings and pongs do not make a link busy, or each second ping
// would be left out.
func (l *Link) look() {
	b := &l.beat
	rx, tx := l.conn.rx.Load(), l.conn.tx.Load()
	in, quiet := rx-b.rx, tx-b.tx <= muxHeaderSize
	b.rx, b.tx = rx, tx
	switch {
	case in > 0:
		b.misses.Store(0)
	case (b.waiting || l.side == agentSide) && b.misses.Add(1) >= maxMisses:
		go l.end(ErrKeepalive)
		return
	}
	b.waiting = in == 0 || l.side == brokerSide && in <= chatter
	if !b.waiting {
		return
	}
	b.looks++
	go l.ping(quiet && b.looks%wsPingEach == 0)
}

// ping sends a yamux ping, which proxies count as data, and on request a WebSocket
// ping too. Whether it is answered is for the next look to see.
func (l *Link) ping(control bool) {
	_, err := l.sess.Ping()
	_ = l.check(err)
	if control && err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), keepaliveEvery)
		defer cancel()
		_ = l.conn.ping(ctx)
	}
}

// nextLook is when to look again: 20 s ± 10 %.
func nextLook() time.Duration {
	return keepaliveEvery*9/10 + rand.N(keepaliveEvery/5)
}

const (
	wheelTick  = 100 * time.Millisecond // short, so that a herd's links are not all pinged at once
	wheelSlots = 256                    // above the longest nextLook, in ticks
)

// wheel looks at all links of a server from one goroutine, which runs while
// there are links.
type wheel struct {
	mu    sync.Mutex
	slots [wheelSlots]map[*Link]struct{}
	at    map[*Link]int // each link's slot
	pos   int
	stop  chan struct{} // ends the goroutine; nil when there is none
}

// add puts l where it will be looked at.
func (w *wheel) add(l *Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop == nil {
		w.at = make(map[*Link]int)
		w.stop = make(chan struct{})
		go w.run(w.stop)
	}
	w.put(l)
}

// put gives l its next slot; mu is held.
func (w *wheel) put(l *Link) {
	i := (w.pos + int(nextLook()/wheelTick)) % wheelSlots
	if w.slots[i] == nil {
		w.slots[i] = make(map[*Link]struct{})
	}
	w.slots[i][l] = struct{}{}
	w.at[l] = i
}

// remove forgets l, if it is there.
func (w *wheel) remove(l *Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, ok := w.at[l]
	if !ok {
		return
	}
	delete(w.slots[i], l)
	if len(w.slots[i]) == 0 {
		w.slots[i] = nil // an empty map would stay until its turn comes
	}
	delete(w.at, l)
	if len(w.at) == 0 {
		close(w.stop)
		w.stop = nil
	}
}

func (w *wheel) run(stop chan struct{}) {
	t := time.NewTicker(wheelTick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-stop:
			return
		}
		for _, l := range w.turn() {
			l.look()
		}
	}
}

// turn moves on by one slot and returns the links in it, each of which has a
// new place already.
func (w *wheel) turn() []*Link {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pos = (w.pos + 1) % wheelSlots
	slot := w.slots[w.pos]
	w.slots[w.pos] = nil
	due := make([]*Link, 0, len(slot))
	for l := range slot {
		due = append(due, l)
		w.put(l)
	}
	return due
}

// keepAlive looks at one link by itself, until it ends: the agent has no wheel.
func (l *Link) keepAlive() {
	t := time.NewTimer(nextLook())
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.look()
			t.Reset(nextLook())
		case <-l.ctx.Done():
			return
		}
	}
}
