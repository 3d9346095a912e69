package pairing

import (
	"context"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// What holds for every method of the four stores:
//   - a method that takes lines commits the change and all lines in one transaction, durably, before it returns nil;
//     on any error nothing of either is stored;
//   - the lines carry label, ip and ua in clear; the store writes salted commitments in their place and keeps the
//     values aside. It gives Seq, ID and Code;
//   - ErrNotFound: no such row. ErrConflict: the row is not as the method demands; read again and decide anew;
//   - now is the only time: a store never asks a clock;
//   - all methods are safe for concurrent use; reads see every committed change.

// CodeStore keeps enrolment codes.
type CodeStore interface {
	// IssueCode inserts c. ErrConflict when a code with this selector is kept already.
	IssueCode(ctx context.Context, c CodeRecord, line wire.AuditLine) error
	// CodeBySelector returns the newest code with this selector, in any state, or ErrNotFound.
	CodeBySelector(ctx context.Context, selector string) (CodeRecord, error)
	// Codes returns all codes, newest first.
	Codes(ctx context.Context) ([]CodeRecord, error)
	// RevokeCode sets Revoked of a code that is open at now; ErrConflict when it is in another state.
	RevokeCode(ctx context.Context, id string, now time.Time, line wire.AuditLine) error
	// RefuseCode counts one wrong try of the code id if it is open at now, and burns it with the MaxTries-th; burned
	// is written too in that case. refused is written always, also when id is empty or unknown: every refusal is the
	// same work, so that time tells nothing.
	RefuseCode(ctx context.Context, id string, now time.Time, refused, burned wire.AuditLine) error
	// RedeemCode sets Used, Pairing and Request of the code id, which must be open at now, and inserts p, whose id
	// must be new: ErrConflict otherwise.
	RedeemCode(ctx context.Context, id string, request proof.Digest, p Pairing, now time.Time, lines ...wire.AuditLine) error
}

// PairingStore keeps pairings.
type PairingStore interface {
	// Pairing returns one, or ErrNotFound.
	Pairing(ctx context.Context, id proof.PairingID) (Pairing, error)
	// Pairings returns all, newest first.
	Pairings(ctx context.Context) ([]Pairing, error)
	// MovePairing sets state and reason of a pairing that is in from; ErrConflict when it is not.
	MovePairing(ctx context.Context, id proof.PairingID, from, to State, reason string, now time.Time, line wire.AuditLine) error
	// PutBundle stores a newer signed Dkem bundle; ErrConflict when number is not above the stored one.
	PutBundle(ctx context.Context, id proof.PairingID, number uint64, signed []byte, line wire.AuditLine) error
	// SeePairing stores what a hello stated, and Seen. No line: the tunnel's own says it.
	SeePairing(ctx context.Context, id proof.PairingID, executor string, kinds []string, now time.Time) error
}

// SurfaceStore keeps surfaces. A revoked surface stays for ever, so that its id is never accepted again.
type SurfaceStore interface {
	// Surface returns one in any state, or ErrNotFound.
	Surface(ctx context.Context, pairing proof.PairingID, id proof.SurfaceID) (Surface, error)
	// Surfaces returns all of a pairing in any state, newest first.
	Surfaces(ctx context.Context, pairing proof.PairingID) ([]Surface, error)
	// PutSurface renews a known, unrevoked surface under a higher serial: Serial, Scopes, Grant, NotAfter and Label
	// are replaced. ErrConflict for a serial that is not higher or a revoked one, ErrNotFound for an unknown one:
	// a new surface comes in by LinkStore.MoveLink only.
	PutSurface(ctx context.Context, s Surface, line wire.AuditLine) error
	// RevokeSurface sets Revoked and Reason; ErrConflict when it was revoked before.
	RevokeSurface(ctx context.Context, pairing proof.PairingID, id proof.SurfaceID, reason string, now time.Time, line wire.AuditLine) error
	// TouchSurface sets Used of an unrevoked surface; ErrConflict when it was revoked.
	TouchSurface(ctx context.Context, pairing proof.PairingID, id proof.SurfaceID, now time.Time, line wire.AuditLine) error
	// NoteSurface writes a line alone: a surface's proof was refused, and nothing changed.
	NoteSurface(ctx context.Context, line wire.AuditLine) error
}

// LinkStore keeps linking sessions.
type LinkStore interface {
	// OpenLink inserts l. ErrConflict when its pid was ever used, its pairing has a session that is not final, or a
	// session that is not final has its nameplate.
	OpenLink(ctx context.Context, l Link, line wire.AuditLine) error
	// Link returns the session of a pid, or ErrNotFound.
	Link(ctx context.Context, pid proof.LinkID) (Link, error)
	// LinkByNameplate returns the session that is not final with this nameplate, or ErrNotFound.
	LinkByNameplate(ctx context.Context, nameplate string) (Link, error)
	// LinkBySession returns the session with this Session digest, or ErrNotFound.
	LinkBySession(ctx context.Context, session proof.Digest) (Link, error)
	// OpenLinks returns every session that is not final, whatever its Expires.
	OpenLinks(ctx context.Context) ([]Link, error)
	// MoveLink replaces the session l.Pid, which must be in state from with tries wrong claims, by l; ErrConflict when
	// it is not. In the same transaction put (nil: none) is inserted as a new surface, ErrConflict when its id was
	// ever known, and revoke (zero: none) is revoked with l.Reason.
	MoveLink(ctx context.Context, from proof.LinkState, tries int, l Link, put *Surface, revoke proof.SurfaceID, now time.Time, lines ...wire.AuditLine) error
	// RefuseClaim counts one wrong claim of the session pid if it is in state open at now and has had fewer than
	// proof.MaxCodeTries; with the last one it becomes burned and the line burned is written too. refused is written
	// always, also when pid is zero or unknown. It reports whether the session burned.
	RefuseClaim(ctx context.Context, pid proof.LinkID, now time.Time, refused, burned wire.AuditLine) (bool, error)
}
