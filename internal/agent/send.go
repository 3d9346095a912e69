package agent

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// outboxPage is how many batches are read from the journal at once.
	outboxPage = 64
	// outboxRetry is the pause after a broker could not keep what it was sent.
	outboxRetry = 5 * time.Second
)

// sendOutbox sends announcements and batches in their order, each confirmed before the next page, until ctx ends.
func (p *publisher) sendOutbox(ctx context.Context) {
	for {
		err := p.drain(ctx)
		var again <-chan time.Time
		if err != nil && !errors.Is(err, errOffline) && ctx.Err() == nil {
			p.log.Warn("sending events", "error", err)
			again = time.After(outboxRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-again:
		}
	}
}

// drain sends until the outbox is empty or something fails.
func (p *publisher) drain(ctx context.Context) error {
	for {
		to, err := p.connected()
		if err != nil {
			return err
		}
		if err := p.sendEpochs(ctx, to); err != nil {
			return err
		}
		batches, err := p.journal.Batches(ctx, p.pairing.ID, outboxPage)
		if err != nil || len(batches) == 0 {
			return err
		}
		if err := p.sendBatches(ctx, to, batches); err != nil {
			return err
		}
	}
}

func (p *publisher) sendEpochs(ctx context.Context, to caller) error {
	waiting, err := p.journal.Epochs(ctx, p.pairing.ID)
	if err != nil {
		return err
	}
	for _, a := range waiting {
		if err := refusal(to.Call(ctx, tunnel.Control, wire.FrameEpoch, json.RawMessage(a.Frame), nil), p, "an epoch"); err != nil {
			return err
		}
		if err := p.journal.ConfirmEpoch(ctx, p.pairing.ID, a.Epoch); err != nil {
			return err
		}
	}
	return nil
}

func (p *publisher) sendBatches(ctx context.Context, to caller, batches []journal.Batch) error {
	sent := -1
	var failed error
	for i, b := range batches {
		var reply wire.BatchReply
		failed = refusal(to.Call(ctx, tunnel.Events, wire.FrameBatch, wire.Batch{Batch: b.Bytes}, &reply), p, "a batch")
		if failed != nil {
			break
		}
		sent = i
	}
	if sent < 0 {
		return failed
	}
	last := batches[sent]
	return errors.Join(failed, p.journal.ConfirmBatches(ctx, p.pairing.ID, last.Epoch, last.Seq))
}

// refusal lets go of what the broker will never take, and says so; what may succeed later stays an error.
func refusal(err error, p *publisher, what string) error {
	refused, ok := errors.AsType[*tunnel.CallError](err)
	if !ok {
		return err
	}
	switch refused.Code {
	case wire.CodeMalformed, wire.CodeTooLarge, wire.CodeConflict, wire.CodeNotFound, wire.CodeForbidden:
		p.log.Error("the broker refused "+what+" for good; surfaces see a gap", "code", refused.Code, "reason", refused.Message)
		return nil
	}
	return err
}

// sendBeats signs a sign of life while a surface looks on, until ctx ends.
func (p *publisher) sendBeats(ctx context.Context) {
	ticker := time.NewTicker(proof.BeatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.beat:
		}
		if err := p.sendBeat(ctx); err != nil && !errors.Is(err, errOffline) && ctx.Err() == nil {
			p.log.Debug("sending a beat", "error", err)
		}
	}
}

func (p *publisher) sendBeat(ctx context.Context) error {
	p.mu.Lock()
	to, attached, epoch := p.to, p.attached, p.epoch
	p.mu.Unlock()
	if to == nil || attached == 0 || epoch == nil {
		return errOffline
	}
	beat := proof.Beat{
		Pairing: p.pairing.ID, Time: p.now().UnixMilli(), Epoch: epoch.ID(), Seq: epoch.Seq(),
		Requests: proof.RequestsDigest(p.digests()),
	}
	signed := beat.Sign(p.id.Keys().Signer())
	return to.Call(ctx, tunnel.Events, wire.FrameBeat, wire.Beat{Pairing: p.pairing.ID.String(), Beat: signed}, nil)
}
