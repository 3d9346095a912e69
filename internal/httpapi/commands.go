package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// postCommand takes one sealed command. The broker checks what it can see, and what the desktop will check again.
func (s *Server) postCommand(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r, limits.Commands)
	if err != nil {
		return err
	}
	limit, err := waitOf(r)
	if err != nil {
		return err
	}
	in, err := read[wire.CommandPost](w, r, wire.MaxCommandBody)
	if err != nil {
		return err
	}
	draft, err := s.draft(c, in.Sealed)
	if err != nil {
		return err
	}
	cmd, _, err := s.cfg.Mailbox.Enqueue(r.Context(), draft, c.by(s, r), s.now())
	if err != nil {
		return err
	}
	s.cfg.Feed.posted(c.pairing.ID, c.surface.ID, cmd.ID)
	return s.taken(w, r, cmd, limit)
}

// draft holds an envelope against everything that its header shows: whose it is, the signature, what the desktop
// takes, the grant. Order and time are the mailbox's, which knows a repeated post.
func (s *Server) draft(c caller, sealed []byte) (mailbox.Draft, error) {
	if len(sealed) > wire.MaxEnvelopeBytes {
		return mailbox.Draft{}, refuse(http.StatusRequestEntityTooLarge, wire.CodeTooLarge, "The sealed command is too large.")
	}
	env, err := proof.ParseEnvelope(sealed)
	if err != nil {
		return mailbox.Draft{}, malformed("The sealed command is not of the form that the protocol states.")
	}
	h := env.Header
	if h.Pairing != c.pairing.ID || h.Surface != c.surface.ID {
		return mailbox.Draft{}, malformed("The sealed command is for another pairing or from another surface.")
	}
	if env.Verify(c.surface.Ssig) != nil {
		return mailbox.Draft{}, unauthorized()
	}
	if err := s.mayAsk(c, h); err != nil {
		return mailbox.Draft{}, err
	}
	// The header speaks by the desktop's clock, the mailbox by ours: a desktop that is a few minutes behind would
	// otherwise never get a command whose life is as short as that.
	expires := time.UnixMilli(h.Exp).Add(-s.cfg.Desktops.Ahead(h.Pairing))
	return mailbox.Draft{
		Pairing: h.Pairing, Surface: h.Surface, Kind: h.Kind, Seq: h.Seq, Prev: h.Prev, Digest: env.Hash(), Commit: h.Commit,
		IssuedAt: time.UnixMilli(h.Iat), Expires: expires, Envelope: env.Raw(), Header: env.HeaderBytes(),
		BodyHash: env.BodyHash(), Signature: env.Signature(),
	}, nil
}

// mayAsk holds kind, scope and times against the registry, what the desktop stated, and the grant that it signed.
func (s *Server) mayAsk(c caller, h proof.Header) error {
	if _, ok := s.kinds[h.Kind]; !ok || !slices.Contains(c.pairing.Kinds, h.Kind.String()) {
		return refuse(http.StatusBadRequest, wire.CodeUnsupported, "This desktop does not take commands of the kind "+h.Kind.String()+".")
	}
	grant, err := proof.OpenGrant(c.pairing.Dsig, c.surface.Grant)
	if err != nil {
		return err
	}
	now := s.now().Add(s.cfg.Desktops.Ahead(h.Pairing)) // by the desktop's clock
	switch grant.Judge(h, now) {
	case proof.OK, proof.Expired: // a repeated post gets its command also when its time is over
		return nil
	case proof.OutOfScope:
		return refuse(http.StatusForbidden, wire.CodeForbidden, "This device may not do that: it was linked without the scope "+h.Kind.Scope().String()+".",
			"link it anew at the desktop for more")
	case proof.FromFuture:
		return refuse(http.StatusBadRequest, wire.CodeClockSkew, "The command says it was made at "+clock(h.Iat)+", and at the desktop it is "+clock(now.UnixMilli())+".",
			hints[wire.CodeClockSkew])
	case proof.LifeTooLong:
		return malformed("The command would live longer than its kind may.")
	}
	return unauthorized()
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05 UTC") }

// taken answers for a command that stands in the mailbox: 200 when it has ended, in time, else 202.
func (s *Server) taken(w http.ResponseWriter, r *http.Request, cmd mailbox.Command, limit time.Duration) error {
	cmd, err := s.awaited(w, r, cmd, limit)
	if err != nil {
		return err
	}
	out, err := s.command(r, cmd)
	if err != nil {
		return err
	}
	if cmd.State.Terminal() {
		return reply(w, http.StatusOK, out)
	}
	place := strings.NewReplacer("{pairing}", out.Pairing, "{id}", out.ID).Replace(wire.PathCommand)
	w.Header().Set("Location", place)
	return reply(w, http.StatusAccepted, out)
}

// awaited waits for the end of a command, if it was asked to.
func (s *Server) awaited(w http.ResponseWriter, r *http.Request, cmd mailbox.Command, limit time.Duration) (mailbox.Command, error) {
	if limit == 0 || cmd.State.Terminal() {
		return cmd, nil
	}
	ctx, release := s.patience(w, r, limit)
	defer release()
	if ctx.Err() != nil {
		return cmd, nil
	}
	return s.cfg.Mailbox.Wait(ctx, cmd.Pairing, cmd.ID, limit)
}

// patience lets a call wait longer than others may, within the budget of its network. The context ends with the wait,
// the call, or the server; it has ended already when there is nothing to wait for, or no budget. release must be called.
func (s *Server) patience(w http.ResponseWriter, r *http.Request, limit time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	give := func() {}
	if limit > 0 {
		var ok bool
		if give, ok = s.limits.Hold(limits.Waits, limits.Networks(s.source(r))[0]); !ok {
			cancel()
			return ctx, cancel
		}
	}
	unhook := context.AfterFunc(s.ctx, cancel)
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // a server without deadlines has none to lift
	_ = rc.SetWriteDeadline(time.Now().Add(limit + writeTime))
	return ctx, func() {
		unhook()
		cancel()
		give()
	}
}

// command is a command as its sender sees it.
func (s *Server) command(r *http.Request, c mailbox.Command) (wire.Command, error) {
	since, online, err := s.presence(r.Context(), c.Pairing)
	if err != nil {
		return wire.Command{}, err
	}
	out := commandOf(c)
	out.DesktopOnline, out.DesktopSince = online, since
	return out, nil
}

func commandOf(c mailbox.Command) wire.Command {
	return wire.Command{
		ID: string(c.ID), Pairing: c.Pairing.String(), Surface: c.Surface.String(), Kind: c.Kind.String(), Sequence: c.Sequence,
		Envelope: c.Digest[:], State: c.State.String(), Reason: c.Reason, Created: c.Created.UnixMilli(),
		Expires: c.Expires.UnixMilli(), Updated: c.Updated.UnixMilli(), Result: c.Result,
	}
}

// own finds a command of the caller; one of another surface is not there.
func (s *Server) own(r *http.Request, c caller) (mailbox.Command, error) {
	id, err := mailbox.ParseCommandID(r.PathValue("id"))
	if err != nil {
		return mailbox.Command{}, err
	}
	cmd, err := s.cfg.Mailbox.Get(r.Context(), c.pairing.ID, id)
	if err == nil && cmd.Surface != c.surface.ID {
		return mailbox.Command{}, notFound()
	}
	return cmd, err
}

func (s *Server) getCommand(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r, limits.Reads)
	if err != nil {
		return err
	}
	limit, err := waitOf(r)
	if err != nil {
		return err
	}
	cmd, err := s.own(r, c)
	if err != nil {
		return err
	}
	if cmd, err = s.awaited(w, r, cmd, limit); err != nil {
		return err
	}
	out, err := s.command(r, cmd)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, out)
}

func (s *Server) cancelCommand(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r, limits.Reads)
	if err != nil {
		return err
	}
	if err := empty(w, r); err != nil {
		return err
	}
	cmd, err := s.own(r, c)
	if err != nil {
		return err
	}
	cmd, err = s.cfg.Mailbox.Cancel(r.Context(), c.pairing.ID, c.surface.ID, cmd.ID, c.by(s, r), s.now())
	if err != nil {
		return err
	}
	out, err := s.command(r, cmd)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, out)
}

// resolveCommand takes a person's decision about a command of which nobody can say whether it ran.
func (s *Server) resolveCommand(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r, limits.Reads)
	if err != nil {
		return err
	}
	in, err := read[wire.Resolve](w, r, wire.MaxCommandBody)
	if err != nil {
		return err
	}
	cmd, err := s.own(r, c)
	if err != nil {
		return err
	}
	switch {
	case in.Decision == mailbox.ItRan && len(in.Sealed) == 0:
		cmd, err = s.cfg.Mailbox.ItRan(r.Context(), c.pairing.ID, cmd.ID, c.by(s, r), s.now())
	case in.Decision == mailbox.SendAgain && len(in.Sealed) > 0:
		cmd, err = s.sendAgain(r, c, cmd, in.Sealed)
	default:
		err = malformed("A decision is it_ran, or send_again with a new sealed command.")
	}
	if err != nil {
		return err
	}
	return s.taken(w, r, cmd, 0)
}

func (s *Server) sendAgain(r *http.Request, c caller, old mailbox.Command, sealed []byte) (mailbox.Command, error) {
	draft, err := s.draft(c, sealed)
	if err != nil {
		return mailbox.Command{}, err
	}
	if draft.Kind != old.Kind {
		return mailbox.Command{}, malformed("The new command is of another kind than the old one.")
	}
	cmd, err := s.cfg.Mailbox.SendAgain(r.Context(), old.ID, draft, c.by(s, r), s.now())
	if err == nil {
		s.cfg.Feed.posted(c.pairing.ID, c.surface.ID, cmd.ID)
	}
	return cmd, err
}
