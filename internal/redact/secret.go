package redact

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Mark is what stands where a secret was.
const Mark = "[secret-redacted]"

// Secret is text that must not reach a log, an error, a terminal or a JSON
// document by accident. Every way of printing it gives Mark; Reveal is the
// only way to the text, so that a search for Reveal finds each use.
type Secret string

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// Equal compares in time that depends on the lengths only.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s), []byte(other)) == 1
}

// String returns Mark.
func (Secret) String() string { return Mark }

// GoString returns Mark, for %#v.
func (Secret) GoString() string { return Mark }

// Format writes Mark for every verb: %x and %q would bypass String.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Mark) }

// LogValue returns Mark, for slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(Mark) }

// MarshalText returns Mark, for encoding/json and the like. It cannot be read
// back; whoever must store a secret calls Reveal.
func (Secret) MarshalText() ([]byte, error) { return []byte(Mark), nil }
