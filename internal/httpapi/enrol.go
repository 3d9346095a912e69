package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

const forTunnel = "tunnel"

func (s *Server) info(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, http.StatusOK, wire.BrokerInfo{
		Key: s.key[:], ProtocolMin: wire.ProtocolMin, ProtocolMax: wire.ProtocolMax,
		PageOrigin: s.cfg.PageOrigin, Time: s.now().UnixMilli(), Version: s.cfg.Version,
	})
}

func (s *Server) enrol(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.EnrolRequest](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	redeem, err := redeemOf(in)
	if err != nil {
		return err
	}
	if err := s.allow(limits.Enrol, r); err != nil {
		return err
	}
	redeem.Broker = s.key
	p, err := s.cfg.Enrolment.Redeem(r.Context(), redeem, in.Proof, s.stranger(r), s.now())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, wire.EnrolReply{
		Pairing: p.ID.String(), BrokerKey: s.key[:], PageOrigin: s.cfg.PageOrigin, Limits: bounds(),
	})
}

// redeemOf holds the form of an enrolment; what it says is the rules' to judge.
func redeemOf(in wire.EnrolRequest) (proof.Redeem, error) {
	out := proof.Redeem{Code: proof.Letters(in.Code), Bundle: in.Bundle, Host: in.Host, Executor: in.Executor}
	if len(in.Dsig) != len(out.Dsig) || len(in.Versions) > proof.MaxVersions {
		return out, malformed("The request has no key of 32 bytes, or too many versions.")
	}
	copy(out.Dsig[:], in.Dsig)
	for _, v := range in.Versions {
		if v < 1 || v > 255 {
			return out, malformed("A version is a number from 1 to 255.")
		}
		out.Versions = append(out.Versions, byte(v))
	}
	return out, nil
}

func bounds() wire.Limits {
	return wire.Limits{
		OpenCommands: mailbox.MaxOpen, PerSurface: mailbox.MaxOpenSurface, EnvelopeBytes: mailbox.MaxEnvelope,
		BatchBytes: mailbox.MaxBatch, EventBatches: mailbox.RetainBatches, RetentionHours: int(mailbox.RetainEvents / time.Hour),
	}
}

func (s *Server) tunnelNonce(w http.ResponseWriter, r *http.Request) error {
	in, err := read[wire.TunnelNonceRequest](w, r, wire.MaxSmallBody)
	if err != nil {
		return err
	}
	if err := s.allow(limits.Dial, r); err != nil {
		return err
	}
	id, err := proof.ParsePairingID(in.Pairing)
	if err != nil {
		return malformed("The pairing is not an id.")
	}
	return s.nonce(w, forTunnel, id.String())
}

func (s *Server) nonce(w http.ResponseWriter, purpose, subject string) error {
	now := s.now()
	return reply(w, http.StatusOK, wire.Nonce{
		Nonce: s.nonces.issue(purpose, subject, now), BrokerKey: s.key[:], Time: now.UnixMilli(),
	})
}

// refuseDial is the one answer to an unknown pairing, a bad nonce and a bad signature.
var refuseDial = &tunnel.HTTPError{Status: http.StatusUnauthorized, Body: "unauthorized"}

// AuthenticateTunnel says whose upgrade this is: the pairing's Ed25519 signature over a nonce of this broker and the
// host that was dialled. It is the tunnel server's Authenticate. A locked or revoked pairing is told so only after its
// signature was right.
func (s *Server) AuthenticateTunnel(r *http.Request) (tunnel.Peer, error) {
	if wait, ok := s.limits.Allow(limits.Dial, limits.Networks(s.source(r))...); !ok {
		return tunnel.Peer{}, &tunnel.HTTPError{Status: http.StatusTooManyRequests, RetryAfter: wait, Body: "too many requests"}
	}
	if wait, ok := s.limits.Allow(limits.DialBroker, ""); !ok {
		return tunnel.Peer{}, &tunnel.HTTPError{Status: http.StatusTooManyRequests, RetryAfter: wait, Body: "too many desktops at once"}
	}
	id, err := proof.ParsePairingID(r.Header.Get(wire.HeaderTunnelPairing))
	nonce, errN := wire.ParseBytes(r.Header.Get(wire.HeaderTunnelNonce))
	sig, errS := wire.ParseBytes(r.Header.Get(wire.HeaderTunnelSignature))
	_, errT := strconv.ParseInt(r.Header.Get(wire.HeaderTunnelTime), 10, 64) // judged by the signed hello
	if errors.Join(err, errN, errS, errT) != nil {
		return tunnel.Peer{}, refuseDial
	}
	p, err := s.cfg.Registry.Pairings.Pairing(r.Context(), id)
	if err != nil && !errors.Is(err, pairing.ErrNotFound) {
		return tunnel.Peer{}, err
	}
	now := s.now()
	fresh := s.nonces.valid(forTunnel, id.String(), nonce, now)
	// For a pairing that is not there this is the same work against a key that verifies nothing.
	signed := proof.VerifyTunnel(p.Dsig, s.key, nonce, s.host(r), sig) == nil
	switch {
	case p.ID.IsZero():
		return tunnel.Peer{}, s.dialRefused(r, id, "unknown", refuseDial)
	case !signed:
		return tunnel.Peer{}, s.dialRefused(r, id, "signature", refuseDial)
	case !fresh || !s.nonces.spend(nonce, now):
		return tunnel.Peer{}, s.dialRefused(r, id, "nonce", refuseDial)
	case p.State != pairing.Active:
		return tunnel.Peer{}, s.dialRefused(r, id, p.State.String(), stayOut(p))
	}
	return tunnel.Peer{ID: p.ID.String()}, nil
}

// dialRefused writes who was refused and why, for known and unknown pairings alike, and returns the answer.
func (s *Server) dialRefused(r *http.Request, id proof.PairingID, reason string, answer *tunnel.HTTPError) error {
	line := audit.Build(audit.Record{
		Type: audit.TunnelRefused, Time: s.now(), Outcome: audit.Refused, Reason: reason, Pairing: id.String(),
		Actor: audit.Actor{Kind: audit.Network}, Target: wire.AuditTarget{Kind: audit.Pairing, ID: id.String()},
		Source: audit.Source{IP: s.address(r), UA: userAgent(r)},
	})
	if err := s.cfg.Mailbox.Note(r.Context(), line); err != nil {
		return err
	}
	return answer
}

// stayOut answers a pairing that is proven and yet must stay out.
func stayOut(p pairing.Pairing) *tunnel.HTTPError {
	if p.State == pairing.Locked {
		if p.Reason == tunnel.ReasonConflict { // by this word an agent knows that only a person can end it
			return &tunnel.HTTPError{Status: http.StatusForbidden, Body: tunnel.ReasonConflict}
		}
		return &tunnel.HTTPError{Status: http.StatusForbidden, Body: "locked"}
	}
	return &tunnel.HTTPError{Status: http.StatusForbidden, Body: "revoked"}
}

// stranger is someone whose identity is not proven.
func (s *Server) stranger(r *http.Request) pairing.Origin {
	return pairing.Origin{Kind: "network", IP: s.address(r), UA: userAgent(r)}
}

func (s *Server) address(r *http.Request) string {
	if a := s.source(r); a.IsValid() {
		return a.String()
	}
	return "unknown"
}

// maxAgent is how much of a user agent is kept, in bytes.
const maxAgent = 200

func userAgent(r *http.Request) string {
	ua := r.UserAgent()
	return ua[:min(len(ua), maxAgent)]
}
