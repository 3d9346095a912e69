package httpapi

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/wire"
)

// statuses gives each problem code its HTTP status.
var statuses = map[string]int{
	wire.CodeMalformed: http.StatusBadRequest, wire.CodeUnsupported: http.StatusBadRequest,
	wire.CodeClockSkew: http.StatusBadRequest, wire.CodeUnauthorized: http.StatusUnauthorized,
	wire.CodeForbidden: http.StatusForbidden, wire.CodeBadCode: http.StatusForbidden,
	wire.CodeNotFound: http.StatusNotFound, wire.CodeOrderConflict: http.StatusConflict,
	wire.CodeConflict: http.StatusConflict, wire.CodeTooLarge: http.StatusRequestEntityTooLarge,
	wire.CodeLimited: http.StatusTooManyRequests, wire.CodeAsleep: http.StatusServiceUnavailable,
	wire.CodeFull: http.StatusInsufficientStorage,
}

// mailboxCodes translates the mailbox's. A surface that was revoked meanwhile hears what it hears at its next call.
var mailboxCodes = map[mailbox.Code]string{
	mailbox.NotFound: wire.CodeNotFound, mailbox.Order: wire.CodeOrderConflict, mailbox.Conflict: wire.CodeConflict,
	mailbox.Stale: wire.CodeConflict, mailbox.Fenced: wire.CodeConflict, mailbox.Limited: wire.CodeLimited,
	mailbox.TooLarge: wire.CodeTooLarge, mailbox.TooLate: wire.CodeConflict, mailbox.Closed: wire.CodeUnauthorized,
	mailbox.Restored: wire.CodeAsleep, mailbox.Full: wire.CodeFull,
}

// hints say what to do about a code, where that is the same wherever it comes from.
var hints = map[string]string{
	wire.CodeBadCode:       "ask for a new code or link at the desktop or of the operator",
	wire.CodeAsleep:        "wake the desktop and try again",
	wire.CodeOrderConflict: "go on from expected_seq and expected_prev",
	wire.CodeFull:          "the operator must make room on the broker's disk",
	wire.CodeClockSkew:     "set the clock that is off",
}

// explain turns an error of the rules into a problem; what it does not know is "internal".
func explain(err error) *wire.Problem {
	if e, ok := errors.AsType[*mailbox.Error](err); ok {
		return explainMailbox(e)
	}
	if e, ok := errors.AsType[*pairing.Error](err); ok {
		return known(e.Code, e.Message)
	}
	return internal()
}

func explainMailbox(e *mailbox.Error) *wire.Problem {
	p := known(mailboxCodes[e.Code], e.Message)
	if e.RetryAfter > 0 {
		p.RetryAfter = seconds(e.RetryAfter)
	}
	if e.Code == mailbox.Order {
		p.ExpectedSeq, p.ExpectedPrev = e.Seq, e.Prev[:]
	}
	return p
}

func known(code, message string) *wire.Problem {
	status, ok := statuses[code]
	switch {
	case !ok:
		return internal()
	case code == wire.CodeUnauthorized:
		return unauthorized()
	case code == wire.CodeNotFound:
		return notFound()
	}
	p := refuse(status, code, sentence(message), hints[code])
	if code == wire.CodeLimited {
		p.RetryAfter = seconds(time.Minute)
	}
	return p
}

// sentence begins with a capital and ends with a full stop.
func sentence(s string) string {
	if s == "" {
		return "That did not work."
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}
