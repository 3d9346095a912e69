package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// presence says whether a desktop is connected, and since when or when it was last seen, in unix milliseconds.
func (s *Server) presence(ctx context.Context, p proof.PairingID) (since int64, online bool, err error) {
	if t, ok := s.cfg.Desktops.Online(p); ok {
		return t.UnixMilli(), true, nil
	}
	seen, err := s.cfg.Mailbox.Presence(ctx, p)
	if err != nil || seen.Since.IsZero() {
		return 0, false, err
	}
	return seen.Since.UnixMilli(), seen.Online, nil
}

// pairingState is what any surface may know of a pairing.
func (s *Server) pairingState(ctx context.Context, p pairing.Pairing) (wire.PairingState, error) {
	since, online, err := s.presence(ctx, p.ID)
	if err != nil {
		return wire.PairingState{}, err
	}
	seen, err := s.cfg.Mailbox.Presence(ctx, p.ID)
	kinds := p.Kinds
	if kinds == nil {
		kinds = []string{}
	}
	return wire.PairingState{
		Pairing: p.ID.String(), Online: online, Since: since, Locked: p.State == pairing.Locked, Executor: p.Executor,
		Kinds: kinds, Bundle: p.Bundle, Cursor: seen.Cursor, Time: s.now().UnixMilli(),
	}, err
}

func (s *Server) getPairing(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r, limits.Reads)
	if err != nil {
		return err
	}
	out, err := s.pairingState(r.Context(), c.pairing)
	if err != nil {
		return err
	}
	chain, err := s.cfg.Mailbox.Chain(r.Context(), c.pairing.ID, c.surface.ID)
	if err != nil {
		return err
	}
	out.Grant, out.Seq, out.Prev = c.surface.Grant, chain.Seq, chain.Last[:]
	return reply(w, http.StatusOK, out)
}

func (s *Server) getRequests(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r, limits.Reads)
	if err != nil {
		return err
	}
	open, cursor, err := s.cfg.Mailbox.OpenRequests(r.Context(), c.pairing.ID)
	if err != nil {
		return err
	}
	out := wire.OpenRequests{Requests: []wire.StreamEvent{}, Epochs: []wire.EpochBox{}, Cursor: cursor}
	boxes := newBoxes(s.cfg.Mailbox, c.pairing.ID, c.surface.ID)
	for _, b := range open {
		box, ok, err := boxes.of(r.Context(), b.Epoch)
		if err != nil {
			return err
		}
		if ok {
			out.Epochs = append(out.Epochs, box)
		}
		out.Requests = append(out.Requests, eventOf(c.pairing.ID, b))
	}
	return reply(w, http.StatusOK, out)
}

func eventOf(p proof.PairingID, b mailbox.Batch) wire.StreamEvent {
	return wire.StreamEvent{Pairing: p.String(), Cursor: b.Cursor, Batch: b.Bytes}
}

// maxBoxes is how many epochs one reader remembers to have had; a pairing keeps a few at most.
const maxBoxes = 64

// boxes gives a surface each epoch's box once, before the first batch of that epoch. An epoch from before the surface
// was linked has none: what it sealed is not for this surface.
type boxes struct {
	mailbox *mailbox.Service
	pairing proof.PairingID
	surface proof.SurfaceID
	had     map[proof.EpochID]bool
}

func newBoxes(m *mailbox.Service, p proof.PairingID, id proof.SurfaceID) *boxes {
	return &boxes{m, p, id, map[proof.EpochID]bool{}}
}

func (b *boxes) of(ctx context.Context, epoch proof.EpochID) (wire.EpochBox, bool, error) {
	if b.had[epoch] {
		return wire.EpochBox{}, false, nil
	}
	raw, err := b.mailbox.Box(ctx, b.pairing, epoch, b.surface)
	if err != nil && mailbox.CodeOf(err) != mailbox.NotFound {
		return wire.EpochBox{}, false, err
	}
	if len(b.had) >= maxBoxes {
		clear(b.had)
	}
	b.had[epoch] = true
	return wire.EpochBox{Pairing: b.pairing.String(), Box: raw}, err == nil, nil
}

// revokeSelf ends the calling surface.
func (s *Server) revokeSelf(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r, limits.Reads)
	if err != nil {
		return err
	}
	if err := empty(w, r); err != nil {
		return err
	}
	err = s.revoke(r.Context(), c.pairing.ID, c.surface.ID, "surface", c.origin(s, r))
	if err != nil {
		return err
	}
	return done(w)
}

// revoke ends a surface, durably, then everywhere: its streams, and at the desktop.
func (s *Server) revoke(ctx context.Context, p proof.PairingID, id proof.SurfaceID, by string, origin pairing.Origin) error {
	if err := s.cfg.Registry.RevokeSurface(ctx, p, id, by, origin, s.now()); err != nil {
		return err
	}
	s.SurfaceGone(p, id)
	s.tellRevoked(p, wire.Revocation{Surface: id.String(), By: by, Time: s.now().UnixMilli()})
	return nil
}

// SurfaceGone ends the streams of a surface that was revoked, whoever did it, and wakes who waits for its commands.
func (s *Server) SurfaceGone(p proof.PairingID, id proof.SurfaceID) {
	s.cfg.Feed.End(p, id, EndRevoked)
	s.cfg.Waker.Wake(p)
}

// tellRevoked tells a desktop after the answer. A desktop that is not connected hears it in its next hello.
func (s *Server) tellRevoked(p proof.PairingID, rev wire.Revocation) {
	s.after(linkCall, func(ctx context.Context) {
		err := s.cfg.Desktops.Call(ctx, p, wire.FrameRevoked, rev, nil)
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrOffline) {
			s.log.Info("desktop not told of a revocation", "pairing", p, "error", err)
		}
	})
}

// tellGone tells a desktop that its pairing was revoked, and cuts its link whether it heard or not. It has half of
// the second within which the link must be gone.
func (s *Server) tellGone(p proof.PairingID, by string) {
	s.after(goneCall, func(ctx context.Context) {
		rev := wire.Revocation{By: by, Time: s.now().UnixMilli()}
		if err := s.cfg.Desktops.Call(ctx, p, wire.FrameRevoked, rev, nil); err != nil && !errors.Is(err, ErrOffline) {
			s.log.Info("desktop not told of its revocation", "pairing", p, "error", err)
		}
		s.cfg.Desktops.Cut(p, "revoked")
	})
}

// goneCall is how long a revoked desktop may take to hear of it.
const goneCall = 500 * time.Millisecond
