package pairing

import (
	"errors"

	"cowork.example.com/broker/pkg/wire"
)

// Error is what this package refuses with. Code is stable and one of wire's problem codes; Message is one short
// plain sentence in ASCII. errors.Is compares the codes.
type Error struct {
	Code    string
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Is reports whether target is an *Error of the same code.
func (e *Error) Is(target error) bool {
	t, ok := errors.AsType[*Error](target)
	return ok && t.Code == e.Code
}

// Errors that callers look for. ErrBadCode has one text for wrong, unknown, used, expired, burned and revoked codes
// and links alike.
var (
	ErrBadCode      = &Error{wire.CodeBadCode, "this code is not known or no longer valid"}
	ErrNotFound     = &Error{wire.CodeNotFound, "there is nothing of that id here"}
	ErrConflict     = &Error{wire.CodeConflict, "the state does not allow this any more"}
	ErrMalformed    = &Error{wire.CodeMalformed, "this is not the form that the protocol states"}
	ErrUnauthorized = &Error{wire.CodeUnauthorized, "this identity is not known here, or its proof does not hold"}
	ErrForbidden    = &Error{wire.CodeForbidden, "this is not allowed"}
	ErrLimited      = &Error{wire.CodeLimited, "too many at once; try again later"}
)

// CodeOf returns the stable code of err, wire.CodeInternal when it has none.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return wire.CodeInternal
}

// malformed hides the reason from the network and keeps the code.
func malformed(message string) error { return &Error{wire.CodeMalformed, message} }
