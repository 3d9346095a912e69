package agent

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"sync"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/internal/redact"
	"cowork.example.com/broker/internal/topology"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// journalTimeout bounds the wait for the journal's writer, not the write itself.
	journalTimeout = 10 * time.Second
	// sweepEvery is how often commands past their expiry are ended, and keys looked at.
	sweepEvery = 15 * time.Second
)

// pairingRun is one pairing at work: its link, inbox, scheduler and results. The publisher, the linker and the identity
// are the other half (seams.go).
type pairingRun struct {
	agent   *Agent
	row     journal.Pairing // as it was at the start; what changes is asked of the journal
	id      proof.PairingID
	ident   identityAPI
	pub     publisherAPI
	linker  linkerAPI
	log     *slog.Logger
	journal *journal.Journal
	table   map[proof.Kind]performer

	// inbox is held while a delivery, skip or stop is handled and while a new link takes over, so that nothing of an
	// old link is journalled after the new link's report was made (mailbox.md, Links).
	inbox sync.Mutex
	// publish is held while the publisher learns of a link or of revocations, so that these come in order.
	publish sync.Mutex

	mu       sync.Mutex
	current  *link
	redialer *tunnel.Redialer
	ended    bool   // the pairing was revoked
	stop     func() // ends the run
	problem  string // why the last link could not be opened
	started  bool
	unlocked chan struct{} // closed when the pairing may run

	sched   scheduler
	results chan struct{} // capacity 1: there may be results to send
}

func newPairingRun(ctx context.Context, a *Agent, row journal.Pairing, make_ parts) (*pairingRun, error) {
	p := &pairingRun{
		agent: a, row: row, id: row.ID, journal: a.journal, log: a.log.With("pairing", row.ID.String()),
		unlocked: make(chan struct{}), results: make(chan struct{}, 1), ended: !row.Revoked.IsZero(),
	}
	p.table = topology.Dispatch(topology.DesktopLocal, topology.Sealed, p.performerOf)
	d := deps{pairing: row, journal: a.journal, link: p.caller, policy: p.policy, redactor: p.redactor, now: p.now, log: p.log}
	var err error
	if p.ident, err = make_.identity(ctx, d); err != nil {
		return nil, err
	}
	p.pub = make_.publisher(d, p.ident)
	p.linker = make_.linker(d, p.ident, p.pub)
	if err := p.checkJournal(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pairingRun) now() time.Time { return p.agent.cfg.Now() }

func (p *pairingRun) dsig() ed25519.PrivateKey { return p.ident.Keys().Signer() }

// policy is what the owner allows now. A document that is missing or malformed means no.
func (p *pairingRun) policy() pairing.Policy {
	ctx, cancel := context.WithTimeout(context.Background(), journalTimeout)
	defer cancel()
	row, err := p.journal.Pairing(ctx, p.id)
	if err != nil {
		p.log.Error("reading the policy; it counts as no", "error", err)
		return pairing.Policy{}
	}
	policy, err := pairing.ParsePolicy(row.Policy)
	if err != nil {
		p.log.Error("the policy is malformed; it counts as no", "error", err)
	}
	return policy
}

// redactor makes values remote-safe under the policy as it is now.
func (p *pairingRun) redactor() *redact.Redactor {
	return redactorFor(p.policy(), p.agent.exec.Health(context.Background()).Projects)
}

// record writes to the journal whatever happens to the caller's context: what has happened is kept.
func (p *pairingRun) record(lines []journal.Line, changes ...journal.Change) error {
	ctx, cancel := context.WithTimeout(context.Background(), journalTimeout)
	defer cancel()
	return p.journal.Record(ctx, p.now(), lines, changes...)
}

// run keeps the pairing at work until ctx ends. A locked pairing waits for its owner.
func (p *pairingRun) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.unlocked:
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p.mu.Lock()
	p.stop = stop
	p.mu.Unlock()
	if err := p.sched.begin(ctx); err != nil {
		return err
	}
	if err := p.resume(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.pub.Run(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("publisher", "error", err)
		}
	})
	wg.Go(func() { p.sendResults(ctx) })
	wg.Go(func() { p.keepTime(ctx) })
	wg.Go(func() { p.agent.dial(p, ctx) })
	wg.Wait()
	p.sched.wait()
	return nil
}

// keepTime ends what has expired and rotates keys when they are due.
func (p *pairingRun) keepTime(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		p.sweep(ctx)
		if rotated, err := p.ident.Rotate(ctx, p.now()); err != nil {
			p.log.Error("rotating keys", "error", err)
		} else if rotated {
			p.sendBundle(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// sendBundle tells the broker of a new bundle; one that cannot be told now is in the next hello.
func (p *pairingRun) sendBundle(ctx context.Context) {
	if err := p.caller().Call(ctx, tunnel.Control, wire.FrameBundle, wire.Bundle{Bundle: p.ident.Keys().Bundle()}, nil); err != nil {
		p.log.Info("the new bundle waits for the next link", "error", err)
	}
}

// caller is the current link, or one that fails.
func (p *pairingRun) caller() caller {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return offline{}
	}
	return p.current
}

// offline is the caller while there is no link.
type offline struct{}

func (offline) Call(context.Context, tunnel.Class, string, any, any) error { return errOffline }
