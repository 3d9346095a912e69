package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// errNoLink is what a broker is told for a session that is not live here: unknown and over alike.
var errNoLink = &tunnel.CallError{Code: wire.CodeBadCode, Message: "no such linking session"}

// session returns the live session if it has this pid.
func (l *linker) session(pid wire.Bytes) (*seal.DesktopLink, error) {
	if !l.isLive(pid) || l.live.State().Final() {
		return nil, errNoLink
	}
	return l.live, nil
}

// isLive reports whether pid is that of the newest session.
func (l *linker) isLive(pid wire.Bytes) bool {
	if l.live == nil {
		return false
	}
	own := l.live.Pid()
	return string(pid) == string(own[:])
}

// failed ends the session if err did, and answers the broker with nothing that helps a guesser.
func (l *linker) failed(ctx context.Context, err error, reason string) error {
	switch l.live.State() {
	case proof.LinkBurned:
		l.log.Warn("a linking was burned", "reason", reason, "error", err)
		l.end(ctx, audit.LinkBurned, reason)
	case proof.LinkExpired:
		l.end(ctx, audit.LinkExpired, "expired")
	}
	return errNoLink
}

func (l *linker) HandleClaim(ctx context.Context, c wire.LinkClaim) (wire.LinkOffer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	session, err := l.session(c.Pid)
	if err != nil {
		return wire.LinkOffer{}, err
	}
	claim, err := proof.ParseMessage[proof.Claim](c.Claim)
	if err != nil {
		return wire.LinkOffer{}, &tunnel.CallError{Code: wire.CodeMalformed, Message: "not a claim"}
	}
	offer, err := session.Claim(claim, l.now())
	if err != nil {
		reason := "second_claim"
		if errors.Is(err, seal.ErrOtherMode) {
			reason = "other_mode"
		}
		return wire.LinkOffer{}, l.failed(ctx, err, reason)
	}
	l.row.Network = proof.CleanLabel(c.Network)
	if err := l.step(ctx, audit.LinkClaimed, nil); err != nil {
		return wire.LinkOffer{}, l.unrecorded(ctx, err)
	}
	l.tell(LinkEvent{Type: LinkClaimed, Network: l.row.Network, Agent: proof.CleanLabel(c.Agent)})
	raw, err := json.Marshal(offer)
	return wire.LinkOffer{Offer: raw}, err
}

func (l *linker) HandleReveal(ctx context.Context, r wire.LinkReveal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	session, err := l.session(r.Pid)
	if err != nil {
		return err
	}
	reveal, err := proof.ParseMessage[proof.Reveal](r.Reveal)
	if err != nil {
		return &tunnel.CallError{Code: wire.CodeMalformed, Message: "not a reveal"}
	}
	who, err := session.Reveal(reveal, l.now())
	if err != nil {
		return l.failed(ctx, err, "bad_reveal")
	}
	l.row.Label, l.surface = who.Label, who.Surface
	if err := l.step(ctx, audit.LinkRevealed, nil); err != nil {
		return l.unrecorded(ctx, err)
	}
	l.tell(LinkEvent{
		Type: LinkDigits, Label: who.Label, Network: l.row.Network, Scopes: who.Scopes.Names(), Digits: who.Digits,
		Left: l.left, Surface: who.Surface.String(),
	})
	return nil
}

func (l *linker) Digits(ctx context.Context, typed string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == nil || l.live.State() != proof.LinkRevealed {
		return &ControlError{Code: codeLinkNone, Message: "no device waits for digits now"}
	}
	highest, err := l.journal.HighestSerial(ctx, l.pairing.ID)
	if err != nil {
		return err
	}
	linked, err := l.live.Digits(typed, highest+1, l.now())
	if errors.Is(err, seal.ErrDigits) {
		return l.wrongDigits(ctx)
	}
	if err != nil {
		_ = l.failed(ctx, err, "wrong_digits")
		l.tellBroker(ctx, "burned")
		return &ControlError{Code: codeLinkBurned, Message: "the linking has failed; begin again"}
	}
	if err := l.keep(ctx, linked); err != nil {
		return l.unrecorded(ctx, err)
	}
	return l.give(ctx, linked)
}

func (l *linker) wrongDigits(ctx context.Context) error {
	line := l.linkLine(audit.SurfaceRefused, "wrong_digits")
	if err := l.journal.Record(ctx, l.now(), []journal.Line{line}); err != nil {
		return err
	}
	l.left--
	return &ControlError{Code: CodeLinkDigits, Message: fmt.Sprintf("these are not the digits that the device shows; entries left: %d", l.left)}
}

// keep makes the surface durable. Its owner's yes to deciding opens the policy too: two lines of audit.
func (l *linker) keep(ctx context.Context, linked seal.Linked) error {
	g := linked.Grant
	row := journal.Surface{
		Pairing: l.pairing.ID, ID: g.Surface, Label: linked.Label, Scopes: g.Scopes, Ssig: g.Ssig, Skem: g.Skem,
		Grant: linked.Signed, Serial: g.Serial, Issued: time.UnixMilli(g.Issued), NotAfter: time.UnixMilli(g.NotAfter),
	}
	line := l.line(audit.SurfaceLinked, wire.AuditTarget{Kind: audit.Surface, ID: g.Surface.String()})
	lines, changes := []journal.Line{line}, []journal.Change{journal.PutSurface(row)}
	if g.Scopes.Has(proof.ScopeDecide) {
		old := l.policy()
		next, err := json.Marshal(withDecide(old))
		if err != nil {
			return err
		}
		if withDecide(old).Elevates(old) {
			elevated := l.line(audit.PolicyChanged, wire.AuditTarget{Kind: audit.Pairing, ID: l.pairing.ID.String()})
			elevated.Reason = "remote_allowed"
			lines, changes = append(lines, elevated), append(changes, journal.SetPolicy(l.pairing.ID, next))
		}
	}
	return l.step(ctx, audit.LinkConfirmed, lines, changes...)
}

// withDecide is the policy after the owner's yes to "May this device also answer approvals?".
func withDecide(p pairing.Policy) pairing.Policy {
	p.RemoteApprovals, p.RemoteQuestions, p.ShowRequests = pairing.RemoteAllowed, pairing.RemoteAllowed, pairing.ShowDecide
	return p
}

// give sends the grant. What the broker does not take is taken back.
func (l *linker) give(ctx context.Context, linked seal.Linked) error {
	raw, err := json.Marshal(linked.Message)
	if err != nil {
		return err
	}
	pid := l.live.Pid()
	granted := wire.LinkGranted{Pid: pid[:], Grant: raw, Public: linked.Signed, Label: linked.Label}
	if err := l.link().Call(ctx, tunnel.Control, wire.FrameLinkGrant, granted, nil); err != nil {
		l.live.Cancel()
		l.end(ctx, audit.LinkCancelled, "broker_unreachable")
		return &ControlError{Code: codeLinkOffline, Message: "the broker did not take the grant; begin again: " + err.Error()}
	}
	if err := l.pub.SurfacesChanged(ctx); err != nil {
		return err
	}
	note, err := json.Marshal(wire.SurfaceNote{Surface: linked.Grant.Surface.String(), Label: linked.Label, Scopes: linked.Grant.Scopes.Names()})
	if err != nil {
		return err
	}
	l.pub.Notice(wire.Event{Type: wire.EventSurfaceLinked, Time: l.now().UnixMilli(), Data: note})
	l.tell(LinkEvent{Type: LinkConfirmed, Label: linked.Label, Finish: linked.FinishCode, Surface: linked.Grant.Surface.String()})
	return nil
}

// HandleFinish ends a session well. The surface repeats a finish whose answer it did not see.
func (l *linker) HandleFinish(ctx context.Context, f wire.LinkFinish) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isLive(f.Pid) && l.row.State == proof.LinkDone.String() {
		return nil
	}
	session, err := l.session(f.Pid)
	if err != nil {
		return err
	}
	finish, err := proof.ParseMessage[proof.Finish](f.Finish)
	if err != nil {
		return &tunnel.CallError{Code: wire.CodeMalformed, Message: "not a finish"}
	}
	if err := session.Finish(finish, l.now()); err != nil {
		return l.failed(ctx, err, "bad_finish")
	}
	l.timer.Stop()
	if err := l.step(ctx, audit.LinkDone, nil); err != nil {
		return err
	}
	l.tell(LinkEvent{Type: LinkDone, Label: l.row.Label, Surface: l.surface.String()})
	return nil
}

func (l *linker) HandleLost(ctx context.Context, e wire.LinkEnd) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	session, err := l.session(e.Pid)
	if err != nil {
		return nil // it is over here too
	}
	session.Lost()
	l.end(ctx, audit.LinkBurned, lostReason(e.Reason))
	return nil
}

// lostReason lets through only the reasons that the protocol names.
func lostReason(said string) string {
	switch said {
	case "second_claim", "cancelled", "expired", "burned":
		return said
	}
	return "ended_by_broker"
}

func (l *linker) Cancel(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == nil || l.live.State().Final() {
		return &ControlError{Code: codeLinkNone, Message: "no device is being linked"}
	}
	l.live.Cancel()
	l.end(ctx, audit.LinkCancelled, "by_owner")
	l.tellBroker(ctx, "cancelled")
	return nil
}

// tellBroker says that the session ended here; a broker that does not hear it expires the session by itself.
func (l *linker) tellBroker(ctx context.Context, reason string) {
	pid := l.live.Pid()
	if err := l.link().Call(ctx, tunnel.Control, wire.FrameLinkEnd, wire.LinkEnd{Pid: pid[:], Reason: reason}, nil); err != nil {
		l.log.Info("the broker was not told of a linking's end", "error", err)
	}
}

// arm sets the timer for the session's end by the desktop's clock.
func (l *linker) arm(session *seal.DesktopLink) {
	l.timer = time.AfterFunc(session.Expires().Sub(l.now()), func() { l.expire(session) })
}

// expire is the timer's. A clock that was set back meanwhile makes it wait once more.
func (l *linker) expire(session *seal.DesktopLink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live != session || session.State().Final() {
		return
	}
	if !session.Expire(l.now()) {
		l.arm(session)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), journalTimeout)
	defer cancel()
	l.end(ctx, audit.LinkExpired, "expired")
}
