package agent

import (
	"context"
	"encoding/json"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// begin starts a new epoch for the surfaces that are linked now, and publishes the open requests under it
// (pairing-protocol.md section 5). Its keys live in memory; the announcement is durable before anything is sealed.
func (p *publisher) begin(ctx context.Context) error {
	p.flush(ctx) // what was taken before belongs to the epoch before
	surfaces, err := p.linked(ctx)
	if err != nil {
		return err
	}
	if len(surfaces) == 0 {
		p.use(nil)
		return p.loadRequests(ctx)
	}
	previous, err := p.journal.LastEpoch(ctx, p.pairing.ID)
	if err != nil {
		return err
	}
	epoch := seal.NewEpoch(p.pairing.ID, previous, p.now())
	if err := p.announce(ctx, epoch, surfaces); err != nil {
		return err
	}
	p.use(epoch)
	poke(p.wake)
	if err := p.loadRequests(ctx); err != nil {
		return err
	}
	return p.republish(ctx)
}

func (p *publisher) use(epoch *seal.Epoch) {
	p.mu.Lock()
	p.epoch = epoch
	p.mu.Unlock()
}

// linked returns who may read now.
func (p *publisher) linked(ctx context.Context) ([]journal.Surface, error) {
	all, err := p.journal.Surfaces(ctx, p.pairing.ID)
	if err != nil {
		return nil, err
	}
	now := p.now()
	var linked []journal.Surface
	for _, s := range all {
		if s.Linked(now) {
			linked = append(linked, s)
		}
	}
	return linked, nil
}

// announce seals the epoch's keys to each surface and keeps the announcement for the broker.
func (p *publisher) announce(ctx context.Context, epoch *seal.Epoch, surfaces []journal.Surface) error {
	id := epoch.ID()
	frame := wire.Epoch{Epoch: id[:], Boxes: map[string]wire.Bytes{}}
	for _, s := range surfaces {
		grant, err := proof.OpenGrant(p.id.Keys().Dsig(), s.Grant)
		if err != nil {
			return err
		}
		box, err := epoch.Box(p.id.Keys(), grant)
		if err != nil {
			return err
		}
		frame.Boxes[s.ID.String()] = box
	}
	raw, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	line := p.line(audit.EpochBegun, wire.AuditTarget{Kind: audit.Pairing, ID: p.pairing.ID.String()})
	return p.journal.Record(ctx, p.now(), []journal.Line{line}, journal.BeginEpoch(p.pairing.ID, journal.Announcement{Epoch: id, Frame: raw}))
}

// line is an audit line of what the desktop did by itself.
func (d deps) line(t audit.Type, target wire.AuditTarget) journal.Line {
	return journal.Line{
		Type: t, Outcome: audit.Success, Pairing: d.pairing.ID.String(), Target: target,
		Actor: audit.Actor{Kind: audit.Desktop, ID: d.pairing.ID.String(), Label: d.pairing.Host},
	}
}
