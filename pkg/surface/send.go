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

// ErrKept means that a command was posted and the broker's answer was not seen. The envelope is kept, and the next
// call that sends posts it first: it must not be written a second time.
var ErrKept = errors.New("the command may or may not be at the broker; it is kept, and the next call posts it again")

// postTries is how often one call posts an envelope while nothing answers.
const postTries = 3

// Send seals one command, keeps the envelope durably and posts it until the broker answers. Payload is one of wire's
// payload structs. A command whose post was cut off before is posted first, byte for byte. It never makes a second
// envelope for one call, unless the broker refused the first because this surface's folder was restored.
func (s *Surface) Send(ctx context.Context, kind proof.Kind, payload any) (Sent, error) {
	raw, err := json.Marshal(payload)
	if err != nil {
		return Sent{}, err
	}
	var out Sent
	return out, s.dir.locked(ctx, s.pairing, func(p *profile) (err error) {
		out, err = s.next(ctx, p, sent{Kind: kind}, raw)
		return err
	})
}

// next posts what was left over, and then the next command of the chain.
func (s *Surface) next(ctx context.Context, p *profile, item sent, payload []byte) (Sent, error) {
	if err := s.postLeftover(ctx, p); err != nil {
		return Sent{}, err
	}
	out, err := s.sealAndPost(ctx, p, item, payload)
	if adopt(p, err) {
		return s.sealAndPost(ctx, p, item, payload)
	}
	return out, err
}

// postLeftover repeats the envelope whose answer was not seen. One that the broker refuses did not run, since the
// broker does not have it.
func (s *Surface) postLeftover(ctx context.Context, p *profile) error {
	if p.Unposted == nil {
		return nil
	}
	_, err := s.post(ctx, p, *p.Unposted, true)
	if p.Unposted == nil {
		return nil
	}
	return err
}

// sealAndPost makes the next envelope of the chain and posts it.
func (s *Surface) sealAndPost(ctx context.Context, p *profile, item sent, payload []byte) (Sent, error) {
	bundle, err := s.bundle(ctx, p)
	if err != nil {
		return Sent{}, err
	}
	iat := s.desktopNow(p)
	c := seal.Command{Kind: item.Kind, Payload: payload, Iat: iat, Exp: iat.Add(item.Kind.Life())}
	raw, err := s.keys.SealCommand(bundle, c, p.chain())
	if err != nil {
		return Sent{}, err
	}
	envelope, err := proof.ParseEnvelope(raw)
	if err != nil {
		return Sent{}, err
	}
	item.Hash, item.Expires, item.Envelope = envelope.Hash(), c.Exp.UnixMilli(), raw
	if item.Kind == proof.Prompt || item.Kind == proof.CreateSession {
		item.Payload = payload
	}
	p.Unposted = &item
	p.setChain(p.chain().Advance(envelope.Header, item.Hash))
	if err := s.dir.write(p); err != nil {
		return Sent{}, err
	}
	return s.post(ctx, p, item, false)
}

// post sends an envelope until there is an answer, and keeps that. maybe says that the broker may have it from before.
func (s *Surface) post(ctx context.Context, p *profile, item sent, maybe bool) (Sent, error) {
	for try := 1; ; try++ {
		out, err := s.deliver(ctx, p, item)
		switch {
		case err == nil:
			return out, nil
		case refused(err, maybe):
			return out, errors.Join(err, s.takeBack(p))
		case !errors.Is(err, ErrUnreachable) || try == postTries:
			return out, fmt.Errorf("%w: %w", ErrKept, err)
		}
		maybe = true
		if err := pause(ctx, time.Duration(try)*firstRedial); err != nil {
			return out, fmt.Errorf("%w: %w", ErrKept, err)
		}
	}
}

// refused reports whether err says that the broker does not have the envelope. A token or a limit that stands in the
// way says nothing about an earlier post.
func refused(err error, maybe bool) bool {
	p, ok := errors.AsType[*wire.Problem](err)
	if !ok || p.Status >= http.StatusInternalServerError {
		return false
	}
	return !maybe || p.Status != http.StatusUnauthorized && p.Status != http.StatusTooManyRequests
}

// takeBack puts the chain where it stood before the envelope that the broker does not have.
func (s *Surface) takeBack(p *profile) error {
	envelope, err := proof.ParseEnvelope(p.Unposted.Envelope)
	if err != nil {
		return err
	}
	p.Unposted = nil
	p.setChain(proof.Chain{Seq: envelope.Header.Seq - 1, Hash: envelope.Header.Prev})
	return s.dir.write(p)
}

// deliver is one post.
func (s *Surface) deliver(ctx context.Context, p *profile, item sent) (Sent, error) {
	var c wire.Command
	var err error
	if item.Instead == "" {
		err = s.call(ctx, http.MethodPost, at(wire.PathCommands, s.pairing.String()), 0, wire.CommandPost{Sealed: item.Envelope}, &c)
	} else {
		in := wire.Resolve{Decision: "send_again", Sealed: item.Envelope}
		err = s.call(ctx, http.MethodPost, at(wire.PathResolve, s.pairing.String(), item.Instead), 0, in, &c)
	}
	if err != nil {
		return Sent{}, err
	}
	if string(c.Envelope) != string(item.Hash[:]) {
		return Sent{}, errors.New("the broker answered for another command")
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
	if !ok || refused.Code != wire.CodeOrderConflict || refused.ExpectedSeq == 0 || len(refused.ExpectedPrev) != len(p.Hash) {
		return false
	}
	said := proof.Chain{Seq: refused.ExpectedSeq - 1, Hash: proof.Digest(refused.ExpectedPrev)}
	if said == p.chain() {
		return false
	}
	p.setChain(said)
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
	s.followClock(p, st.Time)
	now := s.desktopNow(p)
	if b.Number >= p.Bundle && now.UnixMilli() > b.NotAfter {
		return b, fmt.Errorf("%w (its key ended at %s)", ErrAsleep, time.UnixMilli(b.NotAfter).UTC().Format(time.RFC3339))
	}
	if err := b.Fresh(p.Bundle, now); err != nil {
		return b, fmt.Errorf("the broker gave a key of the desktop that is over: %w", err)
	}
	p.Bundle = b.Number // written with the envelope
	return b, s.renewGrant(p, st.Grant)
}

// followClock takes the broker's time for the desktop's when this surface's clock was moved since the linking: a desktop
// whose clock is not near its broker's takes no commands. If the broker lies, the desktop refuses and says its time.
func (s *Surface) followClock(p *profile, broker int64) {
	off := time.Duration(broker-s.desktopNow(p).UnixMilli()) * time.Millisecond
	if broker > 0 && off.Abs() > proof.MaxSkew {
		p.SkewMS += off.Milliseconds()
	}
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
		return errors.New("the broker gave an older grant than this surface has")
	}
	p.Grant = signed
	return nil
}
