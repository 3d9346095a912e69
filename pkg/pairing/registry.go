package pairing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Registry knows who is enrolled and who is linked. Its fields are set once; it is safe for concurrent use.
type Registry struct {
	Pairings PairingStore
	Surfaces SurfaceStore
	Broker   proof.SigKey // the broker's own key
	Origin   string       // the broker's own origin, as proof.Origin gives it
}

// Lock stops an active pairing until Unlock: nothing is taken or delivered. reason is a stable code.
func (r *Registry) Lock(ctx context.Context, id proof.PairingID, reason string, by Origin, now time.Time) error {
	return r.move(ctx, id, Active, Locked, "pairing.locked", reason, by, now)
}

// Unlock lets a locked pairing go on.
func (r *Registry) Unlock(ctx context.Context, id proof.PairingID, by Origin, now time.Time) error {
	return r.move(ctx, id, Locked, Active, "pairing.unlocked", "", by, now)
}

// Revoke ends a pairing for good, whatever its state; a second time changes nothing and is no error.
func (r *Registry) Revoke(ctx context.Context, id proof.PairingID, reason string, by Origin, now time.Time) error {
	for range retries {
		p, err := r.Pairings.Pairing(ctx, id)
		if err != nil || p.State == Ended {
			return err
		}
		err = r.move(ctx, id, p.State, Ended, "pairing.revoked", reason, by, now)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return ErrConflict
}

func (r *Registry) move(ctx context.Context, id proof.PairingID, from, to State, kind, reason string, by Origin, now time.Time) error {
	line := by.line(kind, now, id, target("pairing", id.String()))
	line.Reason = reason
	return r.Pairings.MovePairing(ctx, id, from, to, reason, now, line)
}

// Bundle takes a newer Dkem bundle of a desktop. The stored one again is no error; an older number is ErrConflict.
func (r *Registry) Bundle(ctx context.Context, p Pairing, signed []byte, now time.Time) error {
	b, err := proof.OpenBundle(p.Dsig, signed)
	if err != nil || b.Fresh(0, now) != nil {
		return malformed("the key bundle is not valid now")
	}
	if b.Number == p.BundleNo && string(signed) == string(p.Bundle) {
		return nil
	}
	by := desktopOf(p)
	return r.Pairings.PutBundle(ctx, p.ID, b.Number, signed, by.line("bundle.published", now, p.ID, target("pairing", p.ID.String())))
}

// Renew takes a grant of higher serial for a surface that is linked already. A surface that the broker does not know
// comes in by linking only.
func (r *Registry) Renew(ctx context.Context, p Pairing, signed []byte, now time.Time) (Surface, error) {
	g, err := proof.OpenGrant(p.Dsig, signed)
	if err != nil {
		return Surface{}, malformed("the grant does not verify")
	}
	old, err := r.Surfaces.Surface(ctx, p.ID, g.Surface)
	if err != nil {
		return Surface{}, err
	}
	s := SurfaceFrom(g, signed, old.Label, now)
	s.Created, s.Used = old.Created, old.Used
	line := desktopOf(p).line("surface.renewed", now, p.ID, target("surface", g.Surface.String()))
	if err := r.Surfaces.PutSurface(ctx, s, line); err != nil {
		return Surface{}, err
	}
	return s, nil
}

// RevokeSurface ends a surface for good; a second time changes nothing and is no error.
func (r *Registry) RevokeSurface(ctx context.Context, p proof.PairingID, id proof.SurfaceID, reason string, by Origin, now time.Time) error {
	line := by.line("surface.revoked", now, p, target("surface", id.String()))
	line.Reason = reason
	err := r.Surfaces.RevokeSurface(ctx, p, id, reason, now, line)
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// SignIn checks a surface's signature over a nonce that the caller has found live and unused, and returns the
// surface. Unknown ids, revoked and ended surfaces, ended pairings and wrong signatures give ErrUnauthorized after
// the same work; a locked pairing ErrForbidden, and times more than proof.MaxSkew apart a clock_skew.
func (r *Registry) SignIn(ctx context.Context, a proof.SurfaceAuth, sig []byte, by Origin, now time.Time) (Surface, error) {
	a.Origin, a.Broker = r.Origin, r.Broker
	p, errP := r.Pairings.Pairing(ctx, a.Pairing)
	s, errS := r.Surfaces.Surface(ctx, a.Pairing, a.Surface)
	for _, err := range []error{errP, errS} {
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Surface{}, fmt.Errorf("reading a surface: %w", err)
		}
	}
	signed := a.Verify(s.Ssig, sig) == nil // of a surface that is not there: the same work against a key that verifies nothing here
	known := errP == nil && errS == nil && s.State(now) == "active" && p.State != Ended
	by = Origin{Kind: "surface", ID: a.Surface.String(), Label: s.Label, IP: by.IP, UA: by.UA}
	if !known || !signed {
		by.Kind = "network"
		line := refused(by.line("surface.refused", now, a.Pairing, target("surface", a.Surface.String())), reasonOf(s, signed, now))
		if err := r.Surfaces.NoteSurface(ctx, line); err != nil {
			return Surface{}, fmt.Errorf("refusing a surface: %w", err)
		}
		return Surface{}, ErrUnauthorized
	}
	if off := now.Sub(time.UnixMilli(a.Time)); off.Abs() > proof.MaxSkew {
		return Surface{}, skew(now, a.Time)
	}
	if p.State != Active {
		return Surface{}, ErrForbidden
	}
	by.Key = s.Ssig.String()
	line := by.line("surface.signed_in", now, a.Pairing, target("surface", a.Surface.String()))
	if err := r.Surfaces.TouchSurface(ctx, a.Pairing, a.Surface, now, line); err != nil {
		if errors.Is(err, ErrConflict) {
			return Surface{}, ErrUnauthorized
		}
		return Surface{}, fmt.Errorf("signing a surface in: %w", err)
	}
	return s, nil
}

func reasonOf(s Surface, signed bool, now time.Time) string {
	switch {
	case s.ID.IsZero():
		return "unknown"
	case s.State(now) != "active":
		return s.State(now)
	case !signed:
		return "signature"
	}
	return "pairing"
}

func skew(now time.Time, theirs int64) error {
	const layout = "2006-01-02 15:04:05 UTC"
	return &Error{wire.CodeClockSkew, fmt.Sprintf("the clocks are too far apart: broker %s, surface %s",
		now.UTC().Format(layout), time.UnixMilli(theirs).UTC().Format(layout))}
}

func desktopOf(p Pairing) Origin {
	return Origin{Kind: "desktop", ID: p.ID.String(), Label: p.Host, Key: p.Dsig.String()}
}
