package surface

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Outcome is where a command stands. Only what Signed says is the desktop's word; everything else is the broker's.
type Outcome struct {
	Command wire.Command
	Hash    proof.Digest
	Signed  bool            // a result that the desktop signed is in Body
	Body    wire.ResultBody // when Signed
}

// Done reports whether the command has ended.
func (o Outcome) Done() bool { return Terminal(o.State()) }

// State is the desktop's signed state, or the broker's word.
func (o Outcome) State() string {
	if o.Signed {
		return o.Body.Status
	}
	return o.Command.State
}

// Terminal reports whether a command's state is an end.
func Terminal(state string) bool {
	switch state {
	case wire.StateQueued, wire.StateLeased, wire.StateAccepted, wire.StateWaitingLocal:
		return false
	}
	return true
}

// ErrUnsignedResult means that the broker says "done" without a result that the desktop signed for this command.
var ErrUnsignedResult = errors.New("the broker shows a result that the desktop did not sign for this command; do not believe it")

// Wait follows a command until it has ended, or ctx has. progress, if not nil, gets each new state.
func (s *Surface) Wait(ctx context.Context, sent Sent, progress func(Outcome)) (Outcome, error) {
	c, last, wait := sent.Command, "", time.Second
	for {
		o, err := s.outcome(c, sent.Hash)
		if err != nil {
			return o, err
		}
		if progress != nil && o.State() != last {
			last = o.State()
			progress(o)
		}
		if o.Done() {
			return o, s.learn(ctx, o)
		}
		if err := s.ask(ctx, sent, wait, &c); err != nil {
			return o, err
		}
		wait = min(2*wait, wire.MaxWaitSeconds*time.Second)
	}
}

// ask asks again; a broker that is away for a moment is waited for. The answer comes at once when the command has
// ended; that it went on without ending shows when the wait is over, so the first waits are short.
func (s *Surface) ask(ctx context.Context, sent Sent, wait time.Duration, c *wire.Command) error {
	path := at(wire.PathCommand, s.pairing.String(), sent.Command.ID)
	err := s.call(ctx, http.MethodGet, path, wait, nil, c)
	if errors.Is(err, ErrUnreachable) {
		return pause(ctx, time.Second)
	}
	return err
}

// Get returns where a command of this surface stands.
func (s *Surface) Get(ctx context.Context, command string) (Outcome, error) {
	p, err := s.dir.read(s.pairing)
	if err != nil {
		return Outcome{}, err
	}
	item, ok := p.find(command)
	if !ok {
		return Outcome{}, &wire.Problem{Code: wire.CodeNotFound, Title: "this surface has sent no command " + command}
	}
	var c wire.Command
	if err := s.call(ctx, http.MethodGet, at(wire.PathCommand, s.pairing.String(), command), 0, nil, &c); err != nil {
		return Outcome{}, err
	}
	return s.outcome(c, item.Hash)
}

// outcome opens a result and holds it against the envelope that it must name.
func (s *Surface) outcome(c wire.Command, hash proof.Digest) (Outcome, error) {
	o := Outcome{Command: c, Hash: hash}
	if len(c.Result) == 0 {
		switch c.State {
		case wire.StateCompleted, wire.StateBlocked: // what only a desktop can say
			return o, ErrUnsignedResult
		}
		return o, nil
	}
	h, body, err := s.keys.OpenResult(s.dsig, c.Result)
	if err != nil || h.Envelope != hash {
		return o, ErrUnsignedResult
	}
	if err := json.Unmarshal(body, &o.Body); err != nil {
		return o, fmt.Errorf("the desktop's result cannot be read: %w", err)
	}
	o.Signed, o.Body.Status = true, h.State
	return o, nil
}

// learn takes from a signed result what only the desktop can tell: its clock, and where this surface's chain stands.
func (s *Surface) learn(ctx context.Context, o Outcome) error {
	hasChain, hasTime := len(o.Body.LastHash) == len(proof.Digest{}), o.Body.DesktopTime > 0 && clockReason(o.Body.Code)
	if !o.Signed || !hasChain && !hasTime {
		return nil
	}
	return s.dir.locked(ctx, s.pairing, func(p *profile) error {
		if hasChain && p.Unposted == nil {
			p.setChain(proof.Chain{Seq: o.Body.LastSeq, Hash: proof.Digest(o.Body.LastHash)})
		}
		if hasTime {
			p.SkewMS = o.Body.DesktopTime - s.opts.now().UnixMilli()
		}
		return s.dir.write(p)
	})
}

// clockReason reports whether a refusal says that this surface's clock is off.
func clockReason(code string) bool {
	return code == proof.FromFuture.String() || code == proof.Expired.String()
}

// retryWithin is how soon a refusal must come to be about a clock.
const retryWithin = time.Minute

// Do sends a command and waits for its end. A refusal because of this surface's clock is tried once more with the
// desktop's.
func (s *Surface) Do(ctx context.Context, kind proof.Kind, payload any, progress func(Outcome)) (Outcome, error) {
	began := s.opts.now()
	o, err := s.once(ctx, kind, payload, progress)
	soon := s.opts.now().Sub(began) < retryWithin // later it expired because it waited
	if err == nil && soon && o.Signed && clockReason(o.Body.Code) {
		return s.once(ctx, kind, payload, progress)
	}
	return o, err
}

func (s *Surface) once(ctx context.Context, kind proof.Kind, payload any, progress func(Outcome)) (Outcome, error) {
	sent, err := s.Send(ctx, kind, payload)
	if err != nil {
		return Outcome{}, err
	}
	return s.Wait(ctx, sent, progress)
}

// Cancel asks that a command which has not started is not run.
func (s *Surface) Cancel(ctx context.Context, command string) (wire.Command, error) {
	var c wire.Command
	return c, s.call(ctx, http.MethodPost, at(wire.PathCancel, s.pairing.String(), command), 0, nil, &c)
}

// SendAgain decides that a prompt or create_session in outcome_unknown is to be sent again: as a new command.
func (s *Surface) SendAgain(ctx context.Context, command string) (Sent, error) {
	var out Sent
	return out, s.dir.locked(ctx, s.pairing, func(p *profile) (err error) {
		old, ok := p.find(command)
		if !ok || len(old.Payload) == 0 {
			return &wire.Problem{Code: wire.CodeNotFound, Title: "this surface does not have what it sent as " + command + "; write it again"}
		}
		out, err = s.next(ctx, p, sent{Kind: old.Kind, Instead: command}, old.Payload)
		return err
	})
}

// ItRan decides that a command in outcome_unknown did run.
func (s *Surface) ItRan(ctx context.Context, command string) (wire.Command, error) {
	var c wire.Command
	in := wire.Resolve{Decision: "it_ran"}
	return c, s.call(ctx, http.MethodPost, at(wire.PathResolve, s.pairing.String(), command), 0, in, &c)
}

// RevokeSelf ends this surface at the broker, which tells the desktop. Forget erases the keys afterwards.
func (s *Surface) RevokeSelf(ctx context.Context) error {
	return s.call(ctx, http.MethodPost, at(wire.PathRevokeSelf, s.pairing.String()), 0, nil, nil)
}
