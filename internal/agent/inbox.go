package agent

import (
	"context"
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

// States of a wire.Delivered and answers of a wire.Stopped.
const (
	deliveredReceived  = "received"
	deliveredWaiting   = journal.WaitingLocal
	deliveredDuplicate = "duplicate"
	deliveredRefused   = "refused"
	stoppedTombstone   = "tombstone"
	stoppedStarted     = "started"
)

// deliver takes one command: verified, judged, journalled with its verdict and its audit line, and only then answered
// (pairing-protocol.md section 4, mailbox.md).
func (l *link) deliver(ctx context.Context, d wire.Deliver) (wire.Delivered, error) {
	if d.Sequence > proof.MaxNumber { // the journal's high-water mark never goes down: no broker could take it any more
		return wire.Delivered{}, &tunnel.CallError{Code: wire.CodeMalformed, Message: "the sequence is not a number"}
	}
	done, err := l.takes()
	if err != nil {
		return wire.Delivered{}, err
	}
	defer done()
	p := l.run
	l.setToken(d.Command, d.Token)
	e, err := proof.ParseEnvelope(d.Envelope)
	if err != nil {
		return p.turnAway(ctx, d, proof.Malformed)
	}
	s, err := p.surfaceOf(ctx, e.Header)
	if errors.Is(err, journal.ErrState) {
		return p.turnAway(ctx, d, proof.UnknownSurface)
	}
	if err != nil {
		return wire.Delivered{}, err
	}
	if e.Verify(s.Ssig) != nil {
		return p.turnAway(ctx, d, proof.BadSignature)
	}
	if state, err := p.known(ctx, d, e); state != "" || err != nil {
		return wire.Delivered{State: state}, err
	}
	row := rowOf(d, e, p.now())
	state, err := p.admit(ctx, e, s, row)
	if err != nil {
		return wire.Delivered{}, err
	}
	return wire.Delivered{State: state}, nil
}

// surfaceOf is the surface that a header names, from the desktop's own table; ErrState when there is none.
func (p *pairingRun) surfaceOf(ctx context.Context, h proof.Header) (journal.Surface, error) {
	if h.Pairing != p.id {
		return journal.Surface{}, journal.ErrState
	}
	return p.journal.Surface(ctx, p.id, h.Surface)
}

// rowOf is the inbox row of an envelope as far as its header tells.
func rowOf(d wire.Deliver, e proof.Envelope, now time.Time) journal.Row {
	r := rowOfHeader(e.Header)
	r.Command, r.Sequence, r.Envelope, r.Received = d.Command, d.Sequence, e.Hash(), now
	return r
}

func rowOfHeader(h proof.Header) journal.Row {
	return journal.Row{
		Pairing: h.Pairing, Surface: h.Surface, Kind: h.Kind.String(), Seq: h.Seq, Prev: h.Prev, Commit: h.Commit,
		IssuedAt: time.UnixMilli(h.Iat), Expires: time.UnixMilli(h.Exp),
	}
}

// turnAway refuses what no surface of ours can be shown to have sent. It gets a line and a tombstone with an unsigned
// result: there is nobody to sign it for.
func (p *pairingRun) turnAway(ctx context.Context, d wire.Deliver, v proof.Verdict) (wire.Delivered, error) {
	if !isCommandID(d.Command) {
		return wire.Delivered{State: deliveredRefused}, nil
	}
	line := p.byBroker(audit.CommandRefused, audit.Refused, v.String())
	line.Target = wire.AuditTarget{Kind: audit.Command, ID: d.Command}
	end := journal.End{Verdict: wire.StateFailed, Reason: v.String(), At: p.now()}
	err := p.record([]journal.Line{line}, journal.Tombstone(p.id, d.Command, end))
	if errors.Is(err, journal.ErrDuplicate) {
		return wire.Delivered{State: deliveredDuplicate}, p.offerAgain(ctx, d.Command)
	}
	if err != nil {
		return wire.Delivered{}, err
	}
	poke(p.results)
	return wire.Delivered{State: deliveredRefused}, nil
}

// isCommandID reports whether an id of the broker can stand in a result's header.
func isCommandID(id string) bool { return isID(id) && len(id) <= proof.MaxCommandID }

// known answers what is in the inbox already: the same envelope, perhaps under another mailbox id, or a mailbox id that
// was stopped before its envelope came. The state is empty for what is new.
func (p *pairingRun) known(ctx context.Context, d wire.Deliver, e proof.Envelope) (state string, err error) {
	row, err := p.journal.Envelope(ctx, p.id, e.Hash())
	if err == nil {
		if row.State == journal.Skipped {
			return deliveredRefused, nil
		}
		return deliveredDuplicate, p.rename(ctx, row, d)
	}
	if !errors.Is(err, journal.ErrState) {
		return "", err
	}
	row, err = p.journal.Command(ctx, p.id, d.Command)
	if errors.Is(err, journal.ErrState) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return p.idTaken(ctx, d, e, row)
}

// rename gives a known envelope the id under which it comes now. A result that names another id is of no use to the
// broker, so it is made anew: the same end, without what only the first one told.
func (p *pairingRun) rename(ctx context.Context, row journal.Row, d wire.Deliver) error {
	var result []byte
	if row.State == journal.Done && row.Command != d.Command {
		s, err := p.journal.Surface(ctx, p.id, row.Surface)
		if err != nil {
			return err
		}
		row.Command = d.Command
		end := ended(row.Verdict, row.Reason, "It ended before and was delivered again.")
		end.body.TurnID = row.Exec.Ref
		if result, err = p.sealResult(s, row, end); err != nil {
			return err
		}
	}
	if err := p.journal.Rename(ctx, p.id, row.ID, d.Command, d.Sequence, result); err != nil {
		return err
	}
	poke(p.results)
	return nil
}

// idTaken answers a new envelope under a mailbox id that the inbox has: of a tombstone, which binds it, or of another
// envelope, which is a broker's mistake and a line.
func (p *pairingRun) idTaken(ctx context.Context, d wire.Deliver, e proof.Envelope, have journal.Row) (string, error) {
	line := p.byBroker(audit.CommandRefused, audit.Refused, "command_id_reused")
	line.Target = wire.AuditTarget{Kind: audit.Command, ID: d.Command}
	if have.Envelope.IsZero() {
		line.Reason = "stopped"
		err := p.record([]journal.Line{line}, journal.Bind(rowOf(d, e, p.now())))
		if err != nil {
			return "", err
		}
		return deliveredDuplicate, p.offerAgain(ctx, d.Command)
	}
	return deliveredRefused, p.record([]journal.Line{line})
}

// offerAgain makes the result of a command that has ended go to the broker again.
func (p *pairingRun) offerAgain(ctx context.Context, command string) error {
	row, err := p.journal.Command(ctx, p.id, command)
	if err != nil || row.State != journal.Done {
		return err
	}
	return p.rename(ctx, row, wire.Deliver{Command: command, Sequence: row.Sequence})
}

// admit judges a new envelope of a surface whose signature verified, and journals it with its verdict.
func (p *pairingRun) admit(ctx context.Context, e proof.Envelope, s journal.Surface, row journal.Row) (string, error) {
	if row.Command == "" || !isCommandID(row.Command) {
		return "", fmt.Errorf("the broker's command id is unusable")
	}
	c := p.caseOf(s, e.Header)
	j := p.ident.Keys().Judge(e, c)
	if j.Verdict != proof.OK {
		return deliveredRefused, p.refuse(s, row, p.refusalOf(j.Verdict, c, row))
	}
	a, err := parsePayload(e.Header.Kind, j.Payload)
	if err != nil {
		return deliveredRefused, p.refuse(s, row, p.refusalOf(proof.Malformed, c, row))
	}
	a.exec.ID = fmt.Sprintf("%x", row.Envelope[:])
	row.Exec, row.Digest = a.exec, a.digest
	if !a.surface.IsZero() {
		row.Target = a.surface.String()
	}
	d := p.policy().Decide(askOf(e.Header.Kind, s, row))
	if d.Answer == pairing.Block {
		return deliveredRefused, p.refuse(s, row, blocked(d.Reason))
	}
	if end, ok := p.requestFits(ctx, row); !ok {
		return deliveredRefused, p.refuse(s, row, end)
	}
	if d.Answer == pairing.Confirm {
		return deliveredWaiting, p.accept(s, row, true)
	}
	return deliveredReceived, p.accept(s, row, false)
}

// caseOf is what the desktop knows when an envelope of s arrives.
func (p *pairingRun) caseOf(s journal.Surface, h proof.Header) seal.Case {
	now := p.now()
	chain := proof.Chain{Seq: s.LastSeq, Hash: s.LastHash}
	if s.Resync {
		chain = chain.Adopt(h)
	}
	return seal.Case{
		Grant: proof.Grant{
			Pairing: s.Pairing, Surface: s.ID, Ssig: s.Ssig, Skem: s.Skem, Scopes: s.Scopes, Serial: s.Serial,
			Issued: s.Issued.UnixMilli(), NotAfter: s.NotAfter.UnixMilli(),
		},
		Revoked: !s.Revoked.IsZero(), Chain: chain, Now: now, Last: p.journal.LastTime(), Broker: p.brokerTime(now),
	}
}

// askOf is the question to the policy.
func askOf(kind proof.Kind, s journal.Surface, row journal.Row) pairing.Ask {
	return pairing.Ask{Kind: kind, Scopes: s.Scopes, Self: row.Target == s.ID.String(), Attachments: len(row.Exec.Attachments) > 0}
}

// accept journals a command that may run, or that waits for a person, and hands it on.
func (p *pairingRun) accept(s journal.Surface, row journal.Row, wait bool) error {
	row.State = journal.Received
	lines := []journal.Line{p.bySurface(audit.CommandReceived, audit.Success, "", s, row)}
	if wait {
		row.State = journal.WaitingLocal
		lines = append(lines, p.bySurface(audit.CommandWaiting, audit.Success, pairing.ReasonConfirm, s, row))
	}
	if err := p.record(lines, journal.Receive(row)); err != nil {
		return err
	}
	if !wait {
		p.schedule(row)
	}
	p.renewIfDue(s)
	return nil
}

// refuse journals a command with its final verdict and a signed result that says why.
func (p *pairingRun) refuse(s journal.Surface, row journal.Row, end ending) error {
	row.Verdict, row.Reason, row.Ended = end.state, end.body.Code, p.now()
	result, err := p.sealResult(s, row, end)
	if err != nil {
		return err
	}
	row.Result = result
	kind := audit.CommandRefused
	if end.gap {
		kind = audit.CommandGap
	}
	if err := p.record([]journal.Line{p.bySurface(kind, audit.Refused, row.Reason, s, row)}, journal.Refuse(row)); err != nil {
		return err
	}
	poke(p.results)
	return nil
}

// skip takes what stands in for an envelope that ended at the broker, so that the surface's chain closes.
func (l *link) skip(ctx context.Context, k wire.Skip) (wire.Delivered, error) {
	done, err := l.takes()
	if err != nil {
		return wire.Delivered{}, err
	}
	defer done()
	p := l.run
	stub, err := proof.ParseStub(k.Header, k.Envelope, k.BodyHash, k.Signature)
	if err != nil || !isCommandID(k.Command) {
		return wire.Delivered{State: deliveredRefused}, p.record([]journal.Line{p.byBroker(audit.CommandSkipped, audit.Refused, proof.Malformed.String())})
	}
	s, err := p.surfaceOf(ctx, stub.Header)
	if errors.Is(err, journal.ErrState) {
		return wire.Delivered{State: deliveredRefused}, p.record([]journal.Line{p.byBroker(audit.CommandSkipped, audit.Refused, proof.UnknownSurface.String())})
	}
	if err != nil {
		return wire.Delivered{}, err
	}
	return p.skipped(ctx, k, stub, s)
}

func (p *pairingRun) skipped(ctx context.Context, k wire.Skip, stub proof.Stub, s journal.Surface) (wire.Delivered, error) {
	c := p.caseOf(s, stub.Header)
	row := rowOfHeader(stub.Header)
	row.Command, row.Envelope, row.Received = k.Command, stub.Hash, p.now()
	if _, err := p.journal.Envelope(ctx, p.id, stub.Hash); err == nil {
		return wire.Delivered{State: deliveredDuplicate}, nil
	}
	v := seal.JudgeStub(stub, c.Grant, c.Chain).Verdict
	if v != proof.OK {
		kind := audit.CommandSkipped
		if v == proof.Gap || v == proof.WrongPrev {
			kind = audit.CommandGap
		}
		return wire.Delivered{State: deliveredRefused}, p.record([]journal.Line{p.bySurface(kind, audit.Refused, v.String(), s, row)})
	}
	line := p.bySurface(audit.CommandSkipped, audit.Success, k.State, s, row)
	err := p.record([]journal.Line{line}, journal.Skip(row))
	if errors.Is(err, journal.ErrDuplicate) { // a tombstone was written for it before
		err = p.record([]journal.Line{line}, journal.Bind(row))
	}
	if err != nil {
		return wire.Delivered{}, err
	}
	return wire.Delivered{State: deliveredReceived}, nil
}

// stop makes sure that a command will never run, or says that it has started.
func (l *link) stop(ctx context.Context, s wire.Stop) (wire.Stopped, error) {
	done, err := l.takes()
	if err != nil {
		return wire.Stopped{}, err
	}
	defer done()
	answer, err := l.run.stopCommand(ctx, s)
	return wire.Stopped{Command: s.Command, Answer: answer}, err
}

// stopCommand decides in the transaction in which the command would start: whoever is first wins.
func (p *pairingRun) stopCommand(ctx context.Context, w wire.Stop) (string, error) {
	if !isCommandID(w.Command) || (w.Why != wire.StateCancelled && w.Why != wire.StateExpired) {
		return "", fmt.Errorf("the broker's stop is unusable")
	}
	row, err := p.journal.Command(ctx, p.id, w.Command)
	if errors.Is(err, journal.ErrState) {
		line := p.byBroker(audit.CommandStopAnswered, audit.Success, w.Why)
		line.Target = wire.AuditTarget{Kind: audit.Command, ID: w.Command}
		err = p.record([]journal.Line{line}, journal.Tombstone(p.id, w.Command, journal.End{Verdict: w.Why, Reason: "stopped", At: p.now()}))
		return stoppedTombstone, err
	}
	if err != nil {
		return "", err
	}
	switch {
	case row.State == journal.Done && (row.Verdict == wire.StateCancelled || row.Verdict == wire.StateExpired):
		return stoppedTombstone, nil
	case row.State == journal.Received || row.State == journal.WaitingLocal:
		err = p.finish(row, row.State, ended(w.Why, "stopped", "It was stopped before it ran."), audit.CommandStopAnswered)
		if err == nil {
			return stoppedTombstone, nil
		}
		if !errors.Is(err, journal.ErrState) {
			return "", err
		}
	}
	line := p.byBroker(audit.CommandStopAnswered, audit.Refused, stoppedStarted)
	line.Target = wire.AuditTarget{Kind: audit.Command, ID: w.Command}
	return stoppedStarted, p.record([]journal.Line{line})
}
