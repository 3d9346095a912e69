package mailbox

import (
	"context"
	"fmt"
	"time"
)

// Enqueue stores a command as queued. A draft whose envelope is known already returns the command that it made, and
// created is false. Otherwise the draft must be the next of its surface's chain (Order, with what would be taken),
// alive at now (TooLate), and within the limits (Limited, TooLarge).
func (s *Service) Enqueue(ctx context.Context, d Draft, by By, now time.Time) (c Command, created bool, err error) {
	if err := d.check(); err != nil {
		return Command{}, false, err
	}
	err = s.update(ctx, d.Pairing, func(tx Tx) (err error) {
		c, created, err = enqueue(tx, d, by, now)
		return err
	})
	return c, created, err
}

func (d Draft) check() error {
	switch {
	case len(d.Envelope) > MaxEnvelope:
		return fail(TooLarge, "the command has %d bytes, at most %d", len(d.Envelope), MaxEnvelope)
	case len(d.Header) > MaxHeaderBytes || len(d.Signature) > MaxHeaderBytes:
		return fail(TooLarge, "the command's header is too large")
	case !d.Kind.Valid() || len(d.Envelope) == 0 || d.Digest.IsZero() || d.Pairing.IsZero() || d.Surface.IsZero():
		return fail(Conflict, "the command is incomplete")
	}
	return nil
}

func enqueue(tx Tx, d Draft, by By, now time.Time) (Command, bool, error) {
	p, err := tx.Pairing(d.Pairing)
	if err != nil {
		return Command{}, false, err
	}
	chain, err := tx.Chain(d.Pairing, d.Surface)
	if err != nil {
		return Command{}, false, err
	}
	if p.Closed || chain.Closed {
		return Command{}, false, fail(Closed, "the pairing or the surface was revoked")
	}
	if !d.follows(chain) { // what follows the chain cannot be in it already
		if known, err := tx.ByDigest(d.Pairing, d.Digest); CodeOf(err) != NotFound {
			return known, false, err
		}
	}
	if err := admit(d, p, chain, now); err != nil {
		return Command{}, false, err
	}
	c := Command{
		ID: newCommandID(), Pairing: d.Pairing, Sequence: p.Sequence + 1,
		Surface: d.Surface, Kind: d.Kind, Seq: d.Seq, Prev: d.Prev, Digest: d.Digest, Commit: d.Commit,
		IssuedAt: d.IssuedAt, Expires: d.Expires, Size: len(d.Envelope),
		State: Queued, Created: now, Updated: now,
		Envelope: d.Envelope, Header: d.Header, BodyHash: d.BodyHash, Signature: d.Signature,
	}
	err = tx.Insert(c, queuedLine(c, by, now))
	c.Envelope, c.Header, c.Signature = nil, nil, nil
	return c, err == nil, err
}

// follows says whether the draft is the next of its surface.
func (d Draft) follows(chain Chain) bool { return d.Seq == chain.Seq+1 && d.Prev.Equal(chain.Last) }

// admit decides whether a new draft may be taken.
func admit(d Draft, p Pairing, chain Chain, now time.Time) error {
	switch {
	case p.Restored:
		return &Error{Code: Restored, Message: "the broker waits for the desktop's report", RetryAfter: retryRestored}
	case !d.follows(chain):
		return &Error{Code: Order, Message: "not the next command of this surface", Seq: chain.Seq + 1, Prev: chain.Last}
	case !d.Expires.After(now):
		return fail(TooLate, "the command's time is over")
	case p.Open >= MaxOpen:
		return limited("the desktop has %d commands that wait, at most %d", p.Open, MaxOpen)
	case p.OpenBytes+int64(len(d.Envelope)) > MaxOpenBytes:
		return limited("the commands that wait for the desktop would have more than %d MiB", MaxOpenBytes>>20)
	case chain.Open >= MaxOpenSurface:
		return limited("the surface has %d commands that wait, at most %d", chain.Open, MaxOpenSurface)
	}
	return nil
}

func limited(format string, args ...any) error {
	return &Error{Code: Limited, Message: fmt.Sprintf(format, args...), RetryAfter: retryOpen}
}
