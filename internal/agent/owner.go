package agent

import (
	"context"
	"errors"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// SurfaceView is a surface as the owner is shown it.
type SurfaceView struct {
	Pairing   string    `json:"pairing"`
	ID        string    `json:"id"`
	Label     string    `json:"label"`
	Scopes    []string  `json:"scopes"`
	Linked    time.Time `json:"linked"`
	NotAfter  time.Time `json:"not_after"`
	LastUse   time.Time `json:"last_use,omitzero"`
	Revoked   time.Time `json:"revoked,omitzero"`
	RevokedBy string    `json:"revoked_by,omitempty"`
}

// AuditView is one line of the desktop's audit log, with what stands behind its commitments.
type AuditView struct {
	Seq    uint64            `json:"seq"`
	Line   string            `json:"line"` // exact JSON bytes
	Values map[string]string `json:"values,omitempty"`
}

// auditPoll is how often a waiting tail looks for new lines.
const auditPoll = 250 * time.Millisecond

// maxAuditPage bounds one answer of the audit tail.
const maxAuditPage = 1000

func (a *Agent) controlSurfaces(ctx context.Context, q pairingRequest) ([]SurfaceView, error) {
	list := []SurfaceView{}
	for _, p := range a.list {
		if q.Pairing != "" && q.Pairing != p.id.String() {
			continue
		}
		surfaces, err := p.journal.Surfaces(ctx, p.id)
		if err != nil {
			return nil, err
		}
		for _, s := range surfaces {
			list = append(list, surfaceView(s))
		}
	}
	return list, nil
}

func surfaceView(s journal.Surface) SurfaceView {
	return SurfaceView{
		Pairing: s.Pairing.String(), ID: s.ID.String(), Label: s.Label, Scopes: s.Scopes.Names(), Linked: s.Issued,
		NotAfter: s.NotAfter, LastUse: s.LastUse, Revoked: s.Revoked, RevokedBy: s.RevokedBy,
	}
}

// controlRevoke ends a surface, which the owner names by id; the pairing is found by it.
func (a *Agent) controlRevoke(ctx context.Context, q surfaceRequest) (none, error) {
	id, err := proof.ParseSurfaceID(q.Surface)
	if err != nil {
		return none{}, &ControlError{Code: wire.CodeMalformed, Message: "that is not the id of a surface; `surfaces list` shows them"}
	}
	for _, p := range a.list {
		s, err := p.journal.Surface(ctx, p.id, id)
		if errors.Is(err, journal.ErrState) {
			continue
		}
		if err != nil {
			return none{}, err
		}
		if !s.Revoked.IsZero() {
			return none{}, &ControlError{Code: wire.CodeConflict, Message: "this surface was revoked before"}
		}
		return none{}, p.revokeSurface(ctx, id, revokedByDesktop, p.byDesktop(audit.SurfaceRevoked, audit.Success, revokedByDesktop))
	}
	return none{}, &ControlError{Code: wire.CodeNotFound, Message: "no surface of that id is linked to this desktop"}
}

func (a *Agent) controlPolicy(ctx context.Context, q pairingRequest) (PolicyView, error) {
	p, err := a.one(q.Pairing)
	if err != nil {
		return PolicyView{}, err
	}
	return p.policyView(ctx)
}

func (a *Agent) controlPolicySet(ctx context.Context, q policyRequest) (PolicyView, error) {
	p, err := a.one(q.Pairing)
	if err != nil {
		return PolicyView{}, err
	}
	return p.setPolicy(ctx, q.Policy)
}

// pending lists what waits for the owner on every pairing.
func (a *Agent) pending(ctx context.Context) ([]PendingCommand, error) {
	list := []PendingCommand{}
	for _, p := range a.list {
		waiting, err := p.pendingCommands(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, waiting...)
	}
	return list, nil
}

// holder is the pairing on which a command waits.
func (a *Agent) holder(ctx context.Context, command string) (*pairingRun, error) {
	for _, p := range a.list {
		if row, err := p.journal.Command(ctx, p.id, command); err == nil && row.State == journal.WaitingLocal {
			return p, nil
		}
	}
	return nil, notWaiting(journal.ErrState)
}

func (a *Agent) controlAllow(ctx context.Context, q commandRequest) (none, error) {
	p, err := a.holder(ctx, q.Command)
	if err != nil {
		return none{}, err
	}
	return none{}, p.allow(ctx, q.Command)
}

func (a *Agent) controlDeny(ctx context.Context, q commandRequest) (none, error) {
	p, err := a.holder(ctx, q.Command)
	if err != nil {
		return none{}, err
	}
	return none{}, p.deny(ctx, q.Command)
}

// controlAudit returns lines after a number; without any it waits for one.
func (a *Agent) controlAudit(ctx context.Context, q auditRequest) ([]AuditView, error) {
	limit := min(max(q.Limit, 1), maxAuditPage)
	wait, cancel := waitFor(ctx, q.Wait)
	defer cancel()
	ticker := time.NewTicker(auditPoll)
	defer ticker.Stop()
	for {
		entries, err := a.journal.Audit(ctx, q.After, limit)
		if err != nil || len(entries) > 0 {
			return auditViews(entries), err
		}
		select {
		case <-wait.Done():
			return []AuditView{}, nil
		case <-ticker.C:
		}
	}
}

func auditViews(entries []journal.AuditEntry) []AuditView {
	list := make([]AuditView, len(entries))
	for i, e := range entries {
		list[i] = AuditView{Seq: e.Seq, Line: string(e.Line), Values: e.Values}
	}
	return list
}

func (a *Agent) controlLinkStart(ctx context.Context, q linkRequest) (LinkTicket, error) {
	p, err := a.one(q.Pairing)
	if err != nil {
		return LinkTicket{}, err
	}
	if !p.isRunning() {
		return LinkTicket{}, &ControlError{Code: wire.CodeForbidden, Message: "this pairing is locked; `desktop-agent status` says why"}
	}
	return p.linker.Start(ctx, q.Mode, q.Decide)
}

func (a *Agent) controlLinkEvents(ctx context.Context, q linkEventsRequest) ([]LinkEvent, error) {
	p, err := a.one(q.Pairing)
	if err != nil {
		return nil, err
	}
	wait, cancel := waitFor(ctx, q.Wait)
	defer cancel()
	events, err := p.linker.Events(wait, q.After)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return []LinkEvent{}, nil // nothing happened yet
	}
	return events, err
}

func (a *Agent) controlLinkDigits(ctx context.Context, q digitsRequest) (none, error) {
	p, err := a.one(q.Pairing)
	if err != nil {
		return none{}, err
	}
	return none{}, p.linker.Digits(ctx, q.Digits)
}

func (a *Agent) controlLinkCancel(ctx context.Context, q pairingRequest) (none, error) {
	p, err := a.one(q.Pairing)
	if err != nil {
		return none{}, err
	}
	return none{}, p.linker.Cancel(ctx)
}
