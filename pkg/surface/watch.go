package surface

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// streamQuiet is how long a stream may be silent: the broker sends a comment every 15 s.
	streamQuiet   = 45 * time.Second
	firstRedial   = 500 * time.Millisecond
	longestRedial = 30 * time.Second
)

// Update is one thing that a stream brought. Exactly one field but Cursor is set.
type Update struct {
	Event    *Event
	Request  *Request           // beside the Event of a request that was opened
	Result   *Outcome           // of a command of this surface
	Beat     *proof.Beat        // the desktop's signed sign of life
	Presence *wire.PairingState // the broker's word
	Gap      bool               // events were lost: ask for status and history
	Offline  error              // the stream was cut; it is being taken up again
	Cursor   uint64
}

// Watch follows the desktop's events after a cursor (nil: from now on) until ctx ends or the broker says that this
// surface is over. It takes a stream that was cut up again where it ended. handle runs in Watch's goroutine; its error
// ends Watch.
func (s *Surface) Watch(ctx context.Context, after *uint64, handle func(Update) error) error {
	w := &watch{s: s, after: after, handle: handle, wait: firstRedial, seqs: map[proof.EpochID]uint64{}, missing: map[proof.EpochID]bool{}}
	for {
		err := w.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case w.over(err):
			return err
		case errors.Is(err, errTokenOver):
		default:
			if err := handle(Update{Offline: err}); err != nil {
				return err
			}
		}
		if err := pause(ctx, w.wait/2+rand.N(w.wait/2)); err != nil {
			return nil
		}
		w.wait = min(2*w.wait, longestRedial)
	}
}

type watch struct {
	s      *Surface
	after  *uint64
	handle func(Update) error
	wait   time.Duration
	ended  error // why the broker ended the stream for good
	failed error // of handle

	seqs    map[proof.EpochID]uint64 // of the last batch of each epoch: what a drop or a repeat shows against
	missing map[proof.EpochID]bool   // epochs whose keys the broker did not give
}

// errTokenOver: the stream ended only because its token did.
var errTokenOver = errors.New("the token of the stream has ended")

// ErrEnded means that the broker ended the stream for a reason that does not pass by itself.
var ErrEnded = errors.New("the broker has ended this surface's stream")

func (w *watch) over(err error) bool {
	return w.ended != nil || w.failed != nil || IsCode(err, wire.CodeUnauthorized) || IsCode(err, wire.CodeForbidden) || IsCode(err, wire.CodeNotFound)
}

// once follows one stream to its end.
func (w *watch) once(ctx context.Context) error {
	if w.after == nil { // so that a stream which is cut before its first event loses nothing
		st, err := w.s.State(ctx)
		if err != nil {
			return err
		}
		w.moveTo(st.Cursor)
	}
	token, err := w.s.signIn(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := newDeadman(streamQuiet, func() { cancel(fmt.Errorf("%w: the stream went silent", ErrUnreachable)) })
	defer quiet.stop()
	sub := []wire.StreamSubscribe{{Pairing: w.s.pairing.String(), Token: token, After: w.after}}
	res, err := w.s.api.send(ctx, http.MethodPost, wire.PathStreams, "", sub)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, wire.MaxSmallBody))
		w.s.forgetToken(token)
		return problemOf(res, body)
	}
	reader := newSSEReader(res.Body)
	for {
		ev, err := reader.next()
		if err != nil {
			return cutOff(err, context.Cause(ctx))
		}
		quiet.alive()
		if err := w.take(ev); err != nil {
			return err
		}
		w.wait = firstRedial
	}
}

// cutOff says why a stream ended: cause, when it was this program that ended it.
func cutOff(err, cause error) error {
	switch {
	case cause != nil:
		return cause
	case errors.Is(err, errEventTooLarge):
		return err
	}
	return fmt.Errorf("%w: the stream was cut off", ErrUnreachable)
}

// take handles one event of the stream.
func (w *watch) take(ev sseEvent) error {
	switch ev.name {
	case wire.StreamEpoch:
		return decode(ev, func(b wire.EpochBox) error { return w.s.learnEpoch(b.Box) })
	case wire.StreamBatch:
		return decode(ev, w.batch)
	case wire.StreamBeat:
		return decode(ev, w.beat)
	case wire.StreamResult:
		return decode(ev, w.result)
	case wire.StreamPresence:
		return decode(ev, func(p wire.PairingState) error { return w.tell(Update{Presence: &p}) })
	case wire.StreamSnapshot:
		return decode(ev, func(g wire.StreamGap) error {
			w.moveTo(g.Cursor)
			return w.tell(Update{Gap: true, Cursor: g.Cursor})
		})
	case wire.StreamEnd:
		return decode(ev, w.end)
	}
	return nil // comments, and what a newer broker adds
}

func decode[T any](ev sseEvent, handle func(T) error) error {
	var v T
	if err := json.Unmarshal(ev.data, &v); err != nil {
		return fmt.Errorf("the broker's %s event is not the JSON of its API", ev.name)
	}
	return handle(v)
}

func (w *watch) tell(u Update) error {
	if err := w.handle(u); err != nil {
		w.failed = err
		return err
	}
	return nil
}

func (w *watch) moveTo(cursor uint64) { w.after = &cursor }

func (w *watch) batch(b wire.StreamEvent) error {
	h, events, err := w.s.openBatch(b.Batch)
	if errors.Is(err, errUnknownEpoch) {
		return w.unknown(h, b.Cursor)
	}
	if err != nil {
		return err
	}
	switch w.order(h) {
	case repeated:
		return nil
	case gap:
		if err := w.tell(Update{Gap: true, Cursor: b.Cursor}); err != nil {
			return err
		}
	}
	for i := range events {
		u := Update{Event: &events[i], Cursor: b.Cursor}
		if events[i].Type == wire.EventRequestOpen {
			r, err := w.s.requestOf(events[i])
			if err != nil {
				return err
			}
			u.Request = &r
		}
		if err := w.tell(u); err != nil {
			return err
		}
	}
	w.moveTo(b.Cursor)
	return nil
}

// unknown passes over events whose keys were not given: rightly when they are older than this surface's grant. If not,
// they are lost.
func (w *watch) unknown(h proof.BatchHeader, cursor uint64) error {
	w.moveTo(cursor)
	p, err := w.s.dir.read(w.s.pairing)
	if err != nil {
		return err
	}
	grant, err := proof.OpenGrant(p.Dsig, p.Grant)
	if err != nil {
		return err
	}
	if h.Time < grant.Issued || w.missing[h.Epoch] {
		return nil
	}
	if len(w.missing) >= maxEpochs {
		clear(w.missing)
	}
	w.missing[h.Epoch] = true
	return w.tell(Update{Gap: true, Cursor: cursor})
}

// What a batch is after the one before it.
const (
	inOrder = iota
	repeated
	gap
)

// order holds the desktop's own count of its batches against what the broker brought.
func (w *watch) order(h proof.BatchHeader) int {
	last, known := w.seqs[h.Epoch]
	if known && h.Seq <= last {
		return repeated
	}
	first := len(w.seqs) == 0 // a reader that begins here has missed nothing
	if len(w.seqs) >= maxEpochs {
		clear(w.seqs)
	}
	w.seqs[h.Epoch] = h.Seq
	if h.Seq > last+1 && !first {
		return gap
	}
	return inOrder
}

func (w *watch) beat(b wire.Beat) error {
	beat, err := proof.OpenBeat(w.s.dsig, b.Beat)
	if err != nil {
		return fmt.Errorf("the broker gave a beat that the desktop did not sign: %w", err)
	}
	return w.tell(Update{Beat: &beat})
}

func (w *watch) result(c wire.Command) error {
	p, err := w.s.dir.read(w.s.pairing)
	if err != nil {
		return err
	}
	hash := proof.Digest{}
	if len(c.Envelope) != len(hash) {
		return nil
	}
	copy(hash[:], c.Envelope)
	if !p.owns(hash) {
		return nil // names no envelope that this surface sent
	}
	o, err := w.s.outcome(c, hash)
	if err != nil {
		return err
	}
	return w.tell(Update{Result: &o})
}

// end ends for good when the reason does not pass.
func (w *watch) end(g wire.StreamGap) error {
	switch g.Reason {
	case "revoked", "locked":
		w.ended = fmt.Errorf("%w: %s", ErrEnded, g.Reason)
		return w.ended
	case "expired":
		w.s.mu.Lock()
		w.s.token = ""
		w.s.mu.Unlock()
		return errTokenOver
	}
	return fmt.Errorf("the broker closed the stream: %s", g.Reason)
}
