package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"cowork.example.com/broker/internal/mailbox"
	"pgregory.net/rapid"
)

// testRandomLives lets random commands live random lives between the real store and a small agent with a journal:
// messages are lost or come late, links are cut, the store is reopened, the journal is lost. After each step nothing
// may have run twice, and no state may contradict what happened.
func testRandomLives(t *testing.T, open Open) {
	f := newFixture(t, open)
	rapid.Check(t, func(r *rapid.T) {
		f.fresh()
		f.now = start
		l := &lives{fixture: f, r: r, journal: map[mailbox.CommandID]*entry{}, ran: map[mailbox.CommandID]int{}}
		r.Repeat(map[string]func(*rapid.T){
			"post":         l.posts,
			"connect":      l.connects,
			"deliver":      l.delivers,
			"deliver too":  l.delivers, // what happens most in life
			"run":          l.runs,
			"send result":  l.sendsResult,
			"late result":  l.lateResult,
			"cancel":       l.cancels,
			"answer stops": l.answersStops,
			"time passes":  l.timePasses,
			"reopen":       l.reopens,
			"lose journal": l.losesJournal,
			"":             l.check,
		})
	})
}

// entry is a row of the small agent's journal.
type entry struct {
	c     mailbox.Command
	token mailbox.Token
	end   mailbox.State // Queued: not over
	acked bool          // the broker has the result
}

// lives is what one run knows: the agent's memory, and what really happened.
type lives struct {
	*fixture
	r       *rapid.T
	journal map[mailbox.CommandID]*entry
	lost    int // how often the journal was lost
	posted  []mailbox.CommandID
	ran     map[mailbox.CommandID]int
	late    []mailbox.Outcome
}

// lose decides whether a message is lost.
func (l *lives) lose(r *rapid.T, what string) bool {
	return rapid.IntRange(0, 3).Draw(r, "lose "+what) == 0
}

func (l *lives) pick(r *rapid.T, wanted func(*entry) bool) *entry {
	var ids []mailbox.CommandID
	for _, id := range l.posted { // in a fixed order, so that a failure can be repeated
		if e := l.journal[id]; e != nil && wanted(e) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return l.journal[rapid.SampledFrom(ids).Draw(r, "row")]
}

func (l *lives) posts(*rapid.T) {
	if len(l.posted) < 8 {
		l.posted = append(l.posted, l.post().ID)
	}
}

func (l *lives) connects(r *rapid.T) {
	l.connect()
	if l.lose(r, "report") {
		return
	}
	var rows []mailbox.ReportRow
	for _, id := range l.posted {
		e := l.journal[id]
		if e == nil || e.acked {
			continue
		}
		row := mailbox.ReportRow{Command: id}
		if e.end != mailbox.Queued {
			row.Done = &mailbox.Outcome{State: e.end, Sealed: []byte(e.end.String())}
		}
		rows = append(rows, row)
	}
	reply := l.report(rows...)
	if l.lose(r, "reply") {
		l.epoch = 0 // the link with it
		return
	}
	for id, token := range reply.Tokens {
		l.journal[id].token = token
	}
	for _, id := range slices.Concat(reply.Known, reply.Missing) {
		l.journal[id].acked = true
		if l.journal[id].end == mailbox.Queued {
			l.journal[id].end = mailbox.Cancelled // it must not run any more
		}
	}
}

func (l *lives) delivers(r *rapid.T) {
	c, ok, err := l.s.Claim(ctx(), l.pairing, l.epoch, l.now)
	if mailbox.CodeOf(err) == mailbox.Fenced || err == nil && !ok || l.lose(r, "delivery") {
		return
	}
	l.must(err)
	if c.Skip {
		l.must(l.s.Skipped(ctx(), l.pairing, l.epoch, c.ID, l.now))
		return
	}
	e := l.journal[c.ID]
	if e == nil {
		e = &entry{c: c}
		if !c.Expires.After(l.now) {
			e.end = mailbox.Expired
		}
		l.journal[c.ID] = e
		l.high = max(l.high, c.Sequence)
	}
	e.token, e.acked = c.Token, false
	if !l.lose(r, "accepted") {
		l.must(l.s.Accepted(ctx(), l.pairing, c.ID, c.Token, l.now))
	}
}

func (l *lives) runs(r *rapid.T) {
	e := l.pick(r, func(e *entry) bool { return e.end == mailbox.Queued })
	if e == nil {
		return
	}
	if !e.c.Expires.After(l.now) {
		e.end = mailbox.Expired
		return
	}
	l.ran[e.c.ID]++
	e.end = mailbox.Completed
}

func (l *lives) sendsResult(r *rapid.T) {
	e := l.pick(r, func(e *entry) bool { return e.end != mailbox.Queued && !e.acked })
	if e == nil || l.epoch == 0 {
		return
	}
	o := mailbox.Outcome{Command: e.c.ID, Token: e.token, State: e.end, Sealed: []byte(e.end.String())}
	l.late = append(l.late, o)
	if l.lose(r, "result") {
		return
	}
	err := l.result(o)
	if c := mailbox.CodeOf(err); c != 0 && c != mailbox.Stale && c != mailbox.Conflict {
		l.Fatal(err)
	}
	e.acked = err == nil && !l.lose(r, "durable")
}

// lateResult is one that was sent long ago, and arrives again.
func (l *lives) lateResult(r *rapid.T) {
	if len(l.late) > 0 {
		err := l.result(rapid.SampledFrom(l.late).Draw(r, "late"))
		if c := mailbox.CodeOf(err); err != nil && c != mailbox.Stale && c != mailbox.Conflict {
			l.Fatal(err)
		}
	}
}

func (l *lives) cancels(r *rapid.T) {
	if len(l.posted) > 0 {
		_, err := l.s.Cancel(ctx(), l.pairing, l.surface, rapid.SampledFrom(l.posted).Draw(r, "command"), l.by(), l.now)
		l.must(err)
	}
}

func (l *lives) answersStops(r *rapid.T) {
	stops, err := l.s.Stops(ctx(), l.pairing, l.epoch)
	if mailbox.CodeOf(err) == mailbox.Fenced {
		return
	}
	l.must(err)
	for _, c := range stops {
		e := l.journal[c.ID]
		if e == nil {
			e = &entry{c: c, token: c.Token}
			l.journal[c.ID] = e
		}
		started := e.end == mailbox.Completed
		if e.end == mailbox.Queued {
			e.end = mailbox.Cancelled
			if c.Stop == mailbox.StopExpire {
				e.end = mailbox.Expired
			}
		}
		if !l.lose(r, "answer") {
			l.must(l.s.Stopped(ctx(), l.pairing, l.epoch, c.ID, started, l.now))
		}
	}
}

func (l *lives) timePasses(r *rapid.T) {
	l.now = l.now.Add(time.Duration(rapid.SampledFrom([]int{1, 13, 30 * 24}).Draw(r, "hours")) * time.Hour)
	l.must(l.s.Expire(ctx(), l.now))
}

func (l *lives) reopens(r *rapid.T) {
	if rapid.IntRange(0, 4).Draw(r, "really") == 0 { // it takes longer than all others
		l.reopen()
	}
}

func (l *lives) losesJournal(r *rapid.T) {
	if l.lost > 1 || !l.lose(r, "journal") {
		return
	}
	l.lost++
	l.journal = map[mailbox.CommandID]*entry{}
	l.high, l.epoch, l.late = 0, 0, nil // what was in flight is lost with the machine
	l.fixture.journal = []byte(fmt.Sprint("journal ", l.lost, l.pairing))
}

// check compares what the store says with what really happened.
func (l *lives) check(r *rapid.T) {
	for _, id := range l.posted {
		c := l.get(id)
		ran := l.ran[id]
		switch {
		case ran > 1:
			r.Fatalf("%s ran %d times", id, ran)
		case ran == 1 && (c.State == mailbox.Queued || c.State == mailbox.Expired || c.State == mailbox.Cancelled || c.State == mailbox.Failed):
			r.Fatalf("%s is %s although it ran", id, c.State)
		case ran == 0 && c.State == mailbox.Completed:
			r.Fatalf("%s is completed although it never ran", id)
		case c.State.Terminal() && c.Stop.Asked():
			r.Fatalf("%s has ended and is asked to stop", id)
		}
	}
	if err := l.counted(); err != nil {
		r.Fatal(err)
	}
}
