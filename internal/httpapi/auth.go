package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

const forAuth = "auth"

func (s *Server) authNonce(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.AuthNonceRequest](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	if err := s.allow(limits.Sign, r); err != nil {
		return err
	}
	p, id, err := surfaceIDs(in.Pairing, in.Surface)
	if err != nil {
		return err
	}
	return s.nonce(w, forAuth, p.String()+id.String())
}

func surfaceIDs(p, id string) (proof.PairingID, proof.SurfaceID, error) {
	pid, err := proof.ParsePairingID(p)
	sid, err2 := proof.ParseSurfaceID(id)
	if errors.Join(err, err2) != nil {
		return pid, sid, malformed("The pairing or the surface is not an id.")
	}
	return pid, sid, nil
}

func (s *Server) authToken(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.AuthTokenRequest](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	if err := s.allow(limits.Sign, r); err != nil {
		return err
	}
	p, id, err := surfaceIDs(in.Pairing, in.Surface)
	if err != nil {
		return err
	}
	now := s.now()
	if !s.nonces.valid(forAuth, p.String()+id.String(), in.Nonce, now) {
		return unauthorized()
	}
	auth := proof.SurfaceAuth{Pairing: p, Surface: id, Nonce: in.Nonce, Time: in.Time}
	surface, err := s.cfg.Registry.SignIn(r.Context(), auth, in.Signature, s.stranger(r), now)
	if err != nil {
		return err
	}
	if !s.nonces.spend(in.Nonce, now) {
		return unauthorized()
	}
	expires := min(now.Add(proof.TokenLife).UnixMilli(), surface.NotAfter.UnixMilli())
	token := proof.Token{Pairing: p, Surface: id, Expires: expires}
	return reply(w, http.StatusOK, wire.AuthToken{Token: token.Sign(s.cfg.Key), Expires: expires})
}

// caller is a surface that showed a token, as the store knows it at this moment.
type caller struct {
	pairing pairing.Pairing
	surface pairing.Surface
	token   proof.Token
}

// by is the caller in an audit line.
func (c caller) by(s *Server, r *http.Request) mailbox.By {
	return mailbox.By{
		Actor:  audit.Actor{Kind: audit.Surface, ID: c.surface.ID.String(), Label: c.surface.Label, Key: c.surface.Ssig.String()},
		Source: audit.Source{IP: s.address(r), UA: userAgent(r)},
	}
}

func (c caller) origin(s *Server, r *http.Request) pairing.Origin {
	return pairing.Origin{
		Kind: audit.Surface, ID: c.surface.ID.String(), Label: c.surface.Label, Key: c.surface.Ssig.String(),
		IP: s.address(r), UA: userAgent(r),
	}
}

// caller authenticates a call for the pairing in its path and counts it under a rule of its surface.
func (s *Server) caller(r *http.Request, rule limits.Name) (caller, error) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return caller{}, unauthorized()
	}
	c, err := s.bearer(r.Context(), r.PathValue("pairing"), text)
	if err != nil {
		return caller{}, err
	}
	return c, s.allowKeys(rule, c.surface.ID.String())
}

// bearer looks a token up: its signature and end, and whether the surface and its pairing still stand. A token of
// another pairing, an unknown id and a revoked surface get the same answer.
func (s *Server) bearer(ctx context.Context, id, text string) (caller, error) {
	token, err := proof.OpenToken(s.key, text, s.now())
	if err != nil || token.Pairing.String() != id {
		return caller{}, unauthorized()
	}
	c := caller{token: token}
	if c.pairing, err = s.cfg.Registry.Pairings.Pairing(ctx, token.Pairing); err != nil {
		return caller{}, absent(err)
	}
	if c.surface, err = s.cfg.Registry.Surfaces.Surface(ctx, token.Pairing, token.Surface); err != nil {
		return caller{}, absent(err)
	}
	if c.surface.State(s.now()) != "active" || c.pairing.State == pairing.Ended {
		return caller{}, unauthorized()
	}
	if c.pairing.State != pairing.Active {
		return caller{}, refuse(http.StatusForbidden, wire.CodeForbidden, "This desktop is locked.",
			"its owner or the operator can say why, and unlock it")
	}
	return c, nil
}

// absent hides that an id is not there.
func absent(err error) error {
	if errors.Is(err, pairing.ErrNotFound) {
		return unauthorized()
	}
	return err
}
