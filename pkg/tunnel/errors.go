package tunnel

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrClosed is returned by calls on a link that has ended or is ending.
	ErrClosed = errors.New("tunnel: the link is closed")
	// ErrLane is returned by calls that were in flight on a lane that ended:
	// whether the peer handled the request is not known (SPEC section 5).
	ErrLane = errors.New("tunnel: the lane ended before the reply")
	// ErrClass is returned for a class that this side may not open.
	ErrClass = errors.New("tunnel: this side may not open that class")
	// ErrFrameTooLarge is returned for a request above [MaxFrame].
	ErrFrameTooLarge = errors.New("tunnel: frame above 2 MiB")
	// ErrTooManyStreams is returned by Open when the link's cap is reached.
	ErrTooManyStreams = errors.New("tunnel: too many open streams")
	// ErrDraining is returned by calls on a link whose broker is about to close it.
	ErrDraining = errors.New("tunnel: the link is draining")
	// ErrKeepalive is why a link ended whose peer answered no ping.
	ErrKeepalive = errors.New("tunnel: the peer does not answer")
	// ErrWriteTimeout is why a link ended that took no bytes for 30 s.
	ErrWriteTimeout = errors.New("tunnel: write timed out")
)

// Reasons of a [CloseError] that this package gives itself (SPEC section 7).
const (
	ReasonReplaced  = "replaced"
	ReasonConflict  = "identity_conflict"
	ReasonDrain     = "drain"
	ReasonGoingAway = "going_away"
	ReasonFlood     = "stream_flood"
	ReasonKeepalive = "keepalive"
)

// Codes of a [CallError] that this package gives itself (SPEC sections 3 to 5).
const (
	CodeClass    = "class_refused"
	CodeStreams  = "too_many_streams"
	CodeBadFrame = "bad_frame"
	CodeTooLarge = "frame_too_large"
	CodeNoServe  = "not_served"
	CodeInternal = "internal"
	CodeDeadline = "deadline"
	CodeSilent   = "silent"
)

const (
	maxCode    = 32  // bytes of an error code
	maxText    = 256 // bytes of an error message and of a refusal's body
	maxReason  = 32  // bytes of a close reason
	maxPutOff  = 10 * time.Minute
	tokenRunes = "abcdefghijklmnopqrstuvwxyz0123456789_"
)

// CallError is the refusal of one request by the peer, or of a stream
// (SPEC section 4). Code is a short token for programs, Message one line for people.
type CallError struct{ Code, Message string }

func (e *CallError) Error() string {
	if e.Message == "" {
		return "tunnel: refused: " + e.Code
	}
	return "tunnel: refused: " + e.Code + ": " + e.Message
}

// CloseError says how a link was ended on purpose (SPEC section 7).
type CloseError struct {
	Reason     string        // a Reason constant, or the token given to Close
	ComeBackIn time.Duration // with ReasonDrain: not sooner than this
	Remote     bool          // the peer closed, not we
}

func (e *CloseError) Error() string {
	who := "here"
	if e.Remote {
		who = "by the peer"
	}
	return "tunnel: closed " + who + ": " + e.Reason
}

// HTTPError refuses an upgrade before it happens: returned by Authenticate or
// Admit at the broker, and by Dial at the agent for any answer but 101
// (SPEC section 1). Body is one short line and holds no secret.
type HTTPError struct {
	Status     int
	RetryAfter time.Duration // 0: no Retry-After; sent in whole seconds, rounded up
	Body       string
}

func (e *HTTPError) Error() string {
	return fmt.Sprintf("tunnel: the upgrade was refused: %d %s", e.Status, e.Body)
}

// write sends the refusal.
func (e *HTTPError) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write([]byte(ascii(e.Body, maxText) + "\n"))
}

// parseRetryAfter reads both forms of the header; nothing a broker sends puts
// an agent off for more than maxPutOff.
func parseRetryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, maxPutOff)
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), maxPutOff)
	}
	return 0
}

// ascii cuts s to n bytes and replaces what is not printable ASCII.
func ascii(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), n)]
}

// drainText and parseDrain are the reason of a 1012 close frame.
func drainText(d time.Duration) string {
	return ReasonDrain + " " + strconv.FormatInt(max(d.Milliseconds(), 0), 10)
}

func parseDrain(s string) time.Duration {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, ReasonDrain+" "), 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Millisecond, maxPutOff)
}

// token reports whether s may stand as a close reason.
func token(s string) bool {
	return s != "" && len(s) <= maxReason && strings.Trim(s, tokenRunes) == ""
}

// codeToken reports whether s may stand as an error code, which may have dots.
func codeToken(s string) bool {
	return s != "" && len(s) <= maxCode && strings.Trim(s, tokenRunes+".") == ""
}
