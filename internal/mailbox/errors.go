package mailbox

import (
	"errors"
	"fmt"
	"time"
)

// Code classifies an Error for the caller that answers the network.
type Code uint8

// The codes, with the HTTP status that fits.
const (
	NotFound Code = iota + 1 // 404: no such command or pairing
	Order                    // 409: seq or prev is not the next one; Seq and Prev say what is
	Conflict                 // 409: the state does not allow it, or another result stands
	Stale                    // 409: the token is not the current one; report again
	Fenced                   // 409: a newer link exists, or this one has not reported yet
	Limited                  // 429: too much is open; RetryAfter says when to try again
	TooLarge                 // 413: one thing is too large, now and later
	TooLate                  // 409: its time is over already
	Closed                   // 403: the surface or the pairing was revoked
	Restored                 // 503: the broker was restored and waits for the desktop's report
	Full                     // 507: the disk is full; nothing changed
)

// Error is every error of this package that is not the store's own.
type Error struct {
	Code       Code
	Message    string        // one plain sentence without secrets
	RetryAfter time.Duration // Limited, Restored
	Seq        uint64        // Order: the seq that would be taken
	Prev       Digest        // Order: the prev that would be taken
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Message }

// Is makes errors.Is(err, &Error{Code: c}) compare codes.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// CodeOf returns the code of an Error, and 0 for any other error.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return 0
}

func fail(c Code, format string, args ...any) error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}
