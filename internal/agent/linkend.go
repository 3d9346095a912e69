package agent

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// How sessions end, but for the good end, and what happens to a surface that was granted in one of them.

// tidy ends what an earlier agent left behind: its secrets are gone, so nothing can come of it any more. A surface that
// has its grant and did not say so is revoked, as at the end of any session; the broker learns it from the next hello.
func (l *linker) tidy(ctx context.Context) error {
	rows, err := l.journal.LiveLinks(ctx, l.pairing.ID)
	if err != nil {
		return err
	}
	for _, row := range rows {
		from := row.State
		row.State, row.Reason = proof.LinkCancelled.String(), "agent_restarted"
		line := l.line(audit.LinkCancelled, wire.AuditTarget{Kind: audit.Link, ID: row.Pid.String()})
		line.Reason = row.Reason
		lines, changes := []journal.Line{line}, []journal.Change{journal.MoveLink(row, from)}
		if from == proof.LinkConfirmed.String() {
			id, err := l.newest(ctx)
			if err != nil {
				return err
			}
			lines = append(lines, l.revokedLine(id, row.Reason))
			changes = append(changes, journal.RevokeSurface(l.pairing.ID, id, l.now(), journal.Desk))
		}
		if err := l.journal.Record(ctx, l.now(), lines, changes...); err != nil {
			return err
		}
	}
	return nil
}

// newest is the surface that was linked last: the one of a session that stopped between its grant and its end.
func (l *linker) newest(ctx context.Context) (proof.SurfaceID, error) {
	all, err := l.journal.Surfaces(ctx, l.pairing.ID)
	if err != nil || len(all) == 0 {
		return proof.SurfaceID{}, errors.Join(err, journal.ErrState)
	}
	return slices.MaxFunc(all, func(a, b journal.Surface) int { return cmp.Compare(a.Serial, b.Serial) }).ID, nil
}

func (l *linker) revokedLine(id proof.SurfaceID, reason string) journal.Line {
	line := l.line(audit.SurfaceRevoked, wire.AuditTarget{Kind: audit.Surface, ID: id.String()})
	line.Reason = reason
	return line
}

// unrecorded ends a session of which a step could not be journalled: what is not on record does not happen.
func (l *linker) unrecorded(ctx context.Context, err error) error {
	l.live.Cancel()
	l.end(ctx, audit.LinkCancelled, "not_recorded")
	return err
}

// end journals that the live session is over, revokes what it had granted, and tells the owner why.
func (l *linker) end(ctx context.Context, t audit.Type, reason string) {
	ctx = context.WithoutCancel(ctx)
	l.row.Reason = reason
	if l.timer != nil {
		l.timer.Stop()
	}
	if err := l.step(ctx, t, nil); err != nil && !errors.Is(err, journal.ErrState) {
		l.log.Error("journalling the end of a linking", "reason", reason, "error", err)
	}
	if grant, ok := l.live.Granted(); ok && l.live.State() != proof.LinkDone {
		l.takeBack(ctx, grant.Surface)
	}
	kinds := map[proof.LinkState]string{
		proof.LinkBurned: LinkBurned, proof.LinkExpired: LinkExpired, proof.LinkCancelled: LinkCancelled,
	}
	if l.live.State() == proof.LinkBurned {
		l.burned = l.now()
	}
	l.tell(LinkEvent{Type: kinds[l.live.State()], Reason: reason})
}

// takeBack revokes a surface that did not say that it has its grant.
func (l *linker) takeBack(ctx context.Context, id proof.SurfaceID) {
	now := l.now()
	line := l.revokedLine(id, "link_not_finished")
	err := l.journal.Record(ctx, now, []journal.Line{line}, journal.RevokeSurface(l.pairing.ID, id, now, journal.Desk))
	if err != nil {
		if !errors.Is(err, journal.ErrState) {
			l.log.Error("revoking a surface that was not linked to its end", "error", err)
		}
		return
	}
	r := wire.Revocation{Surface: id.String(), By: "desktop", Time: now.UnixMilli()}
	r.Proof = proof.Revocation{Pairing: l.pairing.ID, Surface: id, Time: r.Time}.Sign(l.id.Keys().Signer())
	if err := l.link().Call(ctx, tunnel.Control, wire.FrameRevoke, r, nil); err != nil {
		l.log.Info("the revocation waits for the next link", "error", err)
	}
	if err := l.pub.SurfacesChanged(ctx); err != nil && !errors.Is(err, errOffline) { // a stopped agent begins one anyway
		l.log.Error("beginning an epoch without the surface", "error", err)
	}
}
