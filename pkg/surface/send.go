package surface

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// Sent is a command that the broker has taken. State is the broker's word until a signed result is there.
type Sent struct {
	Command wire.Command
	Hash    proof.Digest
	Kind    proof.Kind
}

// ErrAsleep means that the desktop's newest key has ended: it was off for more than three days. Nothing can be sealed
// to it before it comes back.
var ErrAsleep = errors.New("the desktop has been off for too long; it must come back before anything can be sent to it")

// Send seals one command, keeps the envelope durably and posts it until the broker answers, waiting up to wait (at
// most 25 s) for a result. Payload is one of wire's payload structs. A command whose post was cut off before is posted
// first, byte for byte. It never sends a second envelope for one call.
func (s *Surface) Send(ctx context.Context, kind proof.Kind, payload any, wait time.Duration) (Sent, error) {
	raw, err := json.Marshal(payload)
	if err != nil {
		return Sent{}, err
	}
	var out Sent
	err = s.dir.locked(ctx, s.pairing, func(p *profile) error {
		if err := s.postLeftover(ctx, p); err != nil {
			return err
		}
		post := func(item sent) (Sent, error) { return s.post(ctx, p, item, wait) }
		var err error
		if out, err = s.sealAndPost(ctx, p, kind, raw, post); adopt(p, err) {
			out, err = s.sealAndPost(ctx, p, kind, raw, post)
		}
		return err
	})
	return out, err
}

// postLeftover repeats the envelope whose answer was not seen. One that has expired, or that the broker refuses, is
// given up: it did not run, since the broker does not have it.
func (s *Surface) postLeftover(ctx context.Context, p *profile) error {
	if p.Unposted == nil {
		return nil
	}
	_, err := s.post(ctx, p, *p.Unposted, 0)
	if errors.Is(err, ErrUnreachable) && s.desktopNow(p).UnixMilli() < p.Unposted.Expires {
		return err
	}
	if err != nil {
		p.Unposted = nil
		return s.dir.write(p)
	}
	return nil
}

// sealAndPost makes the next envelope of the chain and posts it.
func (s *Surface) sealAndPost(ctx context.Context, p *profile, kind proof.Kind, payload []byte, post func(sent) (Sent, error)) (Sent, error) {
	bundle, err := s.bundle(ctx, p)
	if err != nil {
		return Sent{}, err
	}
	iat := s.desktopNow(p)
	c := seal.Command{Kind: kind, Payload: payload, Iat: iat, Exp: iat.Add(kind.Life())}
	raw, err := s.keys.SealCommand(bundle, c, p.chain())
	if err != nil {
		return Sent{}, err
	}
	envelope, err := proof.ParseEnvelope(raw)
	if err != nil {
		return Sent{}, err
	}
	item := sent{Hash: envelope.Hash(), Kind: kind, Expires: c.Exp.UnixMilli(), Envelope: raw}
	if kind == proof.Prompt || kind == proof.CreateSession {
		item.Payload = payload
	}
	before := p.chain()
	p.Unposted = &item
	p.setChain(before.Advance(envelope.Header, item.Hash))
	if err := s.dir.write(p); err != nil {
		return Sent{}, err
	}
	out, err := post(item)
	if refused, ok := errors.AsType[*wire.Problem](err); ok && refused.Status < http.StatusInternalServerError {
		p.Unposted = nil // the broker does not have it: the chain stands where it stood
		p.setChain(before)
		return out, errors.Join(err, s.dir.write(p))
	}
	return out, err
}

// post sends an envelope and keeps the broker's answer.
func (s *Surface) post(ctx context.Context, p *profile, item sent, wait time.Duration) (Sent, error) {
	return s.deliver(ctx, p, item, at(wire.PathCommands, s.pairing.String()), wait, wire.CommandPost{Sealed: item.Envelope})
}

func (s *Surface) deliver(ctx context.Context, p *profile, item sent, path string, wait time.Duration, body any) (Sent, error) {
	var c wire.Command
	if err := s.call(ctx, http.MethodPost, path, wait, body, &c); err != nil {
		return Sent{}, err
	}
	if string(c.Envelope) != string(item.Hash[:]) {
		return Sent{}, fmt.Errorf("the broker answered for another command")
	}
	item.Command, item.Envelope = c.ID, nil
	p.Unposted = nil
	p.keepSent(item)
	return Sent{Command: c, Hash: item.Hash, Kind: item.Kind}, s.dir.write(p)
}

// adopt takes the broker's word on where this surface's chain stands, once, after it refused the next envelope: this
// surface's folder was restored. A lie only leads to the desktop's refusal.
func adopt(p *profile, err error) bool {
	refused, ok := errors.AsType[*wire.Problem](err)
	if !ok || refused.Code != wire.CodeOrderConflict || refused.ExpectedSeq == 0 || refused.ExpectedSeq <= p.Seq+1 {
		return false
	}
	var prev proof.Digest
	if len(refused.ExpectedPrev) != len(prev) {
		return false
	}
	copy(prev[:], refused.ExpectedPrev)
	p.setChain(proof.Chain{Seq: refused.ExpectedSeq - 1, Hash: prev})
	return true
}

// desktopNow is this surface's estimate of the desktop's clock.
func (s *Surface) desktopNow(p *profile) time.Time {
	return s.opts.now().Add(time.Duration(p.SkewMS) * time.Millisecond)
}

// bundle fetches and verifies the desktop's newest bundle. An older one than was seen before is refused.
func (s *Surface) bundle(ctx context.Context, p *profile) (proof.Bundle, error) {
	st, err := s.State(ctx)
	if err != nil {
		return proof.Bundle{}, err
	}
	b, err := proof.OpenBundle(p.Dsig, st.Bundle)
	if err != nil {
		return b, fmt.Errorf("the broker gave a key that the desktop did not sign: %w", err)
	}
	now := s.desktopNow(p)
	if b.Number >= p.Bundle && now.UnixMilli() > b.NotAfter {
		return b, fmt.Errorf("%w (its key ended at %s)", ErrAsleep, time.UnixMilli(b.NotAfter).UTC().Format(time.RFC3339))
	}
	if err := b.Fresh(p.Bundle, now); err != nil {
		return b, err
	}
	p.Bundle = b.Number // written with the envelope
	return b, s.renewGrant(p, st.Grant)
}

// renewGrant keeps a grant with a higher serial.
func (s *Surface) renewGrant(p *profile, signed []byte) error {
	if len(signed) == 0 || string(signed) == string(p.Grant) {
		return nil
	}
	next, err := proof.OpenGrant(p.Dsig, signed)
	if err != nil {
		return fmt.Errorf("the broker gave a grant that the desktop did not sign: %w", err)
	}
	old, err := proof.OpenGrant(p.Dsig, p.Grant)
	if err != nil {
		return err
	}
	if next.Surface != p.Surface || next.Serial < old.Serial {
		return fmt.Errorf("the broker gave an older grant than this surface has")
	}
	p.Grant = signed
	return nil
}
