package wire

// Problem is the body of every error of the HTTP APIs (RFC 9457, application/problem+json). Code is stable and
// meant for programs; Title is one plain sentence for people; Hint says what to do next.
type Problem struct {
	Type   string `json:"type"` // "about:blank"
	Status int    `json:"status"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	Hint   string `json:"hint,omitempty"`

	ExpectedSeq  uint64 `json:"expected_seq,omitempty"`  // order_conflict: the seq which the broker would take next
	ExpectedPrev Bytes  `json:"expected_prev,omitempty"` // order_conflict: the prev which it would take
	RetryAfter   int    `json:"retry_after,omitempty"`   // seconds, also in the header
}

// Error implements error with the plain sentence.
func (p *Problem) Error() string { return p.Title }

// Problem codes of the public API.
const (
	CodeMalformed     = "malformed"       // 400: not the shape that the document states
	CodeUnauthorized  = "unauthorized"    // 401: no, bad or expired token or signature; also for unknown ids
	CodeForbidden     = "forbidden"       // 403: locked or out of scope
	CodeNotFound      = "not_found"       // 404: unknown and forbidden alike
	CodeOrderConflict = "order_conflict"  // 409: seq or prev is not the next one
	CodeConflict      = "conflict"        // 409: the state does not allow it
	CodeTooLarge      = "too_large"       // 413
	CodeLimited       = "limited"         // 429 with Retry-After
	CodeBadCode       = "bad_code"        // 403: wrong, used, expired and burned codes alike
	CodeAsleep        = "desktop_offline" // 503: linking needs the desktop's tunnel
	CodeFull          = "storage_full"    // 507
	CodeInternal      = "internal"        // 500
	CodeUnsupported   = "unsupported"     // 400: a kind or version that the desktop did not state
	CodeClockSkew     = "clock_skew"      // 400: the times of both ends are too far apart; Title names both
)

// Codes with which the broker refuses a frame of the tunnel, beside those above (malformed, conflict, unsupported,
// clock_skew, storage_full, internal).
const (
	CodeStaleToken = "stale_token" // result, accepted, waiting: the token is not current; send a report
	CodeHelloFirst = "hello_first" // nothing is served on a link before its hello was answered
)
