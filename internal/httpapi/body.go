package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// read decodes the one JSON value of a body strictly: of at most limit bytes, no unknown field, nothing after it.
func read[T any](w http.ResponseWriter, r *http.Request, limit int64) (T, error) {
	var v, none T
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return none, malformed("The body must be application/json.")
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return none, badBody(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			return none, malformed("There is something after the JSON value.")
		}
		return none, badBody(err)
	}
	return v, nil
}

// empty refuses a body where none is documented.
func empty(w http.ResponseWriter, r *http.Request) error {
	n, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1))
	if err != nil || n > 0 {
		return malformed("This call takes no body.")
	}
	return nil
}

// badBody says what is wrong without repeating what was sent.
func badBody(err error) *wire.Problem {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refuse(http.StatusRequestEntityTooLarge, wire.CodeTooLarge,
			"The body is larger than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes.")
	}
	if field, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && field.Field != "" {
		return malformed("The field " + strconv.Quote(field.Field) + " has the wrong type.")
	}
	return malformed("The body is not the JSON that this call takes.")
}

// waitOf reads ?wait=1..25; 0 when it is absent.
func waitOf(r *http.Request) (time.Duration, error) {
	n, err := number(r, "wait", 0, wire.MaxWaitSeconds)
	if err == nil && r.URL.Query().Has("wait") && n < 1 {
		err = malformed("wait is 1 to 25 seconds.")
	}
	return time.Duration(n) * time.Second, err
}

// number reads a query parameter of at most high; fallback when it is absent.
func number(r *http.Request, name string, fallback, high uint64) (uint64, error) {
	q := r.URL.Query()
	if !q.Has(name) {
		return fallback, nil
	}
	n, err := strconv.ParseUint(q.Get(name), 10, 64)
	if err != nil || n > high || len(q[name]) > 1 {
		return 0, malformed(name + " is a number of at most " + strconv.FormatUint(high, 10) + ".")
	}
	return n, nil
}
