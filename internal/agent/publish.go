package agent

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// Bounds of a batch (pairing-protocol.md section 5), and of what waits for the publisher.
const (
	batchDelay = 50 * time.Millisecond
	batchBytes = 16 << 10
	queueSize  = 256
)

// item is one event on its way into a batch.
type item struct {
	event wire.Event
	class proof.Class
	key   proof.EpochKey
	ref   proof.Reference // of a request
}

// single reports whether the item is a batch of its own and never waits.
func (i item) single() bool { return i.class.IsRequest() }

// publisher turns what happens on the desktop into sealed batches in the journal's outbox, and sends the outbox while
// there is a link. One goroutine (Run) owns sealing and its order; the outbox and the beats have one each.
type publisher struct {
	deps
	id    identityAPI
	queue chan func(context.Context) // work for Run, in order
	ended chan struct{}              // closed when Run has returned
	wake  chan struct{}              // capacity 1: the outbox has something, or a link came
	beat  chan struct{}              // capacity 1: beats are wanted now

	mu       sync.Mutex
	to       caller // nil while there is no link
	attached int
	epoch    *seal.Epoch // nil while nobody could read
	open     map[string]openRequest

	// Owned by Run:
	buffer  []wire.Event
	class   proof.Class // of buffer
	size    int         // bytes of buffer as JSON
	flushAt *time.Timer
	last    time.Time // of the last batch of text
	streams map[string]*redactStream
	turns   map[string]string // envelope of a turn's prompt, by its ref
}

func newPublisher(d deps, id identityAPI) *publisher {
	p := &publisher{
		deps: d, id: id, queue: make(chan func(context.Context), queueSize), ended: make(chan struct{}),
		wake: make(chan struct{}, 1), beat: make(chan struct{}, 1),
		open: map[string]openRequest{}, streams: map[string]*redactStream{}, turns: map[string]string{},
		flushAt: time.NewTimer(time.Hour),
	}
	p.flushAt.Stop()
	return p
}

// do gives work to Run; it waits when Run is behind, which slows the executor's stream and nothing else.
func (p *publisher) do(work func(context.Context)) {
	select {
	case p.queue <- work:
	case <-p.ended:
	}
}

func (p *publisher) Event(e wire.ExecEvent) {
	p.do(func(ctx context.Context) { p.take(ctx, e) })
}

func (p *publisher) Notice(e wire.Event) {
	p.do(func(ctx context.Context) { p.add(ctx, item{event: e, class: proof.ClassOther, key: proof.KeyView}) })
}

func (p *publisher) SurfacesChanged(ctx context.Context) error {
	done := make(chan error, 1)
	p.do(func(ctx context.Context) { done <- p.begin(ctx) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ended:
		return errOffline
	}
}

func (p *publisher) Connected(ctx context.Context, to caller, hello wire.HelloReply) error {
	if len(hello.BatchEpoch) == len(proof.EpochID{}) {
		if err := p.journal.ConfirmBatches(ctx, p.pairing.ID, proof.EpochID(hello.BatchEpoch), hello.BatchSeq); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.to = to
	p.mu.Unlock()
	poke(p.wake)
	return nil
}

func (p *publisher) Disconnected() {
	p.mu.Lock()
	p.to, p.attached = nil, 0
	p.mu.Unlock()
}

func (p *publisher) Attached(n int) {
	p.mu.Lock()
	p.attached = n
	p.mu.Unlock()
	poke(p.beat)
}

// poke wakes a loop that looks at everything when it is woken.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run seals until ctx ends: what was taken before that is in the journal when it returns.
func (p *publisher) Run(ctx context.Context) error {
	defer close(p.ended)
	if err := p.resume(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.sendOutbox(ctx) })
	wg.Go(func() { p.sendBeats(ctx) })
	defer wg.Wait()
	seals := context.WithoutCancel(ctx) // what has happened is kept, also while the agent stops
	for {
		select {
		case work := <-p.queue:
			work(seals)
		case <-p.flushAt.C:
			p.flush(seals)
		case <-ctx.Done():
			p.finish(seals)
			return nil
		}
	}
}

// finish does what was queued, so that nothing that happened is lost for surfaces.
func (p *publisher) finish(ctx context.Context) {
	for {
		select {
		case work := <-p.queue:
			work(ctx)
		default:
			p.flush(ctx)
			return
		}
	}
}

// add puts an item into the batch that grows, or makes a batch of its own of it. Text waits for more of it, but the
// first after a silence goes at once.
func (p *publisher) add(ctx context.Context, it item) {
	if it.single() {
		p.flush(ctx)
		p.seal(ctx, []wire.Event{it.event}, it)
		return
	}
	if len(p.buffer) > 0 && it.class != p.class {
		p.flush(ctx)
	}
	raw, err := json.Marshal(it.event)
	if err != nil {
		p.log.Error("an event has no JSON", "type", it.event.Type, "error", err)
		return
	}
	if p.size+len(raw) > batchBytes {
		p.flush(ctx)
	}
	if len(p.buffer) == 0 {
		p.flushAt.Reset(batchDelay)
	}
	p.buffer, p.class, p.size = append(p.buffer, it.event), it.class, p.size+len(raw)
	if it.class == proof.ClassTurnEnded || p.size >= batchBytes || p.now().Sub(p.last) >= batchDelay {
		p.flush(ctx)
	}
}

// flush seals what was collected.
func (p *publisher) flush(ctx context.Context) {
	p.flushAt.Stop()
	if len(p.buffer) == 0 {
		return
	}
	events := p.buffer
	p.buffer, p.size, p.last = nil, 0, p.now()
	p.seal(ctx, events, item{class: p.class, key: proof.KeyView})
}

// seal makes one batch durable in the outbox. Without a linked surface there is nobody to seal to, and nothing is kept.
func (p *publisher) seal(ctx context.Context, events []wire.Event, as item) {
	epoch := p.current()
	if epoch != nil && epoch.Over(p.now()) {
		if err := p.begin(ctx); err != nil {
			p.log.Error("beginning an epoch", "error", err)
			return
		}
		epoch = p.current()
	}
	if epoch == nil {
		return
	}
	if err := p.sealUnder(ctx, epoch, events, as); err != nil {
		p.log.Error("sealing events; they are lost for surfaces", "class", as.class.String(), "error", err)
	}
}

func (p *publisher) sealUnder(ctx context.Context, epoch *seal.Epoch, events []wire.Event, as item) error {
	body, err := json.Marshal(events)
	if err != nil {
		return err
	}
	now := p.now()
	batch, seq, err := epoch.Seal(p.id.Keys(), seal.Events{Key: as.key, Class: as.class, Reference: as.ref, Body: body, Time: now})
	if err != nil {
		return err
	}
	err = p.journal.AppendBatch(ctx, p.pairing.ID, journal.Batch{
		Epoch: epoch.ID(), Seq: seq, Class: as.class.String(), Bytes: batch,
	}, now)
	poke(p.wake)
	return err
}

// current is the epoch in use, or nil.
func (p *publisher) current() *seal.Epoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

// link is the broker as Connected gave it.
func (p *publisher) connected() (caller, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to == nil {
		return nil, errOffline
	}
	return p.to, nil
}
