package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// linkCall is the deadline of one linking message to a desktop.
const linkCall = 10 * time.Second

// linkClaim takes message 2. The session is marked as claimed, durably, before the desktop hears of it. Whatever is
// wrong with a code gets one answer after the same work; who is to be told of it is told after the answer.
func (s *Server) linkClaim(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.LinkClaimRequest](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	claim, err := proof.ParseMessage[proof.Claim](in.Claim)
	if err != nil {
		return malformed("The claim is not of the form that the protocol states.")
	}
	if err := s.mayClaim(r, claim.Mode); err != nil {
		return err
	}
	got, err := s.cfg.Linking.Claim(r.Context(), claim, s.stranger(r), s.now())
	if err != nil {
		s.claimRefused(got, err)
		return err
	}
	offer, err := s.askOffer(r.Context(), got, claim)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, wire.LinkClaimReply{Session: got.Session, Offer: offer, Expires: got.Link.Expires.UnixMilli()})
}

// mayClaim holds the rates. Above the broker's number of wrong claims typed codes pause; links, whose secret cannot
// be guessed, go on.
func (s *Server) mayClaim(r *http.Request, mode proof.Mode) error {
	if err := s.allow(limits.Claim, r); err != nil {
		return err
	}
	if mode == proof.ModeCode && s.limits.Exceeded(limits.WrongClaims, "") {
		p := limited(time.Minute)
		p.Title, p.Hint = "Too many wrong codes were typed at this broker.", "wait a minute, or use a link instead of a code"
		return p
	}
	return nil
}

func (s *Server) claimRefused(got pairing.Claimed, err error) {
	if !errors.Is(err, pairing.ErrBadCode) {
		return
	}
	s.limits.Allow(limits.WrongClaims, "")
	if got.Burned {
		s.bell.ring(got.Link.Pid)
		s.tellLost(got.Link)
	}
}

// askOffer forwards the claim and keeps the desktop's offer. Without one the session is over: it had its one claim.
func (s *Server) askOffer(ctx context.Context, got pairing.Claimed, claim proof.Claim) (json.RawMessage, error) {
	bare, err := json.Marshal(claim.Bare())
	if err != nil {
		return nil, err
	}
	l, body := got.Link, wire.LinkOffer{}
	ask := wire.LinkClaim{Pid: l.Pid[:], Claim: bare, Network: l.Network, Agent: proof.CleanLabel(l.Agent)}
	if err = s.callDesktop(ctx, l.Pairing, wire.FrameLinkClaim, ask, &body); err == nil {
		_, err = s.cfg.Linking.Offer(ctx, l.Pairing, body.Offer, s.now())
	}
	if err != nil {
		s.log.Info("no offer for a claim", "pairing", l.Pairing, "error", err)
		s.giveUp(ctx, got.Session)
		return nil, asleep()
	}
	return body.Offer, nil
}

func asleep() *wire.Problem {
	return refuse(http.StatusServiceUnavailable, wire.CodeAsleep, "The desktop does not answer.",
		"start linking anew at the desktop while it is connected")
}

// giveUp ends a session whose desktop did not answer.
func (s *Server) giveUp(ctx context.Context, session []byte) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), linkCall)
	defer cancel()
	l, err := s.cfg.Linking.CancelBySurface(ctx, session, pairing.Origin{Kind: "broker"}, s.now())
	if err != nil {
		if !errors.Is(err, pairing.ErrConflict) {
			s.log.Error("ending a linking session", "error", err)
		}
		return
	}
	s.linkEnded(l)
}

// linkEnded tells everyone who waits or must know. A surface that was granted and not taken is gone with its session.
func (s *Server) linkEnded(l pairing.Link) {
	s.bell.ring(l.Pid)
	if l.State != proof.LinkDone && !l.Surface.IsZero() {
		s.SurfaceGone(l.Pairing, l.Surface)
	}
	s.tellLost(l)
}

// LinkEnded is linkEnded for sessions that ended outside of a call: the sweep of those whose time is over.
func (s *Server) LinkEnded(l pairing.Link) { s.linkEnded(l) }

// tellLost tells a desktop, after the answer, that its session ended here.
func (s *Server) tellLost(l pairing.Link) {
	reason := l.Reason
	if reason == "" {
		reason = l.State.String()
	}
	s.after(linkCall, func(ctx context.Context) {
		err := s.cfg.Desktops.Call(ctx, l.Pairing, wire.FrameLinkLost, wire.LinkEnd{Pid: l.Pid[:], Reason: reason}, nil)
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrOffline) {
			s.log.Info("desktop not told of a session's end", "pairing", l.Pairing, "error", err)
		}
	})
}

func (s *Server) callDesktop(ctx context.Context, p proof.PairingID, frame string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, linkCall)
	defer cancel()
	return s.cfg.Desktops.Call(ctx, p, frame, body, out)
}

func (s *Server) linkReveal(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.LinkRevealRequest](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	if err := s.allow(limits.Sign, r); err != nil {
		return err
	}
	l, err := s.cfg.Linking.Reveal(r.Context(), in.Session, in.Reveal, s.stranger(r), s.now())
	if err != nil {
		return err
	}
	err = s.callDesktop(r.Context(), l.Pairing, wire.FrameLinkReveal, wire.LinkReveal{Pid: l.Pid[:], Reveal: in.Reveal}, nil)
	if err != nil {
		s.log.Info("reveal not delivered", "pairing", l.Pairing, "error", err)
		s.giveUp(r.Context(), in.Session)
		return asleep()
	}
	return done(w)
}

// linkGrant answers how a session stands, when it has moved or the wait is over.
func (s *Server) linkGrant(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.LinkGrantRequest](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	limit, err := waitOf(r)
	if err != nil {
		return err
	}
	if err := s.allow(limits.Sign, r); err != nil {
		return err
	}
	waiting, release := s.patience(w, r, limit)
	defer release()
	out, err := s.pollGrant(r.Context(), waiting, in.Session)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, out)
}

// pollGrant reads under ctx, and waits for a move until waiting ends.
func (s *Server) pollGrant(ctx, waiting context.Context, session []byte) (wire.LinkGrantReply, error) {
	l, err := s.cfg.Linking.Poll(ctx, session, s.now())
	if err != nil {
		return wire.LinkGrantReply{}, err
	}
	hint, end := s.bell.listen(l.Pid)
	defer end()
	for {
		if l, err = s.cfg.Linking.Poll(ctx, session, s.now()); err != nil {
			return wire.LinkGrantReply{}, err
		}
		if out := grantReply(l); out.State != "pending" || !wait(waiting, hint) {
			return out, nil
		}
	}
}

// grantReply gives the grant from the moment that the desktop sent it: the surface then takes it and says so.
func grantReply(l pairing.Link) wire.LinkGrantReply {
	switch {
	case l.State == proof.LinkConfirmed || l.State == proof.LinkDone:
		return wire.LinkGrantReply{State: "done", Grant: l.Grant}
	case l.State.Final():
		return wire.LinkGrantReply{State: l.State.String()}
	}
	return wire.LinkGrantReply{State: "pending"}
}

func (s *Server) linkFinish(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.LinkFinishRequest](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	if err := s.allow(limits.Sign, r); err != nil {
		return err
	}
	l, err := s.finish(r, in)
	if err != nil {
		return err
	}
	err = s.callDesktop(r.Context(), l.Pairing, wire.FrameLinkFinish, wire.LinkFinish{Pid: l.Pid[:], Finish: in.Finish}, nil)
	if err != nil {
		s.log.Info("finish not delivered", "pairing", l.Pairing, "error", err)
	}
	s.bell.ring(l.Pid)
	if l.State != proof.LinkDone {
		s.SurfaceGone(l.Pairing, l.Surface)
	}
	if err != nil {
		return asleep()
	}
	return done(w)
}

// finish moves the session, unless it is done already: then the desktop's answer was lost, and it is told again.
func (s *Server) finish(r *http.Request, in wire.LinkFinishRequest) (pairing.Link, error) {
	l, err := s.cfg.Linking.Poll(r.Context(), in.Session, s.now())
	if err != nil || l.State == proof.LinkDone {
		return l, err
	}
	p, err := s.cfg.Registry.Pairings.Pairing(r.Context(), l.Pairing)
	if err != nil {
		return l, err
	}
	return s.cfg.Linking.Finish(r.Context(), p, in.Session, in.Finish, s.stranger(r), s.now())
}

func (s *Server) linkCancel(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.LinkGrantRequest](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	if err := s.allow(limits.Sign, r); err != nil {
		return err
	}
	l, err := s.cfg.Linking.CancelBySurface(r.Context(), in.Session, s.stranger(r), s.now())
	if err != nil {
		return err
	}
	s.linkEnded(l)
	return done(w)
}
