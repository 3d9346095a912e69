package seal

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// hidden is embedded in every type that holds a secret: whatever prints, logs or marshals it gets a fixed word, with
// any verb, or an error.
type hidden struct{}

// String hides the value.
func (hidden) String() string { return redacted }

// GoString hides the value.
func (hidden) GoString() string { return redacted }

// Format hides the value from every verb: %x of a struct would print its unexported bytes.
func (hidden) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// LogValue hides the value.
func (hidden) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON refuses: a secret leaves only by a method that names it.
func (hidden) MarshalJSON() ([]byte, error) { return nil, errSecret }

// MarshalText refuses.
func (hidden) MarshalText() ([]byte, error) { return nil, errSecret }

var errSecret = fmt.Errorf("seal: a secret is not for marshalling")
