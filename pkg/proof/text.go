package proof

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
)

// MaxLabel is the longest label or host name, in characters (all of them ASCII, so also in bytes).
const MaxLabel = 40

// MaxOrigin is the longest origin in bytes.
const MaxOrigin = 255

// Alphabet is RFC 8628's set for typed codes: 20 letters without vowels, so that no words appear.
const Alphabet = "BCDFGHJKLMNPQRSTVWXZ"

// CodeLetters is how many letters the secret part of a typed code has: log2(20^8) = 34.6 bits.
const CodeLetters = 8

// CheckLabel holds the rule for labels and host names at both ends: 1 to 40 of A-Z a-z 0-9 space . _ - and no
// space at either end. ASCII only, because two ends with different Unicode tables must not disagree.
func CheckLabel(s string) error {
	if s == "" || len(s) > MaxLabel {
		return fmt.Errorf("%w: a label has 1 to %d characters", ErrForm, MaxLabel)
	}
	if strings.TrimSpace(s) != s || strings.IndexFunc(s, notLabel) >= 0 {
		return fmt.Errorf("%w: a label has only letters, digits, space and . _ -", ErrForm)
	}
	return nil
}

func notLabel(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return !strings.ContainsRune(" ._-", r)
}

// CleanLabel makes a valid label of any text (a host name, a user agent): every other character becomes '-', and
// what is too long is cut. Nothing left gives "unnamed".
func CleanLabel(s string) string {
	s = strings.Map(func(r rune) rune {
		if notLabel(r) {
			return '-'
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) > MaxLabel {
		s = strings.TrimSpace(s[:MaxLabel])
	}
	if s == "" {
		return "unnamed"
	}
	return s
}

// Letters is a run of Alphabet: the secret part of a typed code. It prints as dots; JSON and string() give it.
type Letters string

// NewLetters draws n letters without bias: for one who makes a code.
func NewLetters(n int) Letters {
	const fair = 256 - 256%len(Alphabet)
	out := make([]byte, 0, n)
	for b := make([]byte, 1); len(out) < n; {
		rand.Read(b) // never fails
		if int(b[0]) < fair {
			out = append(out, Alphabet[int(b[0])%len(Alphabet)])
		}
	}
	return Letters(out)
}

// ParseLetters reads n letters as people type them: case-free, with hyphens and spaces anywhere.
func ParseLetters(text string, n int) (Letters, error) {
	if len(text) > 4*n {
		return "", fmt.Errorf("%w: too long for a code", ErrForm)
	}
	clean := strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(text))
	l := Letters(clean)
	if err := l.Check(n); err != nil {
		return "", err
	}
	return l, nil
}

// Check refuses anything but n letters of Alphabet.
func (l Letters) Check(n int) error {
	if len(l) != n {
		return fmt.Errorf("%w: a code has %d letters", ErrForm, n)
	}
	if strings.IndexFunc(string(l), func(r rune) bool { return !strings.ContainsRune(Alphabet, r) }) >= 0 {
		return fmt.Errorf("%w: a code has only the letters %s", ErrForm, Alphabet)
	}
	return nil
}

// String hides the letters.
func (l Letters) String() string { return redacted }

// GoString hides the letters.
func (l Letters) GoString() string { return redacted }

// LogValue hides the letters.
func (l Letters) LogValue() slog.Value { return slog.StringValue(redacted) }

const redacted = "[redacted]"

// Origin brings a URL to scheme://host[:port]: lower case, no default port, nothing after it. Only http and https.
func Origin(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || len(raw) > MaxOrigin || u.User != nil || u.Hostname() == "" {
		return "", fmt.Errorf("%w: not an http(s) address", ErrForm)
	}
	scheme, host, port := strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()
	if scheme != "https" && scheme != "http" {
		return "", fmt.Errorf("%w: not an http(s) address", ErrForm)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == "" || (scheme == "https" && port == "443") || (scheme == "http" && port == "80") {
		return scheme + "://" + host, nil
	}
	return scheme + "://" + host + ":" + port, nil
}
