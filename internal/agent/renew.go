package agent

import (
	"context"
	"errors"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// renewAfter is how old a grant is when its use renews it: a surface that is used at least every 83 days never ends.
const renewAfter = 7 * 24 * time.Hour

// renewIfDue gives a surface that is used a new end for its grant (pairing-protocol.md section 1). The broker is told at
// once; when that fails, the next renewal tells it, long before the old grant ends.
func (p *pairingRun) renewIfDue(s journal.Surface) {
	if p.now().Sub(s.Issued) < renewAfter {
		return
	}
	p.sched.once(func(ctx context.Context) {
		if err := p.renew(ctx, s); err != nil && ctx.Err() == nil {
			p.log.Warn("renewing a grant", "surface", s.ID.String(), "error", err)
		}
	})
}

func (p *pairingRun) renew(ctx context.Context, s journal.Surface) error {
	g, err := proof.OpenGrant(p.ident.Keys().Dsig(), s.Grant)
	if err != nil {
		return err
	}
	highest, err := p.journal.HighestSerial(ctx, p.id)
	if err != nil {
		return err
	}
	now := p.now()
	g.Serial, g.Issued, g.NotAfter = highest+1, now.UnixMilli(), now.Add(proof.GrantLife).UnixMilli()
	s.Serial, s.Issued, s.NotAfter = g.Serial, time.UnixMilli(g.Issued), time.UnixMilli(g.NotAfter)
	s.Grant = g.Sign(p.dsig())
	line := p.byDesktop(audit.SurfaceRenewed, audit.Success, "")
	line.Target = wire.AuditTarget{Kind: audit.Surface, ID: s.ID.String()}
	if err := p.record([]journal.Line{line}, journal.PutSurface(s)); err != nil {
		if errors.Is(err, journal.ErrState) {
			return nil // revoked meanwhile
		}
		return err
	}
	return p.caller().Call(ctx, tunnel.Control, wire.FrameLinkGrant, wire.LinkGranted{Public: s.Grant, Label: s.Label}, nil)
}
