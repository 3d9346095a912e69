package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// refuse makes the error that a handler returns and a client reads. title is one plain sentence, hint (optional) what
// to do next.
func refuse(status int, code, title string, hint ...string) *wire.Problem {
	p := &wire.Problem{Type: "about:blank", Status: status, Code: code, Title: title}
	if len(hint) > 0 {
		p.Hint = hint[0]
	}
	return p
}

func malformed(title string) *wire.Problem {
	return refuse(http.StatusBadRequest, wire.CodeMalformed, title)
}

// unauthorized is the one answer to a missing, bad, expired or revoked token or signature and to unknown ids.
func unauthorized() *wire.Problem {
	return refuse(http.StatusUnauthorized, wire.CodeUnauthorized, "Sign in first.",
		"ask for a nonce, sign it with the surface's key, and send the token; a revoked surface must be linked again")
}

// notFound is the one answer to what does not exist and to what belongs to someone else.
func notFound() *wire.Problem {
	return refuse(http.StatusNotFound, wire.CodeNotFound, "There is no such thing here.")
}

func limited(wait time.Duration) *wire.Problem {
	p := refuse(http.StatusTooManyRequests, wire.CodeLimited, "Too many requests.", "wait as long as Retry-After says")
	p.RetryAfter = seconds(wait)
	return p
}

func internal() *wire.Problem {
	return refuse(http.StatusInternalServerError, wire.CodeInternal, "Something went wrong at the broker.",
		"it is in the broker's log; asking again is safe")
}

// seconds rounds up, so that nobody comes back too early.
func seconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }

// fail writes err as a problem. What no table knows is logged here, once, and shown as "internal".
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, known := errors.AsType[*wire.Problem](err)
	if !known {
		p = explain(err)
	}
	if p.Status == http.StatusInternalServerError && r.Context().Err() == nil {
		s.log.Error("request failed", "route", r.Pattern, "error", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may have gone; there is nobody else to tell
}

// reply writes v as JSON.
func reply(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
	return nil
}

// done answers 204.
func done(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}
