package mailbox

import (
	"crypto/rand"
	"crypto/subtle"
	"log/slog"
	"strings"

	"cowork.example.com/broker/pkg/proof"
)

// The ids and kinds of the protocol, under the names that Store implementations use.
type (
	PairingID    = proof.PairingID
	SurfaceID    = proof.SurfaceID
	Digest       = proof.Digest
	Kind         = proof.Kind
	EventEpochID = proof.EpochID
)

// CommandID names a command; the broker gives it. It is unguessable and starts with "cmd_".
type CommandID string

const commandPrefix = "cmd_"

func newCommandID() CommandID { return CommandID(commandPrefix + rand.Text()) }

// ParseCommandID checks the form of an id that came from outside.
func ParseCommandID(s string) (CommandID, error) {
	rest, ok := strings.CutPrefix(s, commandPrefix)
	if !ok || len(rest) != 26 || strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return "", fail(NotFound, "no such command")
	}
	return CommandID(s), nil
}

// Epoch numbers the links of a pairing; a higher one fences out every lower one. 0 is no link: a lease of epoch 0 is
// held by someone unknown.
type Epoch uint64

// Token is the right to say what became of a leased command: 16 random bytes, new with each lease.
type Token [16]byte

func newToken() (t Token) {
	rand.Read(t[:]) // never fails
	return t
}

// ParseToken reads a token from its bytes; anything but 16 bytes is the zero token, which no lease has.
func ParseToken(b []byte) (t Token) {
	if len(b) == len(t) {
		copy(t[:], b)
	}
	return t
}

// Equal compares in constant time. The zero token equals nothing.
func (t Token) Equal(o Token) bool {
	return t != Token{} && subtle.ConstantTimeCompare(t[:], o[:]) == 1
}

// String hides the token.
func (t Token) String() string { return "[token]" }

// GoString hides the token.
func (t Token) GoString() string { return "[token]" }

// LogValue hides the token.
func (t Token) LogValue() slog.Value { return slog.StringValue("[token]") }
