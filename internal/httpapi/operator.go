package httpapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

const (
	maxAuditLines     = 1000
	defaultAuditLines = 200
	maxSeq            = 1 << 53
)

// operator is who speaks on the socket: whoever the file system lets open it.
func operator() pairing.Origin { return pairing.Origin{Kind: "operator", ID: "socket"} }

func (s *Server) issueCode(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.CodeIssue](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	if in.TTLSeconds < 0 || in.TTLSeconds > int(pairing.MaxCodeLife/time.Second) {
		return malformed("A code lives at most 24 hours.")
	}
	code, rec, err := s.cfg.Enrolment.Issue(r.Context(), time.Duration(in.TTLSeconds)*time.Second, in.Note, operator(), s.now())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, wire.CodeIssued{
		ID: rec.ID, Text: code.Text(), Link: code.Link(s.cfg.PageOrigin), Expires: rec.Expires.UnixMilli(),
	})
}

func (s *Server) listCodes(w http.ResponseWriter, r *http.Request) error {
	codes, err := s.cfg.Enrolment.List(r.Context())
	if err != nil {
		return err
	}
	out := make([]wire.EnrolmentCode, 0, len(codes))
	for _, c := range codes {
		row := wire.EnrolmentCode{
			ID: c.ID, State: c.State(s.now()), Tries: c.Tries, Note: c.Note, Created: c.Created.UnixMilli(), Expires: c.Expires.UnixMilli(),
		}
		if !c.Pairing.IsZero() {
			row.Pairing = c.Pairing.String()
		}
		out = append(out, row)
	}
	return reply(w, http.StatusOK, out)
}

func (s *Server) revokeCode(w http.ResponseWriter, r *http.Request) error {
	if err := empty(w, r); err != nil {
		return err
	}
	codes, err := s.cfg.Enrolment.List(r.Context())
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if !slices.ContainsFunc(codes, func(c pairing.CodeRecord) bool { return c.ID == id }) {
		return notFound()
	}
	if err := s.cfg.Enrolment.Revoke(r.Context(), id, operator(), s.now()); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) listPairings(w http.ResponseWriter, r *http.Request) error {
	rows, err := s.cfg.Registry.Pairings.Pairings(r.Context())
	if err != nil {
		return err
	}
	out := make([]wire.OperatorPairing, 0, len(rows))
	for _, p := range rows {
		row, err := s.operatorPairing(r, p)
		if err != nil {
			return err
		}
		out = append(out, row)
	}
	return reply(w, http.StatusOK, out)
}

func (s *Server) operatorPairing(r *http.Request, p pairing.Pairing) (wire.OperatorPairing, error) {
	since, online, err := s.presence(r.Context(), p.ID)
	if err != nil {
		return wire.OperatorPairing{}, err
	}
	seen, err := s.cfg.Mailbox.Presence(r.Context(), p.ID)
	if err != nil {
		return wire.OperatorPairing{}, err
	}
	surfaces, err := s.cfg.Registry.Surfaces.Surfaces(r.Context(), p.ID)
	if err != nil {
		return wire.OperatorPairing{}, err
	}
	active := 0
	for _, one := range surfaces {
		if one.State(s.now()) == "active" {
			active++
		}
	}
	return wire.OperatorPairing{
		Pairing: p.ID.String(), Host: p.Host, State: p.State.String(), Reason: p.Reason, Sealed: p.Sealed, Executor: p.Executor,
		Online: online, Since: since, Created: p.Created.UnixMilli(), Surfaces: active, Open: seen.Open,
	}, nil
}

// named is the pairing in the path, or not found.
func (s *Server) named(r *http.Request) (pairing.Pairing, error) {
	id, err := proof.ParsePairingID(r.PathValue("pairing"))
	if err != nil {
		return pairing.Pairing{}, notFound()
	}
	return s.cfg.Registry.Pairings.Pairing(r.Context(), id)
}

func (s *Server) showPairing(w http.ResponseWriter, r *http.Request) error {
	p, err := s.named(r)
	if err != nil {
		return err
	}
	out, err := s.operatorPairing(r, p)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, out)
}

func (s *Server) lockPairing(w http.ResponseWriter, r *http.Request) error {
	if err := empty(w, r); err != nil {
		return err
	}
	p, err := s.named(r)
	if err != nil {
		return err
	}
	if err := s.cfg.Registry.Lock(r.Context(), p.ID, "operator", operator(), s.now()); err != nil {
		return err
	}
	s.PairingLocked(p.ID)
	return done(w)
}

// PairingLocked ends the link and the streams of a pairing that was locked, whoever did it.
func (s *Server) PairingLocked(p proof.PairingID) {
	s.cfg.Feed.End(p, proof.SurfaceID{}, EndLocked)
	s.cfg.Desktops.Cut(p, "locked")
}

func (s *Server) unlockPairing(w http.ResponseWriter, r *http.Request) error {
	if err := empty(w, r); err != nil {
		return err
	}
	p, err := s.named(r)
	if err != nil {
		return err
	}
	if err := s.cfg.Registry.Unlock(r.Context(), p.ID, operator(), s.now()); err != nil {
		return err
	}
	s.cfg.Desktops.Unlock(p.ID)
	return done(w)
}

func (s *Server) revokePairing(w http.ResponseWriter, r *http.Request) error {
	if err := empty(w, r); err != nil {
		return err
	}
	p, err := s.named(r)
	if err != nil {
		return err
	}
	if err := s.cfg.Registry.Revoke(r.Context(), p.ID, "operator", operator(), s.now()); err != nil {
		return err
	}
	s.PairingGone(p.ID, "operator")
	return done(w)
}

// PairingGone ends the streams and the link of a pairing that was revoked; the desktop is told first, if it listens.
func (s *Server) PairingGone(p proof.PairingID, by string) {
	s.cfg.Feed.End(p, proof.SurfaceID{}, EndRevoked)
	s.cfg.Waker.Wake(p)
	s.tellGone(p, by)
}

func (s *Server) listSurfaces(w http.ResponseWriter, r *http.Request) error {
	p, err := s.named(r)
	if err != nil {
		return err
	}
	rows, err := s.cfg.Registry.Surfaces.Surfaces(r.Context(), p.ID)
	if err != nil {
		return err
	}
	out := make([]wire.OperatorSurface, 0, len(rows))
	for _, one := range rows {
		out = append(out, wire.OperatorSurface{
			Surface: one.ID.String(), Pairing: p.ID.String(), Label: one.Label, Scopes: one.Scopes.Names(), State: one.State(s.now()),
			Created: one.Created.UnixMilli(), LastUsed: one.Used.UnixMilli(), NotAfter: one.NotAfter.UnixMilli(),
		})
	}
	return reply(w, http.StatusOK, out)
}

func (s *Server) revokeSurface(w http.ResponseWriter, r *http.Request) error {
	if err := empty(w, r); err != nil {
		return err
	}
	p, err := s.named(r)
	if err != nil {
		return err
	}
	id, err := proof.ParseSurfaceID(r.PathValue("surface"))
	if err != nil {
		return notFound()
	}
	if err := s.revoke(r.Context(), p.ID, id, "operator", operator()); err != nil {
		return err
	}
	return done(w)
}

// auditPage answers lines behind a place; with wait it answers as soon as there is one.
func (s *Server) auditPage(w http.ResponseWriter, r *http.Request) error {
	after, err := number(r, "after", 0, maxSeq)
	if err != nil {
		return err
	}
	most, err := number(r, "limit", defaultAuditLines, maxAuditLines)
	if err == nil && most == 0 {
		err = malformed("limit is 1 to 1000.")
	}
	if err != nil {
		return err
	}
	limit, err := waitOf(r)
	if err != nil {
		return err
	}
	waiting, release := s.patience(w, r, limit)
	defer release()
	hint, end := s.cfg.Audit.SubscribeLog()
	defer end()
	for {
		lines, next, err := s.cfg.Audit.Lines(r.Context(), after, int(most))
		if err != nil {
			return err
		}
		if len(lines) > 0 || !wait(waiting, hint) {
			if lines == nil {
				lines = []json.RawMessage{}
			}
			return reply(w, http.StatusOK, wire.AuditPage{Lines: lines, Next: next})
		}
	}
}

// showLimits is the whole table: what internal/limits enforces, and the bounds that stand beside their readers.
func (s *Server) showLimits(w http.ResponseWriter, _ *http.Request) error {
	table := append(s.limits.Table(), []limits.Rule{
		{Name: "body.small", Counts: "byte of a JSON body", Per: "request", Max: wire.MaxSmallBody, Then: "413"},
		{Name: "body.command", Counts: "byte of a posted command", Per: "request", Max: wire.MaxCommandBody, Then: "413"},
		{Name: "envelope", Counts: "byte of a sealed envelope", Per: "command", Max: mailbox.MaxEnvelope, Then: "413"},
		{Name: "commands.open", Counts: "open command", Per: "pairing", Max: mailbox.MaxOpen, Then: "429 with Retry-After"},
		{Name: "commands.open.surface", Counts: "open command", Per: "surface", Max: mailbox.MaxOpenSurface, Then: "429 with Retry-After"},
		{Name: "commands.bytes", Counts: "byte of open commands", Per: "pairing", Max: mailbox.MaxOpenBytes, Then: "429 with Retry-After"},
		{Name: "events.kept", Counts: "event batch", Per: "pairing", Max: mailbox.RetainBatches, Then: "the oldest is deleted"},
		{Name: "stream.pairings", Counts: "pairing", Per: "stream", Max: wire.MaxStreams, Then: "400"},
		{Name: "link.tries", Counts: "wrong typed code", Per: "linking session", Max: proof.MaxCodeTries, Then: "the session burns"},
		{Name: "enrol.tries", Counts: "wrong secret", Per: "enrolment code", Max: pairing.MaxTries, Then: "the code burns"},
		{Name: "signin.nonces", Counts: "used nonce remembered", Per: "broker", Max: maxSpent, Then: "signing in is refused for a minute"},
	}...)
	return reply(w, http.StatusOK, table)
}
