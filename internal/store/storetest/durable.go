package storetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/wire"
)

func testRaces(t *testing.T, open Open) {
	f := newFixture(t, open)
	const n = 60
	for range n {
		f.post()
	}
	f.relink()
	var mu sync.Mutex
	claimed := map[mailbox.CommandID]int{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				c, ok, err := f.s.Claim(ctx(), f.pairing, f.epoch, f.now)
				if err != nil || !ok {
					return
				}
				mu.Lock()
				claimed[c.ID]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, times := range claimed {
		if times != 1 {
			t.Errorf("%s was claimed %d times", id, times)
		}
	}
	if len(claimed) != n {
		t.Errorf("%d of %d were claimed", len(claimed), n)
	}

	f.fresh() // many post what is to be the first command of one surface
	var created, same, order int
	for i := range 16 {
		d := f.draft()
		if i%2 == 1 {
			d.Digest[0], d.Envelope = byte(i), []byte{byte(i)}
		}
		wg.Go(func() {
			_, isNew, err := f.s.Enqueue(ctx(), d, f.by(), f.now)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && isNew:
				created++
			case err == nil:
				same++
			case mailbox.CodeOf(err) == mailbox.Order:
				order++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if created != 1 || created+same+order != 16 {
		t.Errorf("%d new, %d the same, %d out of order", created, same, order)
	}

	epochs := map[mailbox.Epoch]bool{}
	for range 16 {
		wg.Go(func() {
			e, err := f.s.Connect(ctx(), f.pairing, audit.Source{}, f.now)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || epochs[e] {
				t.Errorf("epoch %d twice, or %v", e, err)
			}
			epochs[e] = true
		})
	}
	wg.Wait()
}

// testAtomicity: no change without its line, and no line without its change.
func testAtomicity(t *testing.T, open Open) {
	f := newFixture(t, open)
	c := f.post()
	mark := f.mark()
	mine := errors.New("mine")
	for name, entry := range map[string]audit.Entry{
		"undone by an error": f.entry(audit.CommandEnded),
		"no such line":       {Line: wire.AuditLine{Type: "command.invented"}},
		"no line at all":     {},
	} {
		err := f.b.Update(ctx(), func(tx mailbox.Tx) error {
			row, err := tx.Command(f.pairing, c.ID)
			if err != nil {
				return err
			}
			row.State = mailbox.Completed
			if err := tx.Save(row, entry); err != nil {
				return err
			}
			return mine
		})
		if err == nil || errors.Is(err, mine) != (name == "undone by an error") {
			t.Errorf("%s: %v", name, err)
		}
		f.wantState(c.ID, mailbox.Queued)
	}
	for name, write := range map[string]func(mailbox.Tx, audit.Entry) error{
		"Insert": func(tx mailbox.Tx, e audit.Entry) error {
			return tx.Insert(mailbox.Command{ID: "cmd_x", Pairing: f.pairing}, e)
		},
		"SavePairing": func(tx mailbox.Tx, e audit.Entry) error {
			return tx.SavePairing(mailbox.Pairing{ID: f.pairing, Epoch: 99}, e)
		},
		"CloseChain": func(tx mailbox.Tx, e audit.Entry) error { return tx.CloseChain(f.pairing, f.surface, e) },
		"BeginEpoch": func(tx mailbox.Tx, e audit.Entry) error {
			return tx.BeginEpoch(f.pairing, mailbox.EventEpochID{9}, nil, e)
		},
	} {
		if err := f.b.Update(ctx(), func(tx mailbox.Tx) error { return write(tx, audit.Entry{}) }); err == nil {
			t.Errorf("%s without a line", name)
		}
	}
	f.must(f.b.View(ctx(), func(r mailbox.Reader) error {
		p, err := r.Pairing(f.pairing)
		if p.Epoch != 0 || p.Open != 1 {
			t.Errorf("something stayed: %+v", p)
		}
		if _, known, _ := r.HighestSeq(f.pairing, mailbox.EventEpochID{9}); known {
			t.Error("an epoch stayed")
		}
		return err
	}))
	if n := len(f.since(mark)); n != 0 {
		t.Errorf("%d types of lines stayed", n)
	}
	f.must(f.counted())
}

func testLines(t *testing.T, open Open) {
	f := newFixture(t, open)
	c := f.bring(mailbox.Completed)
	raw, next, err := f.b.Lines(ctx(), 0, 1000)
	f.must(err)
	if next != uint64(len(raw)) {
		t.Errorf("%d lines, the last is %d", len(raw), next)
	}
	ids := map[string]bool{}
	for i, b := range raw {
		var l wire.AuditLine
		f.must(json.Unmarshal(b, &l))
		again, err := json.Marshal(l)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("line %d is not its own encoding: %s", i, b)
		}
		if l.Seq != uint64(i+1) || l.Code == "" || l.Pairing != f.pairing.String() || ids[l.ID] {
			t.Errorf("line %d: %s", i, b)
		}
		ids[l.ID] = true
		for _, secret := range []string{"192.0.2", "Anna", "test\"", string(c.Token[:]), "sealed "} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("line %d says %q: %s", i, secret, b)
			}
		}
	}
	var first wire.AuditLine
	f.must(json.Unmarshal(raw[0], &first))
	if first.Command == nil || first.Command.EnvelopeSHA256 != c.Digest.String() || first.Command.Commit != c.Commit.String() ||
		first.Command.Seq != c.Seq || first.Command.Kind != "prompt" || first.Target.ID != string(c.ID) {
		t.Errorf("the first line does not name its command: %s", raw[0])
	}
	values, err := f.b.Values(ctx(), 1)
	f.must(err)
	for field, want := range map[string]string{"label": "Anna's phone", "ip": "192.0.2.7", "ua": "test"} {
		v := values[field]
		if v.Text != want || !v.Holds() || !bytes.Contains(raw[0], []byte(v.Commitment)) {
			t.Errorf("%s: %+v", field, v)
		}
	}
	page, next, err := f.b.Lines(ctx(), 2, 1)
	if err != nil || next != 3 || len(page) != 1 || !bytes.Equal(page[0], raw[2]) {
		t.Errorf("one line after the second: %d, %v", next, err)
	}
}

func testPrune(t *testing.T, open Open) {
	f := newFixture(t, open)
	ended := f.bring(mailbox.Completed)
	unknown := f.bring(mailbox.OutcomeUnknown)
	waits := f.post()
	mark := f.mark()
	gone := func(id mailbox.CommandID) bool {
		_, err := f.s.Get(ctx(), f.pairing, id)
		return mailbox.CodeOf(err) == mailbox.NotFound
	}
	f.must(f.s.Prune(ctx(), f.now.Add(mailbox.RetainEnded)))
	if gone(ended.ID) {
		t.Error("pruned to the day")
	}
	f.must(f.s.Prune(ctx(), f.now.Add(mailbox.RetainEnded+time.Millisecond)))
	if !gone(ended.ID) || gone(unknown.ID) || gone(waits.ID) {
		t.Errorf("gone: ended %v, waits for a person %v, open %v", gone(ended.ID), gone(unknown.ID), gone(waits.ID))
	}
	_, err := f.s.ItRan(ctx(), f.pairing, unknown.ID, f.by(), f.now)
	f.must(err)
	f.must(f.b.Update(ctx(), func(tx mailbox.Tx) error { // by number: three were given out
		n, err := tx.PruneEnded(f.now.Add(-life), 1, 100)
		if n != 1 {
			t.Errorf("%d pruned by number", n)
		}
		return err
	}))
	if !gone(unknown.ID) || gone(waits.ID) {
		t.Error("the wrong one went")
	}
	if lines, _ := f.lines(mark); len(lines) != 1 {
		t.Errorf("%d lines; pruning removes none", len(lines))
	}
	f.must(f.counted())
}
