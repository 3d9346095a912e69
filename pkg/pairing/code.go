package pairing

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Bounds of an enrolment code (section 2).
const (
	CodeLife    = 15 * time.Minute
	MaxCodeLife = 24 * time.Hour
	MaxTries    = 5 // wrong tries before a code burns

	selectorLetters = 4  // not secret: which code is meant, so that tries can be counted
	keyLetters      = 10 // 40 bits of the hash of the broker's key
	codeLetters     = selectorLetters + proof.CodeLetters
	enrolPath       = "/e#1."
	maxCodeText     = 512
)

// Code is an enrolment code as a person holds it: selector (public), secret, and what it says of the broker's key.
// It prints as dots.
type Code struct {
	Origin   string // link form only
	selector proof.Letters
	secret   proof.Letters
	key      []byte // 5 bytes typed, 32 in a link
}

// NewCode makes a code for the broker with this key. 34.6 bits of it are secret.
func NewCode(broker proof.SigKey) Code {
	sum := sha256.Sum256(broker[:])
	return Code{selector: proof.NewLetters(selectorLetters), secret: proof.NewLetters(proof.CodeLetters), key: sum[:]}
}

// ParseCode reads the typed form (22 letters in any grouping, case-free) or the link form.
func ParseCode(text string) (Code, error) {
	text = strings.TrimSpace(text)
	if len(text) > maxCodeText {
		return Code{}, malformed("this is too long for an enrolment code")
	}
	if origin, rest, ok := strings.Cut(text, enrolPath); ok {
		return parseCodeLink(origin, rest)
	}
	all, err := proof.ParseLetters(text, codeLetters+keyLetters)
	if err != nil {
		return Code{}, malformed("an enrolment code has 22 letters, or is a link")
	}
	key, ok := bitsOf(string(all[codeLetters:]))
	if !ok {
		return Code{}, malformed("this enrolment code has a typing error")
	}
	return Code{selector: all[:selectorLetters], secret: all[selectorLetters:codeLetters], key: key}, nil
}

func parseCodeLink(origin, rest string) (Code, error) {
	bad := malformed("this is not an enrolment link")
	clean, err := proof.Origin(origin)
	letters, hash, ok := strings.Cut(rest, ".")
	if err != nil || clean != origin || !ok {
		return Code{}, bad
	}
	l := proof.Letters(letters)
	key, err := wire.ParseBytes(hash)
	if err != nil || l.Check(codeLetters) != nil || len(key) != sha256.Size {
		return Code{}, bad
	}
	return Code{Origin: origin, selector: l[:selectorLetters], secret: l[selectorLetters:], key: key}, nil
}

// Text returns the typed form: SSSS-LLLL-LLLL-KKKKK-KKKKK.
func (c Code) Text() string {
	l, k := string(c.selector+c.secret), lettersOf(c.key)
	return strings.Join([]string{l[:4], l[4:8], l[8:], k[:5], k[5:]}, "-")
}

// Link returns ORIGIN/e#1.<letters>.<hash of the broker's key>; the secret stands in the fragment.
func (c Code) Link(origin string) string {
	return origin + enrolPath + string(c.selector+c.secret) + "." + wire.Bytes(c.key).String()
}

// Letters is what goes to the broker: selector and secret.
func (c Code) Letters() proof.Letters { return c.selector + c.secret }

// Names reports whether the code was made by the broker with this key, as far as its form says it: 40 bits when
// typed, all in a link. A desktop asks before it sends the code.
func (c Code) Names(broker proof.SigKey) bool {
	sum := sha256.Sum256(broker[:])
	return len(c.key) >= 5 && subtle.ConstantTimeCompare(sum[:len(c.key)], c.key) == 1
}

// String hides the code.
func (c Code) String() string { return "[redacted]" }

// GoString hides the code.
func (c Code) GoString() string { return "[redacted]" }

// LogValue hides the code.
func (c Code) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON refuses: a code is shown once, by Text or Link.
func (c Code) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("pairing: a code is not for JSON")
}

// lettersOf writes the first 40 bits of a hash in base 20, most significant letter first.
func lettersOf(hash []byte) string {
	n := uint64(hash[0])<<32 | uint64(binary.BigEndian.Uint32(hash[1:5]))
	out := make([]byte, keyLetters)
	for i := keyLetters - 1; i >= 0; i-- {
		out[i] = proof.Alphabet[n%20]
		n /= 20
	}
	return string(out)
}

// bitsOf is its inverse; false for what is above 2^40-1, which no hash gives.
func bitsOf(letters string) ([]byte, bool) {
	var n uint64
	for i := range letters {
		n = n*20 + uint64(strings.IndexByte(proof.Alphabet, letters[i]))
	}
	return binary.BigEndian.AppendUint64(nil, n)[3:], n < 1<<40
}

// Pepper is the broker's secret under which codes are kept. It lies in a 0600 file beside the store, never in it.
type Pepper [32]byte

// String hides it.
func (p Pepper) String() string { return "[redacted]" }

// GoString hides it.
func (p Pepper) GoString() string { return "[redacted]" }

// LogValue hides it.
func (p Pepper) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON refuses.
func (p Pepper) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("pairing: a pepper is not for JSON")
}

// Equal compares in constant time.
func (p Pepper) Equal(o Pepper) bool { return subtle.ConstantTimeCompare(p[:], o[:]) == 1 }

// enrolMAC is what the store keeps of an enrolment code.
func (p Pepper) enrolMAC(letters proof.Letters) proof.Digest {
	return p.mac(proof.Label(proof.LabelEnrolCode).Text(string(letters)).Bytes())
}

// linkMAC is what the store keeps of a typed linking code.
func (p Pepper) linkMAC(pid proof.LinkID, letters proof.Letters) proof.Digest {
	return p.mac(proof.Label(proof.LabelLinkCode).Field(pid[:]).Text(string(letters)).Bytes())
}

func (p Pepper) mac(input []byte) proof.Digest {
	h := hmac.New(sha256.New, p[:])
	h.Write(input)
	return proof.Digest(h.Sum(nil))
}
