package proof

import "time"

// MaxSkew is how far a clock may be off: iat ahead of the desktop, and the desktop from the broker.
const MaxSkew = 5 * time.Minute

// Verdict is what a desktop says of an envelope whose signature and surface verified. It is journalled and final.
// The broker's checks give the same words.
type Verdict byte

// Verdicts. OK is the only one that lets a command go on.
const (
	OK              Verdict = iota
	Repeat                  // the last envelope again, byte for byte
	Stale                   // a seq that was used before, by another envelope: replay or fork
	Gap                     // seq after a missing one which the broker did not explain
	WrongPrev               // the next seq, but not after the envelope that was last
	BadSignature            // not by this surface
	UnknownSurface          // no grant, or of another pairing
	Revoked                 // the surface was revoked
	GrantEnded              // the grant's end has come
	OutOfScope              // the grant does not cover the kind
	Expired                 // past exp
	FromFuture              // iat more than MaxSkew ahead
	LifeTooLong             // exp - iat above the kind's limit
	ClockSkew               // the desktop's clock is not to be trusted
	UnknownBundle           // sealed to a key which is erased, or never was
	Unopenable              // does not open
	WrongCommitment         // opens, but is not what the header commits to
	Malformed               // the payload is not of its kind
)

var verdicts = [...]string{
	OK: "ok", Repeat: "repeat", Stale: "stale", Gap: "gap", WrongPrev: "wrong_prev", BadSignature: "bad_signature",
	UnknownSurface: "unknown_surface", Revoked: "revoked", GrantEnded: "grant_ended", OutOfScope: "out_of_scope",
	Expired: "expired", FromFuture: "from_future", LifeTooLong: "life_too_long", ClockSkew: "clock_skew",
	UnknownBundle: "unknown_bundle", Unopenable: "unopenable", WrongCommitment: "wrong_commitment", Malformed: "malformed",
}

// String returns the stable code, for example "out_of_scope".
func (v Verdict) String() string {
	if int(v) >= len(verdicts) {
		return "unknown_verdict"
	}
	return verdicts[v]
}

// OutOfOrder reports whether the chain refused: the answer then carries the last seq and hash, from which a surface
// that lost its state goes on.
func (v Verdict) OutOfOrder() bool { return v == Stale || v == Gap || v == WrongPrev }

// Judge holds a header against the grant of its surface, at now by the desktop's clock: ids, the grant's end, scope,
// times. Of revoke_surface it cannot know whose; so it lets every surface pass, and whoever reads the payload asks
// Scopes.Allow again. Signature and order are not its business (Envelope.Verify, Chain.Check).
func (g Grant) Judge(h Header, now time.Time) Verdict {
	ms := now.UnixMilli()
	switch {
	case h.Pairing != g.Pairing || h.Surface != g.Surface:
		return UnknownSurface
	case ms >= g.NotAfter:
		return GrantEnded
	case !g.Scopes.Allow(h.Kind, true):
		return OutOfScope
	case h.Exp-h.Iat > h.Kind.Life().Milliseconds():
		return LifeTooLong
	case h.Iat > ms+MaxSkew.Milliseconds():
		return FromFuture
	case ms > h.Exp:
		return Expired
	}
	return OK
}

// JudgeClock says whether the desktop may act on a command of kind k by its clock: not while now is behind last (the
// journal's newest time) or more than MaxSkew off the broker's clock. Abort always may. A zero broker time means that
// no broker spoke yet, and does not count.
func JudgeClock(k Kind, now, last, broker time.Time) Verdict {
	if k == Abort {
		return OK
	}
	if now.Before(last) || (!broker.IsZero() && now.Sub(broker).Abs() > MaxSkew) {
		return ClockSkew
	}
	return OK
}

// Chain is where one surface's row of envelopes stands: at the surface, at the broker and at the desktop. The zero
// value is the beginning.
type Chain struct {
	Seq  uint64 // last one
	Hash Digest // its hash
}

// Next returns seq and prev of the envelope to come.
func (c Chain) Next() (seq uint64, prev Digest) { return c.Seq + 1, c.Hash }

// Check says whether an envelope or stub with this header and hash comes next: OK, Repeat, Stale, Gap or WrongPrev.
func (c Chain) Check(h Header, hash Digest) Verdict {
	switch {
	case h.Seq == c.Seq && hash == c.Hash:
		return Repeat
	case h.Seq <= c.Seq:
		return Stale
	case h.Seq > c.Seq+1:
		return Gap
	case h.Prev != c.Hash:
		return WrongPrev
	}
	return OK
}

// Advance returns the chain after an envelope for which Check said OK, whatever else was found wrong with it: each
// verdict is final and the row goes on.
func (c Chain) Advance(h Header, hash Digest) Chain { return Chain{Seq: h.Seq, Hash: hash} }

// Adopt returns the chain just before h. It is for the first signed envelope after a restored journal or store, when
// the own place is known to be too low (section 6); it never goes back.
func (c Chain) Adopt(h Header) Chain {
	if h.Seq <= c.Seq+1 {
		return c
	}
	return Chain{Seq: h.Seq - 1, Hash: h.Prev}
}
