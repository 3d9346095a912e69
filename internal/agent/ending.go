package agent

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// Reason codes of results, stable, beside those of proof.Verdict and pairing.Decision.
const (
	reasonOutOfOrder     = "out_of_order"
	reasonRequestGone    = "request_gone"
	reasonRequestChanged = "request_changed"
	reasonDecided        = "already_decided"
	reasonDenied         = "denied_locally"
	reasonUnknown        = "outcome_unknown"
	reasonRevoked        = "revoked"
	reasonTooLarge       = "result_too_large"
)

// ending is how a command ended, before it is sealed.
type ending struct {
	state   string // terminal
	body    wire.ResultBody
	gap     bool   // a surface's chain has a gap that nothing explains
	outcome string // of a decision that was carried out
}

// ended is an ending without content.
func ended(state, code, message string) ending {
	return ending{state: state, body: wire.ResultBody{Code: code, Message: message}}
}

// blocked is the policy's no.
func blocked(reason string) ending {
	return ended(wire.StateBlocked, reason, "The desktop's policy does not allow this.")
}

// refusalOf is what the surface is told of a verdict.
func (p *pairingRun) refusalOf(v proof.Verdict, c seal.Case, row journal.Row) ending {
	e := ended(wire.StateFailed, v.String(), "The desktop refused this command: "+strings.ReplaceAll(v.String(), "_", " ")+".")
	switch {
	case v.OutOfOrder():
		e.gap = v != proof.Stale
		e.body.Code = reasonOutOfOrder
		e.body.LastSeq, e.body.LastHash = c.Chain.Seq, c.Chain.Hash[:]
		if e.gap { // the chain goes on from this envelope
			e.body.LastSeq, e.body.LastHash = row.Seq, row.Envelope[:]
		}
	case v == proof.Expired:
		e = ended(wire.StateExpired, v.String(), "It came too late to run.")
	case v == proof.ClockSkew:
		e.body.Message = skewMessage(c)
	case v == proof.FromFuture:
		e.body.Message = fmt.Sprintf("The command was issued at %s, the desktop's clock says %s.", clock(row.IssuedAt), clock(c.Now))
	}
	return e
}

// skewMessage names the two times that do not agree.
func skewMessage(c seal.Case) string {
	if c.Now.Before(c.Last) {
		return fmt.Sprintf("The desktop's clock says %s, but its journal was written at %s.", clock(c.Now), clock(c.Last))
	}
	return fmt.Sprintf("The desktop's clock says %s, the broker's %s.", clock(c.Now), clock(c.Broker))
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// sealResult seals an ending to its surface and signs it. A body that is too large is replaced by a note that says so.
func (p *pairingRun) sealResult(s journal.Surface, row journal.Row, e ending) ([]byte, error) {
	now := p.now()
	e.body.OK, e.body.Status, e.body.DesktopTime = e.state == wire.StateCompleted, e.state, now.UnixMilli()
	h := proof.ResultHeader{
		Pairing: p.id, Surface: s.ID, Envelope: row.Envelope, Command: row.Command, State: e.state,
		Counter: p.journal.Meta().Counter, Time: now.UnixMilli(),
	}
	raw, err := json.Marshal(e.body)
	if err != nil {
		return nil, err
	}
	if len(raw) > proof.MaxResult-maxResultOverhead {
		small := wire.ResultBody{
			OK: e.body.OK, Status: e.state, Code: reasonTooLarge, Message: "It ran, but its result is too large to send.",
			TurnID: e.body.TurnID, DesktopTime: e.body.DesktopTime,
		}
		if raw, err = json.Marshal(small); err != nil {
			return nil, err
		}
	}
	return p.ident.Keys().SealResult(s.Skem, h, raw)
}

// maxResultOverhead is what header, padding, tag and signature add to a result's body, generously.
const maxResultOverhead = 4 << 10
