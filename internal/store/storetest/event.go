package storetest

import (
	"fmt"
	"testing"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
)

// batch is a batch of text.
func (f *fixture) batch(epoch mailbox.EventEpochID, seq uint64) mailbox.Batch {
	return mailbox.Batch{
		Epoch: epoch, Seq: seq, Class: mailbox.ClassText, Time: f.now, Bytes: []byte(fmt.Sprintf("batch %x %d", epoch, seq)),
	}
}

func (f *fixture) request(epoch mailbox.EventEpochID, seq uint64, class mailbox.Class, ref string) mailbox.Batch {
	b := f.batch(epoch, seq)
	b.Class, b.Request = class, ref
	return b
}

func (f *fixture) append(batches ...mailbox.Batch) uint64 {
	f.Helper()
	cursor, err := f.s.Append(ctx(), f.pairing, f.epoch, batches, f.now)
	f.must(err)
	return cursor
}

func (f *fixture) begin(id mailbox.EventEpochID) {
	f.Helper()
	f.must(f.s.BeginEpoch(ctx(), f.pairing, f.epoch, id, map[mailbox.SurfaceID][]byte{f.surface: []byte("box")}, f.now))
}

func testEvents(t *testing.T, open Open) {
	f := newFixture(t, open)
	e := mailbox.EventEpochID{1}
	f.connect()
	_, err := f.s.Append(ctx(), f.pairing, f.epoch, []mailbox.Batch{f.batch(e, 1)}, f.now)
	f.wantCode(err, mailbox.Conflict) // its epoch was never begun
	f.begin(e)
	mark := f.mark()
	if got := f.append(f.batch(e, 1), f.batch(e, 2)); got != 2 {
		t.Errorf("cursor %d after two", got)
	}
	if got := f.append(f.batch(e, 2), f.batch(e, 3), f.batch(e, 3)); got != 3 { // a lost reply, and a repetition in itself
		t.Errorf("cursor %d after a repetition", got)
	}
	altered := f.batch(e, 2)
	altered.Bytes = []byte("other")
	_, err = f.s.Append(ctx(), f.pairing, f.epoch, []mailbox.Batch{f.batch(e, 4), altered}, f.now)
	f.wantCode(err, mailbox.Conflict)
	if n := len(f.since(mark)); n != 0 {
		t.Errorf("text wrote %d types of lines", n)
	}
	f.reopen()
	page, err := f.s.Since(ctx(), f.pairing, 1, 10)
	f.must(err)
	if page.Gap || page.Cursor != 3 || len(page.Batches) != 2 || page.Batches[0].Cursor != 2 ||
		string(page.Batches[1].Bytes) != string(f.batch(e, 3).Bytes) || page.Batches[1].Seq != 3 || page.Batches[1].Epoch != e {
		t.Errorf("since 1: %+v", page)
	}
	if page, err = f.s.Since(ctx(), f.pairing, 0, 1); err != nil || len(page.Batches) != 1 || page.Batches[0].Cursor != 1 {
		t.Errorf("one since 0: %+v, %v", page, err)
	}
	if page, err = f.s.Since(ctx(), f.pairing, 4, 10); err != nil || !page.Gap {
		t.Errorf("a cursor that was never given out is from another life: %+v, %v", page, err)
	}
	if id, seq, err := f.s.NewestEpoch(ctx(), f.pairing); err != nil || id != e || seq != 3 {
		t.Errorf("newest epoch %x, seq %d, %v", id, seq, err)
	}
	if p, err := f.s.Presence(ctx(), f.pairing); err != nil || p.Cursor != 3 {
		t.Errorf("presence says cursor %d, %v", p.Cursor, err)
	}
	f.badBatches(e)
}

// badBatches are refused one byte over, and change nothing.
func (f *fixture) badBatches(e mailbox.EventEpochID) {
	f.Helper()
	large, long := f.batch(e, 9), f.request(e, 9, mailbox.ClassRequestOpen, string(make([]byte, mailbox.MaxRequestRef+1)))
	large.Bytes = make([]byte, mailbox.MaxBatch+1)
	empty, named := f.batch(e, 9), f.batch(e, 9)
	empty.Bytes, named.Request = nil, "r"
	many := make([]mailbox.Batch, mailbox.MaxAppend+1)
	for name, batches := range map[string][]mailbox.Batch{
		"large": {large}, "long reference": {long}, "empty": {empty}, "text with a request": {named}, "many": many,
		"request without one": {f.request(e, 9, mailbox.ClassRequestClosed, "")},
	} {
		if _, err := f.s.Append(ctx(), f.pairing, f.epoch, batches, f.now); mailbox.CodeOf(err) == 0 {
			f.Errorf("%s: %v", name, err)
		}
	}
	largest := f.batch(e, 9)
	largest.Bytes = make([]byte, mailbox.MaxBatch)
	if got := f.append(largest); got != 4 {
		f.Errorf("the largest batch got cursor %d", got)
	}
}

func testEventRetention(t *testing.T, open Open) {
	f := newFixture(t, open)
	old, young := mailbox.EventEpochID{1}, mailbox.EventEpochID{2}
	f.connect()
	f.begin(old)
	f.append(f.request(old, 1, mailbox.ClassRequestOpen, "kept"), f.batch(old, 2), f.request(old, 3, mailbox.ClassRequestOpen, "done"),
		f.request(old, 4, mailbox.ClassRequestClosed, "done"))
	f.now = f.now.Add(mailbox.RetainEvents)
	f.begin(young)
	f.append(f.batch(young, 1))
	f.must(f.s.Prune(ctx(), f.now)) // to the millisecond: nothing is too old
	if page, err := f.s.Since(ctx(), f.pairing, 0, 10); err != nil || page.Gap || len(page.Batches) != 5 {
		t.Fatalf("before their time: %+v, %v", page, err)
	}
	f.must(f.s.Prune(ctx(), f.hours(1)))
	for after, gap := range map[uint64]bool{0: true, 3: true, 4: false, 5: false} {
		page, err := f.s.Since(ctx(), f.pairing, after, 10)
		if err != nil || page.Gap != gap || gap && (len(page.Batches) != 1 || page.Batches[0].Cursor != 5) {
			t.Errorf("since %d: %+v, %v", after, page, err)
		}
	}
	requests, cursor, err := f.s.OpenRequests(ctx(), f.pairing)
	if err != nil || cursor != 5 || len(requests) != 1 || requests[0].Request != "kept" {
		t.Errorf("open requests: %+v, %v", requests, err)
	}
	if box, err := f.s.Box(ctx(), f.pairing, old, f.surface); err != nil || string(box) != "box" {
		t.Errorf("the box of an epoch with a request: %q, %v", box, err)
	}
	if got := f.append(f.batch(old, 2)); got != 5 { // pruned long ago, and repeated
		t.Errorf("a pruned batch came back under cursor %d", got)
	}
	f.append(f.request(young, 2, mailbox.ClassRequestClosed, "kept"))
	f.must(f.s.Prune(ctx(), f.hours(1)))
	_, err = f.s.Box(ctx(), f.pairing, old, f.surface)
	f.wantCode(err, mailbox.NotFound) // no event of that epoch lives

	f.fresh() // by number
	f.connect()
	f.begin(old)
	total := uint64(0)
	for total < mailbox.RetainBatches+600 {
		batches := make([]mailbox.Batch, mailbox.MaxAppend)
		for i := range batches {
			batches[i] = f.batch(old, total+uint64(i)+1)
		}
		total = f.append(batches...)
		f.must(f.b.View(ctx(), func(r mailbox.Reader) error {
			p, err := r.Pairing(f.pairing)
			if kept := p.Cursor - p.Floor; kept > mailbox.RetainBatches+500 {
				t.Fatalf("%d batches are kept", kept)
			}
			return err
		}))
	}
	f.must(f.s.Prune(ctx(), f.now))
	page, err := f.s.Since(ctx(), f.pairing, 0, 1)
	if err != nil || !page.Gap || len(page.Batches) != 1 || page.Batches[0].Cursor != total-mailbox.RetainBatches+1 {
		t.Errorf("the oldest of %d is %+v, %v", total, page.Batches, err)
	}
}

func testOpenRequests(t *testing.T, open Open) {
	f := newFixture(t, open)
	one, two := mailbox.EventEpochID{1}, mailbox.EventEpochID{2}
	f.connect()
	f.begin(one)
	mark := f.mark()
	f.append(f.request(one, 1, mailbox.ClassRequestOpen, "a"), f.request(one, 2, mailbox.ClassRequestOpen, "b"))
	f.begin(two) // under which all open requests are published again
	f.append(f.request(two, 1, mailbox.ClassRequestOpen, "b"), f.request(two, 2, mailbox.ClassRequestOpen, "a"),
		f.request(two, 3, mailbox.ClassRequestClosed, "a"), f.request(two, 4, mailbox.ClassRequestClosed, "unheard"))
	requests, cursor, err := f.s.OpenRequests(ctx(), f.pairing)
	if err != nil || cursor != 6 || len(requests) != 1 || requests[0].Request != "b" || requests[0].Epoch != two {
		t.Errorf("open: %+v at %d, %v", requests, cursor, err)
	}
	if c := f.since(mark); c[audit.RequestOpened] != 4 || c[audit.RequestClosed] != 2 {
		t.Errorf("lines %v", c)
	}
	for i := 0; i <= mailbox.MaxOpenRequests; i += mailbox.MaxAppend { // beyond the bound the oldest gives way
		batches := make([]mailbox.Batch, mailbox.MaxAppend)
		for k := range batches {
			batches[k] = f.request(two, uint64(10+i+k), mailbox.ClassRequestOpen, fmt.Sprint("flood ", i+k))
		}
		f.append(batches...)
	}
	requests, _, err = f.s.OpenRequests(ctx(), f.pairing)
	if err != nil || len(requests) != mailbox.MaxOpenRequests || requests[0].Request == "b" {
		t.Errorf("%d open requests, first %q, %v", len(requests), requests[0].Request, err)
	}
}

func testEventEpochs(t *testing.T, open Open) {
	f := newFixture(t, open)
	id := mailbox.EventEpochID{1}
	boxes := map[mailbox.SurfaceID][]byte{f.surface: []byte("mine"), number(): []byte("theirs")}
	f.connect()
	begin := func(id mailbox.EventEpochID, boxes map[mailbox.SurfaceID][]byte) error {
		return f.s.BeginEpoch(ctx(), f.pairing, f.epoch, id, boxes, f.now)
	}
	f.must(begin(id, boxes))
	f.must(begin(id, boxes)) // a lost reply
	f.wantCode(begin(id, map[mailbox.SurfaceID][]byte{f.surface: []byte("swapped")}), mailbox.Conflict)
	f.wantCode(begin(id, map[mailbox.SurfaceID][]byte{number(): []byte("added")}), mailbox.Conflict)
	f.wantCode(begin(mailbox.EventEpochID{2}, map[mailbox.SurfaceID][]byte{f.surface: make([]byte, mailbox.MaxBox+1)}), mailbox.TooLarge)
	f.wantCode(begin(mailbox.EventEpochID{2}, map[mailbox.SurfaceID][]byte{f.surface: {}}), mailbox.TooLarge)
	many := map[mailbox.SurfaceID][]byte{}
	for range mailbox.MaxBoxes + 1 {
		many[number()] = []byte("box")
	}
	f.wantCode(begin(mailbox.EventEpochID{2}, many), mailbox.TooLarge)

	box, err := f.s.Box(ctx(), f.pairing, id, f.surface)
	if err != nil || string(box) != "mine" {
		t.Errorf("box %q, %v", box, err)
	}
	_, err = f.s.Box(ctx(), f.pairing, id, number())
	f.wantCode(err, mailbox.NotFound)
	_, err = f.s.Box(ctx(), number(), id, f.surface)
	f.wantCode(err, mailbox.NotFound)
	f.must(begin(mailbox.EventEpochID{3}, nil))
	f.append(f.batch(id, 1)) // an outbox that still holds the epoch before
	if newest, seq, err := f.s.NewestEpoch(ctx(), f.pairing); err != nil || newest != (mailbox.EventEpochID{3}) || seq != 0 {
		t.Errorf("newest %x seq %d, %v", newest, seq, err)
	}
}
