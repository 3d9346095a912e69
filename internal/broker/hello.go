package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// bounds of what a hello states.
const (
	maxKinds    = 32
	maxKindName = 40
	maxVersion  = 80
)

// onHello opens a link for work. Revocations of both ends come first, then the journal's report, then everything
// else: nothing is claimed, and nothing of the agent's is taken, before.
func (k *desk) onHello(ctx context.Context, in wire.Hello) (wire.HelloReply, error) {
	if k.ready.Load() {
		return wire.HelloReply{}, &pairing.Error{Code: wire.CodeConflict, Message: "this link has said hello already"}
	}
	if err := k.checkHello(in); err != nil {
		return wire.HelloReply{}, err
	}
	k.d.setAhead(k.pairing, time.UnixMilli(in.Time).Sub(k.d.now()))
	if err := k.learn(ctx, in); err != nil {
		return wire.HelloReply{}, err
	}
	report, err := k.report(ctx, in.Report)
	if err != nil {
		return wire.HelloReply{}, err
	}
	out, err := k.helloReply(ctx, report)
	if err != nil {
		return wire.HelloReply{}, err
	}
	k.hello.Stop()
	k.told.Store(int64(out.Attached))
	k.ready.Store(true)
	// The pumps begin while the reply is on its way; the agent serves nothing before it has read it.
	k.kick()
	k.d.feed.Presence(k.pairing)
	return out, nil
}

func (k *desk) checkHello(in wire.Hello) error {
	if in.ProtocolMin > wire.ProtocolMax || in.ProtocolMax < wire.ProtocolMin {
		return &pairing.Error{Code: wire.CodeUnsupported, Message: fmt.Sprintf(
			"no common protocol: the agent speaks %d to %d, the broker %d to %d", in.ProtocolMin, in.ProtocolMax, wire.ProtocolMin, wire.ProtocolMax)}
	}
	h := proof.Hello{Broker: k.d.key, Time: in.Time, JournalID: in.Report.JournalID, Counter: in.Report.Counter, HighWater: in.Report.HighWater}
	if h.Verify(k.dsig, in.Sig) != nil {
		return malformed("the hello is not signed by the desktop")
	}
	now := k.d.now()
	if off := now.Sub(time.UnixMilli(in.Time)); off.Abs() > proof.MaxSkew {
		const layout = "2006-01-02 15:04:05 UTC"
		return &pairing.Error{Code: wire.CodeClockSkew, Message: fmt.Sprintf("the clocks are too far apart: broker %s, desktop %s",
			now.UTC().Format(layout), time.UnixMilli(in.Time).UTC().Format(layout))}
	}
	if len(in.Kinds) > maxKinds || len(in.Version) > maxVersion || len(in.Executor) > proof.MaxLabel {
		return malformed("the hello states too much")
	}
	for _, kind := range in.Kinds {
		if len(kind) > maxKindName {
			return malformed("the hello states a kind that is too long")
		}
	}
	return nil
}

// learn stores what the desktop says of itself, and the revocations which this broker has missed.
func (k *desk) learn(ctx context.Context, in wire.Hello) error {
	if err := k.missedRevocations(ctx, in.Revoked); err != nil {
		return err
	}
	row, err := k.row(ctx)
	if err != nil {
		return err
	}
	err = k.d.registry.Bundle(ctx, row, in.Bundle, k.d.now())
	if errors.Is(err, pairing.ErrConflict) {
		// A desktop that was restored is behind its own numbers. Surfaces take no lower one, so the higher one stays
		// until the desktop has passed it; what is sealed to it meanwhile the desktop refuses by itself.
		k.d.log.Warn("a desktop's key bundle is older than the one known", "pairing", k.pairing)
		err = nil
	}
	if err != nil {
		return err
	}
	return k.d.registry.Pairings.SeePairing(ctx, k.pairing, in.Executor, in.Kinds, k.d.now())
}

// missedRevocations revokes what the desktop has revoked and this broker still takes for linked.
func (k *desk) missedRevocations(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	surfaces, err := k.d.registry.Surfaces.Surfaces(ctx, k.pairing)
	if err != nil {
		return err
	}
	for _, s := range surfaces {
		if s.Revoked.IsZero() && slices.Contains(names, s.ID.String()) {
			if err := k.revokeSurface(ctx, s.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *desk) onReport(ctx context.Context, in wire.Report) (wire.ReportReply, error) {
	return k.report(ctx, in)
}

// report applies the journal's state. What the mailbox does not have at all is done with as well: nobody waits for it.
func (k *desk) report(ctx context.Context, in wire.Report) (wire.ReportReply, error) {
	rep, err := k.reportOf(ctx, in)
	if err != nil {
		return wire.ReportReply{}, err
	}
	got, err := k.d.mailbox.Report(ctx, k.pairing, k.epoch, rep, k.d.now())
	if err != nil {
		return wire.ReportReply{}, err
	}
	if got.Changed {
		k.d.log.Warn("a desktop's journal is new or older than known: what it held is outcome_unknown", "pairing", k.pairing)
	}
	out := wire.ReportReply{Rows: []wire.RowToken{}, Known: []string{}, Stops: []wire.Stop{}}
	for id, token := range got.Tokens {
		out.Rows = append(out.Rows, wire.RowToken{Command: string(id), Token: token[:]})
	}
	for _, id := range append(got.Known, got.Missing...) {
		out.Known = append(out.Known, string(id))
	}
	for _, c := range got.Stops {
		out.Stops = append(out.Stops, wire.Stop{Command: string(c.ID), Why: c.Stop.String()})
	}
	return out, nil
}

// reportOf reads a report. A row whose result is not that of the command it names counts as absent: a broker that lied
// before this one may have given the desktop false ids, and its link must not be refused for them.
func (k *desk) reportOf(ctx context.Context, in wire.Report) (mailbox.Report, error) {
	out := mailbox.Report{JournalID: in.JournalID, HighWater: in.HighWater}
	for _, row := range in.Open {
		r := mailbox.ReportRow{Command: mailbox.CommandID(row.Command), Waiting: row.State == wire.StateWaitingLocal}
		_, err := mailbox.ParseCommandID(row.Command)
		if ours := err == nil; ours && row.Result != nil { // one that is not ours is missing here, and so done with
			if row.Result.Command != row.Command {
				return out, malformed("a row has the result of another command")
			}
			o, err := k.outcome(ctx, *row.Result)
			if isMalformed(err) {
				k.d.log.Warn("a desktop reports the result of another command", "pairing", k.pairing, "command", row.Command)
				continue
			}
			if err != nil {
				return out, err
			}
			r.Done = &o
		}
		out.Rows = append(out.Rows, r)
	}
	return out, nil
}

func isMalformed(err error) bool {
	e, ok := errors.AsType[*pairing.Error](err)
	return ok && e.Code == wire.CodeMalformed
}

func (k *desk) helloReply(ctx context.Context, report wire.ReportReply) (wire.HelloReply, error) {
	out := wire.HelloReply{
		Protocol: wire.ProtocolMax, Time: k.d.now().UnixMilli(), Report: report, Revoked: []wire.Revocation{},
		Attached: k.d.feed.Count(k.pairing),
	}
	surfaces, err := k.d.registry.Surfaces.Surfaces(ctx, k.pairing)
	if err != nil {
		return out, err
	}
	for _, s := range surfaces {
		if !s.Revoked.IsZero() {
			out.Revoked = append(out.Revoked, wire.Revocation{Surface: s.ID.String(), By: s.Reason, Time: s.Revoked.UnixMilli()})
		}
	}
	epoch, seq, err := k.d.mailbox.NewestEpoch(ctx, k.pairing)
	if err == nil && !epoch.IsZero() {
		out.BatchEpoch, out.BatchSeq = epoch[:], seq
	}
	return out, err
}
