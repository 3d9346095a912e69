package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/wire"
)

// batchesAtOnce is how many batches one part of a stream writes before the next part has its turn.
const batchesAtOnce = 16

// maxEventID bounds Last-Event-ID: 32 pairs of id and cursor.
const maxEventID = 2048

// openStream serves one stream of server-sent events for up to wire.MaxStreams pairings, each under its own token.
// Nothing is buffered for a reader: its cursor says what it still needs, and the store has it.
func (s *Server) openStream(w http.ResponseWriter, r *http.Request) error {
	subs, err := read[[]wire.StreamSubscribe](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	resume, err := lastEventID(r)
	if err != nil {
		return err
	}
	st, err := s.newStream(r.Context(), subs, resume)
	if err != nil {
		return err
	}
	defer st.close()
	if st.out, err = startSSE(w); err == nil {
		err = st.run(r.Context())
	}
	if err != nil && r.Context().Err() == nil {
		s.log.Debug("stream ended", "error", err)
	}
	return nil // the head is out: there is no other answer any more
}

// lastEventID reads "pairing:cursor" pairs joined by commas.
func lastEventID(r *http.Request) (map[string]uint64, error) {
	text := r.Header.Get("Last-Event-ID")
	if len(text) > maxEventID {
		return nil, malformed("Last-Event-ID is too long.")
	}
	cursors := map[string]uint64{}
	for pair := range strings.SplitSeq(text, ",") {
		if pair == "" {
			continue
		}
		id, cursor, _ := strings.Cut(pair, ":")
		n, err := strconv.ParseUint(cursor, 10, 64)
		if err != nil {
			return nil, malformed("Last-Event-ID is not one of this broker's.")
		}
		cursors[id] = n
	}
	return cursors, nil
}

// stream is one open connection; parts are its pairings.
type stream struct {
	s       *Server
	out     *sse
	wake    chan struct{}
	parts   []*part
	release []func()
}

// newStream checks every token before anything is sent. When all are bad the answer is an error; else those which are
// bad end at once, and the others go on.
func (s *Server) newStream(ctx context.Context, subs []wire.StreamSubscribe, resume map[string]uint64) (*stream, error) {
	if len(subs) == 0 || len(subs) > wire.MaxStreams {
		return nil, malformed("A stream is for 1 to " + strconv.Itoa(wire.MaxStreams) + " pairings.")
	}
	st := &stream{s: s, wake: make(chan struct{}, 1)}
	seen := map[string]bool{}
	var refusal error
	for _, sub := range subs {
		if seen[sub.Pairing] {
			st.close()
			return nil, malformed("A pairing is named twice.")
		}
		seen[sub.Pairing] = true
		if n, ok := resume[sub.Pairing]; ok {
			sub.After = &n
		}
		if err := st.add(ctx, sub); err != nil {
			refusal = err
		}
	}
	if st.live() == 0 {
		st.close()
		return nil, refusal
	}
	return st, nil
}

// add makes one part. It listens before it looks the surface up, so that a revocation in between is not missed.
func (st *stream) add(ctx context.Context, sub wire.StreamSubscribe) error {
	c, err := st.s.bearer(ctx, sub.Pairing, sub.Token)
	if err == nil {
		err = st.hold(c)
	}
	if err != nil {
		st.parts = append(st.parts, &part{pairing: sub.Pairing, end: endOf(err)})
		return err
	}
	p := &part{
		pairing: sub.Pairing, caller: c, token: sub.Token, first: true, mine: map[mailbox.CommandID]bool{},
		boxes: newBoxes(st.s.cfg.Mailbox, c.pairing.ID, c.surface.ID),
		sub:   st.s.cfg.Feed.subscribe(c.pairing.ID, c.surface.ID, st.wake),
	}
	st.parts = append(st.parts, p)
	if _, err = st.s.bearer(ctx, sub.Pairing, sub.Token); err == nil {
		err = p.begin(ctx, st.s, sub.After)
	}
	if err != nil {
		p.stop(endOf(err))
	}
	return err
}

// hold takes the surface's and the broker's budget of streams.
func (st *stream) hold(c caller) error {
	if err := st.s.allowKeys(limits.Reads, c.surface.ID.String()); err != nil {
		return err
	}
	for rule, key := range map[limits.Name]string{limits.Streams: c.surface.ID.String(), limits.StreamsTotal: ""} {
		release, ok := st.s.limits.Hold(rule, key)
		if !ok {
			return limited(heartbeat)
		}
		st.release = append(st.release, release)
	}
	return nil
}

func (st *stream) close() {
	for _, p := range st.parts {
		p.stop(EndDrain)
	}
	for _, release := range st.release {
		release()
	}
}

func (st *stream) live() int {
	n := 0
	for _, p := range st.parts {
		if p.end == "" {
			n++
		}
	}
	return n
}

// run writes until the reader leaves, every part has ended, or the reader is too slow.
func (st *stream) run(ctx context.Context) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		more, err := st.round(ctx)
		if err != nil || st.live() == 0 {
			return err
		}
		if more {
			continue
		}
		select {
		case <-st.wake:
		case <-beat.C:
			st.out.comment("beat")
			st.recheck(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// round gives each part its turn. It says whether some part has more to write.
func (st *stream) round(ctx context.Context) (more bool, err error) {
	for _, p := range st.parts {
		again, err := p.write(ctx, st)
		if err != nil {
			return false, err
		}
		more = more || again
		took, err := st.out.flush()
		if err != nil {
			return false, err
		}
		if took > st.out.slow {
			return false, st.endAll(EndSlow)
		}
	}
	return more, nil
}

// endAll ends what is left, resumably.
func (st *stream) endAll(reason string) error {
	for _, p := range st.parts {
		p.stop(reason)
		if err := p.sayEnd(st); err != nil {
			return err
		}
	}
	_, err := st.out.flush()
	return err
}

// recheck looks every token up again: its own end, the grant's, and anything that nobody told the feed.
func (st *stream) recheck(ctx context.Context) {
	for _, p := range st.parts {
		if p.end != "" {
			continue
		}
		if _, err := st.s.bearer(ctx, p.pairing, p.token); err != nil {
			p.stop(endOf(err))
		}
	}
}

// id is what resumes the stream.
func (st *stream) id() string {
	pairs := make([]string, 0, len(st.parts))
	for _, p := range st.parts {
		if p.sub != nil {
			pairs = append(pairs, p.pairing+":"+strconv.FormatUint(p.cursor, 10))
		}
	}
	return strings.Join(pairs, ",")
}
