package httpapi

import (
	"context"
	"errors"
	"net/http"

	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/wire"
)

// part is one pairing of a stream, as one surface may see it.
type part struct {
	pairing string
	caller  caller
	token   string
	sub     *subscription // nil when it never began
	cursor  uint64
	boxes   *boxes
	mine    map[mailbox.CommandID]bool // own commands that have not ended
	first   bool
	gapTold bool
	end     string // a reason, once it has ended
	endTold bool
}

// endOf is the reason which a reader hears for an error at the beginning or at a later look. Anything that is not a
// lock is "expired": the reader signs in again and then hears the truth as an ordinary answer.
func endOf(err error) string {
	if p, ok := errors.AsType[*wire.Problem](err); ok && p.Status == http.StatusForbidden {
		return EndLocked
	}
	return EndExpired
}

// begin finds the place from which the reader goes on, and which of its commands have not ended.
func (p *part) begin(ctx context.Context, s *Server, after *uint64) error {
	return s.cfg.Rows.View(ctx, func(r mailbox.Reader) error {
		row, err := r.Pairing(p.caller.pairing.ID)
		if err != nil {
			return err
		}
		if p.cursor = row.Cursor; after != nil {
			p.cursor = *after
		}
		open, err := r.Commands(mailbox.Filter{
			Pairing: p.caller.pairing.ID, Surface: p.caller.surface.ID, Limit: mailbox.MaxOpenSurface,
		})
		for _, c := range open {
			p.mine[c.ID] = true
		}
		return err
	})
}

// stop ends the part; the first reason stays.
func (p *part) stop(reason string) {
	if p.end == "" {
		p.end = reason
	}
	if p.sub != nil {
		p.sub.close()
	}
}

// write adds what is new to the stream's buffer, in bounds; more says that there is still something.
func (p *part) write(ctx context.Context, st *stream) (more bool, err error) {
	if p.end == "" && st.s.now().UnixMilli() >= p.caller.token.Expires {
		p.stop(EndExpired)
	}
	if p.end == "" {
		n := p.sub.take()
		if p.first {
			n.presence, n.changed, p.first = true, true, false
		}
		if more, err = p.news(ctx, st, n); err != nil {
			return false, err
		}
	}
	return more && p.end == "", p.sayEnd(st)
}

func (p *part) news(ctx context.Context, st *stream, n news) (more bool, err error) {
	if n.end != "" {
		p.stop(n.end)
		return false, nil
	}
	if n.presence {
		err = p.presence(ctx, st)
	}
	if err == nil && n.beat != nil {
		err = st.out.event(wire.StreamBeat, "", wire.Beat{Pairing: p.pairing, Beat: n.beat})
	}
	if err != nil || !n.changed {
		return false, err
	}
	for _, id := range n.posted {
		p.mine[id] = true
	}
	if err := p.results(ctx, st); err != nil {
		return false, err
	}
	more, err = p.batches(ctx, st)
	if more {
		p.sub.again()
	}
	return more, err
}

func (p *part) sayEnd(st *stream) error {
	if p.end == "" || p.endTold {
		return nil
	}
	p.endTold = true
	return st.out.event(wire.StreamEnd, "", wire.StreamGap{Pairing: p.pairing, Cursor: p.cursor, Reason: p.end})
}

func (p *part) presence(ctx context.Context, st *stream) error {
	row, err := st.s.cfg.Registry.Pairings.Pairing(ctx, p.caller.pairing.ID)
	if err != nil {
		return err
	}
	state, err := st.s.pairingState(ctx, row)
	if err != nil {
		return err
	}
	return st.out.event(wire.StreamPresence, st.id(), state)
}

// results tells of own commands that have ended.
func (p *part) results(ctx context.Context, st *stream) error {
	for id := range p.mine {
		c, err := st.s.cfg.Mailbox.Get(ctx, p.caller.pairing.ID, id)
		if mailbox.CodeOf(err) == mailbox.NotFound {
			delete(p.mine, id)
			continue
		}
		if err != nil {
			return err
		}
		if !c.State.Terminal() {
			continue
		}
		delete(p.mine, id)
		out := commandOf(c)
		if out.DesktopSince, out.DesktopOnline, err = st.s.presence(ctx, c.Pairing); err != nil {
			return err
		}
		if err := st.out.event(wire.StreamResult, "", out); err != nil {
			return err
		}
	}
	return nil
}

// batches writes the events behind the cursor, each epoch's box before its first one.
func (p *part) batches(ctx context.Context, st *stream) (more bool, err error) {
	page, err := st.s.cfg.Mailbox.Since(ctx, p.caller.pairing.ID, p.cursor, batchesAtOnce)
	if err != nil {
		return false, err
	}
	if page.Gap {
		if p.cursor = page.Cursor; len(page.Batches) > 0 {
			p.cursor = page.Batches[0].Cursor - 1
		}
		if !p.gapTold {
			p.gapTold = true
			gap := wire.StreamGap{Pairing: p.pairing, Cursor: p.cursor, Reason: "gap"}
			if err := st.out.event(wire.StreamSnapshot, st.id(), gap); err != nil {
				return false, err
			}
		}
	}
	for _, b := range page.Batches {
		if err := p.batch(ctx, st, b); err != nil {
			return false, err
		}
	}
	return len(page.Batches) == batchesAtOnce, nil
}

func (p *part) batch(ctx context.Context, st *stream, b mailbox.Batch) error {
	box, ok, err := p.boxes.of(ctx, b.Epoch)
	if err != nil {
		return err
	}
	if ok {
		if err := st.out.event(wire.StreamEpoch, "", box); err != nil {
			return err
		}
	}
	p.cursor = b.Cursor
	return st.out.event(wire.StreamBatch, st.id(), eventOf(p.caller.pairing.ID, b))
}
