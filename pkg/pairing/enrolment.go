package pairing

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// maxNote bounds an operator's note on a code.
const maxNote = 120

// retries is how often a service reads again after another change got in between.
const retries = 5

// Enrolment issues and redeems enrolment codes (section 2). Its fields are set once; it is safe for concurrent use.
type Enrolment struct {
	Codes    CodeStore
	Pairings PairingStore
	Pepper   Pepper
	Broker   proof.SigKey // the broker's own key, which each code names
}

// Issue makes a code that lives for ttl (zero: CodeLife; at most MaxCodeLife). The code itself is returned here and
// never again.
func (e *Enrolment) Issue(ctx context.Context, ttl time.Duration, note string, by Origin, now time.Time) (Code, CodeRecord, error) {
	if ttl == 0 {
		ttl = CodeLife
	}
	if ttl < 0 || ttl > MaxCodeLife {
		return Code{}, CodeRecord{}, malformed("a code lives at most 24 hours")
	}
	if len(note) > maxNote {
		return Code{}, CodeRecord{}, malformed("a note has at most 120 bytes")
	}
	for range retries {
		code := NewCode(e.Broker)
		rec := CodeRecord{
			ID: "code_" + rand.Text(), Selector: string(code.selector), MAC: e.Pepper.enrolMAC(code.Letters()),
			Note: note, Created: now, Expires: now.Add(ttl),
		}
		err := e.Codes.IssueCode(ctx, rec, by.line("code.issued", now, proof.PairingID{}, target("code", rec.ID)))
		if errors.Is(err, ErrConflict) {
			continue // the selector is taken: draw another one
		}
		if err != nil {
			return Code{}, CodeRecord{}, fmt.Errorf("issuing a code: %w", err)
		}
		return code, rec, nil
	}
	return Code{}, CodeRecord{}, ErrLimited
}

// List returns all codes, newest first.
func (e *Enrolment) List(ctx context.Context) ([]CodeRecord, error) { return e.Codes.Codes(ctx) }

// Revoke ends an open code.
func (e *Enrolment) Revoke(ctx context.Context, id string, by Origin, now time.Time) error {
	return e.Codes.RevokeCode(ctx, id, now, by.line("code.revoked", now, proof.PairingID{}, target("code", id)))
}

// Redeem enrols the desktop that signed r. The same request again within the code's life gets the same pairing: its
// reply may have been lost. Unknown, wrong, used, expired, burned and revoked codes all give ErrBadCode, after the
// same work; a request that is not well signed gives ErrMalformed and touches no code.
func (e *Enrolment) Redeem(ctx context.Context, r proof.Redeem, sig []byte, by Origin, now time.Time) (Pairing, error) {
	if err := e.checkRedeem(r, sig, now); err != nil {
		return Pairing{}, err
	}
	p := pairingFrom(r, now)
	for range retries {
		done, err := e.tryRedeem(ctx, r, p, by, now)
		if err == errEnrolled || !errors.Is(err, ErrConflict) { //nolint:errorlint // the very one: Is compares codes
			return done, err
		}
	}
	return Pairing{}, ErrConflict
}

var errEnrolled = &Error{wire.CodeConflict, "this desktop is enrolled here already"}

func (e *Enrolment) checkRedeem(r proof.Redeem, sig []byte, now time.Time) error {
	if r.Code.Check(codeLetters) != nil {
		return malformed("an enrolment code has 12 letters")
	}
	if r.Broker != e.Broker {
		return malformed("the request is made for another broker")
	}
	if err := r.Verify(sig); err != nil {
		return malformed("the request's proof or form does not hold")
	}
	bundle, err := proof.OpenBundle(r.Dsig, r.Bundle)
	if err != nil || bundle.Fresh(0, now) != nil {
		return malformed("the key bundle is not valid now; check the clocks of both machines")
	}
	return nil
}

func pairingFrom(r proof.Redeem, now time.Time) Pairing {
	bundle, _ := proof.OpenBundle(r.Dsig, r.Bundle) // checkRedeem opened it
	return Pairing{
		ID: proof.PairingOf(r.Dsig), Dsig: r.Dsig, Host: r.Host, State: Active, Sealed: true, Executor: r.Executor,
		Versions: r.Versions, Bundle: r.Bundle, BundleNo: bundle.Number, Created: now, Seen: now,
	}
}

// tryRedeem is one attempt; ErrConflict asks for another one.
func (e *Enrolment) tryRedeem(ctx context.Context, r proof.Redeem, p Pairing, by Origin, now time.Time) (Pairing, error) {
	rec, err := e.Codes.CodeBySelector(ctx, string(r.Code[:selectorLetters]))
	known := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Pairing{}, fmt.Errorf("reading a code: %w", err)
	}
	right := rec.MAC.Equal(e.Pepper.enrolMAC(r.Code)) && known // the same work for a code that is not there
	if right && !rec.Used.IsZero() && now.Before(rec.Expires) && rec.Request.Equal(r.Digest()) {
		return e.Pairings.Pairing(ctx, rec.Pairing)
	}
	if !right || rec.State(now) != "open" {
		return Pairing{}, e.refuse(ctx, rec, right, by, now)
	}
	if _, err := e.Pairings.Pairing(ctx, p.ID); err == nil {
		return Pairing{}, errEnrolled // the code stays open: it enrolled nobody
	}
	desktop := Origin{Kind: "desktop", ID: p.ID.String(), Label: p.Host, Key: p.Dsig.String(), IP: by.IP, UA: by.UA}
	err = e.Codes.RedeemCode(ctx, rec.ID, r.Digest(), p, now,
		desktop.line("code.redeemed", now, p.ID, target("code", rec.ID)),
		desktop.line("pairing.enrolled", now, p.ID, target("pairing", p.ID.String())))
	if err != nil {
		return Pairing{}, fmt.Errorf("redeeming a code: %w", err)
	}
	return p, nil
}

// refuse counts the wrong try and answers what every refusal answers.
func (e *Enrolment) refuse(ctx context.Context, rec CodeRecord, right bool, by Origin, now time.Time) error {
	reason := "unknown"
	switch {
	case right:
		reason = rec.State(now)
	case rec.ID != "":
		reason = "wrong"
	}
	line := refused(by.line("code.refused", now, proof.PairingID{}, target("code", rec.ID)), reason)
	burned := refused(by.line("code.burned", now, proof.PairingID{}, target("code", rec.ID)), "tries")
	if err := e.Codes.RefuseCode(ctx, rec.ID, now, line, burned); err != nil {
		return fmt.Errorf("refusing a code: %w", err)
	}
	return ErrBadCode
}
