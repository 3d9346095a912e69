package agent

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// Who revoked, as wire.Revocation says it.
const (
	revokedByDesktop = "desktop"
	revokedBySurface = "surface"
)

// isOwn reports whether the agent carries out this kind by itself.
func isOwn(kind string) bool {
	return kind == proof.RevokeSurface.String() || kind == proof.RevokePairing.String()
}

// applyRevocations takes what was revoked at the broker. Revoking only ever takes away, so the broker's word is enough.
func (p *pairingRun) applyRevocations(ctx context.Context, list []wire.Revocation) error {
	changed := false
	for _, r := range list {
		line := p.byBroker(audit.SurfaceRevoked, audit.Success, r.By)
		if r.Surface == "" {
			return p.endPairing(ctx, r.By, line)
		}
		id, err := proof.ParseSurfaceID(r.Surface)
		if err != nil {
			p.log.Warn("the broker revoked a surface of an impossible id")
			continue
		}
		done, err := p.revokeRow(id, r.By, line)
		if err != nil {
			return err
		}
		changed = changed || done
	}
	if changed {
		p.afterRevocation(ctx)
	}
	return nil
}

// revokeRow revokes one surface in the journal; false when it was revoked before or is unknown.
func (p *pairingRun) revokeRow(id proof.SurfaceID, by string, line journal.Line) (bool, error) {
	line.Target = wire.AuditTarget{Kind: audit.Surface, ID: id.String()}
	err := p.record([]journal.Line{line}, journal.RevokeSurface(p.id, id, p.now(), by))
	if errors.Is(err, journal.ErrState) {
		return false, nil
	}
	return err == nil, err
}

// afterRevocation ends what the surface had waiting and begins a new epoch without it.
func (p *pairingRun) afterRevocation(ctx context.Context) {
	p.sweep(ctx)
	if err := p.pub.SurfacesChanged(ctx); err != nil {
		p.log.Error("beginning a new epoch", "error", err)
	}
}

// revokeSurface revokes for the desktop's owner or for a surface, and tells the broker and the other surfaces.
func (p *pairingRun) revokeSurface(ctx context.Context, id proof.SurfaceID, by string, line journal.Line) error {
	s, err := p.journal.Surface(ctx, p.id, id)
	if err != nil {
		return err
	}
	done, err := p.revokeRow(id, by, line)
	if err != nil || !done {
		return err
	}
	p.afterRevocation(ctx)
	p.tellGone(s)
	p.tellRevoked(ctx, id, by)
	return nil
}

// tellGone tells the surfaces that one of them has ended.
func (p *pairingRun) tellGone(s journal.Surface) {
	data, err := json.Marshal(wire.SurfaceNote{Surface: s.ID.String(), Label: s.Label, Scopes: s.Scopes.Names()})
	if err != nil {
		p.log.Error("encoding a note", "error", err)
		return
	}
	p.pub.Notice(wire.Event{Type: wire.EventSurfaceGone, Time: p.now().UnixMilli(), Data: data})
}

// tellRevoked tells the broker. One that cannot be told now learns it from the next hello.
func (p *pairingRun) tellRevoked(ctx context.Context, id proof.SurfaceID, by string) (told bool) {
	r := proof.Revocation{Pairing: p.id, Surface: id, Time: p.now().UnixMilli()}
	frame := wire.Revocation{By: by, Time: r.Time, Proof: r.Sign(p.dsig())}
	if !id.IsZero() {
		frame.Surface = id.String()
	}
	if err := p.caller().Call(ctx, tunnel.Control, wire.FrameRevoke, frame, nil); err != nil {
		p.log.Info("the broker learns of the revocation at the next link", "error", err)
		return false
	}
	return true
}

// performRevokeSurface carries out a surface's revoke_surface. Revoking one that has ended is no error.
func (p *pairingRun) performRevokeSurface(ctx context.Context, row journal.Row, s journal.Surface) (wire.ExecResult, error) {
	id, err := proof.ParseSurfaceID(row.Target)
	if err != nil {
		return wire.ExecResult{}, &wire.ExecError{Code: wire.ExecInvalid, Message: "no such surface"}
	}
	line := p.bySurface(audit.SurfaceRevoked, audit.Success, revokedBySurface, s, row)
	err = p.revokeSurface(ctx, id, revokedByDesktop, line) // the proof that the broker gets is the desktop's
	if errors.Is(err, journal.ErrState) {
		return wire.ExecResult{}, &wire.ExecError{Code: wire.ExecNotFound, Message: "no such surface"}
	}
	return wire.ExecResult{}, err
}

// performRevokePairing carries out a surface's revoke_pairing. Its result is sent before the link ends, if it can be.
func (p *pairingRun) performRevokePairing(ctx context.Context, row journal.Row, s journal.Surface) (wire.ExecResult, error) {
	line := p.bySurface(audit.PairingRevoked, audit.Success, revokedBySurface, s, row)
	return wire.ExecResult{}, p.endPairing(ctx, revokedBySurface, line)
}

// revokeGrace is how long results of what has ended may still go to the broker.
const revokeGrace = time.Second

// endPairing ends the pairing for good: nothing is taken or run any more, and the link ends.
func (p *pairingRun) endPairing(ctx context.Context, by string, line journal.Line) error {
	line.Type, line.Target = audit.PairingRevoked, wire.AuditTarget{Kind: audit.Pairing, ID: p.id.String()}
	err := p.record([]journal.Line{line}, journal.RevokePairing(p.id, p.now(), by))
	if err != nil && !errors.Is(err, journal.ErrState) {
		return err
	}
	p.mu.Lock()
	first := !p.ended
	p.ended = true
	p.mu.Unlock()
	if !first {
		return nil
	}
	p.sched.once(p.farewell)
	return nil
}

// farewell tells the broker that the pairing has ended, and ends the run. A broker that cannot be told now is told on
// the next link, of this start or a later one.
func (p *pairingRun) farewell(ctx context.Context) {
	p.sweep(ctx)
	if !p.tellRevoked(ctx, proof.SurfaceID{}, revokedByDesktop) {
		return
	}
	select { // for the results of what has ended
	case <-ctx.Done():
	case <-time.After(revokeGrace):
	}
	p.goodbye()
}

// goodbye keeps that the broker knows, and ends the run.
func (p *pairingRun) goodbye() {
	ctx, cancel := context.WithTimeout(context.Background(), journalTimeout)
	defer cancel()
	if err := p.journal.PairingTold(ctx, p.id); err != nil {
		p.log.Error("keeping that the broker knows of the end", "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop() // a job or a link runs, so the run has begun
}

// hasEnded reports whether the pairing was revoked.
func (p *pairingRun) hasEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}
