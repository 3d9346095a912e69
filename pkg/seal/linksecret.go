package seal

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// linkSecretSize is s: 128 bits.
const linkSecretSize = 16

// LinkSecret is s of a linking in link mode. It stands in the link's fragment, so the broker never receives it. It
// prints as dots.
type LinkSecret struct {
	hidden
	b [linkSecretSize]byte
}

// NewLinkSecret draws s.
func NewLinkSecret() (s LinkSecret) {
	rand.Read(s.b[:]) // never fails
	return s
}

// Equal compares in constant time.
func (s LinkSecret) Equal(o LinkSecret) bool { return subtle.ConstantTimeCompare(s.b[:], o.b[:]) == 1 }

// The infos of HKDF-SHA256 over s, without salt, 32 bytes each.
const (
	infoAdmit      = "odp/admit/v1"
	infoMACDesktop = "odp/mac/d"
	infoMACSurface = "odp/mac/s"
)

func (s LinkSecret) derive(info string) []byte {
	key, err := hkdf.Key(sha256.New, s.b[:], nil, info, sha256.Size)
	if err != nil {
		panic(err) // 32 bytes are always to be had
	}
	return key
}

// Admit is what a claimer shows the broker.
func (s LinkSecret) Admit() proof.Admit { return proof.Admit(s.derive(infoAdmit)) }

// OfferMAC authenticates an offer by the desktop; input is proof.OfferInput.
func (s LinkSecret) OfferMAC(input []byte) []byte { return s.mac(infoMACDesktop, input) }

// RevealMAC authenticates a reveal by the surface; input is proof.RevealInput.
func (s LinkSecret) RevealMAC(input []byte) []byte { return s.mac(infoMACSurface, input) }

func (s LinkSecret) mac(info string, input []byte) []byte {
	h := hmac.New(sha256.New, s.derive(info))
	h.Write(input)
	return h.Sum(nil)
}

// linkPath stands between origin and fragment of a link; 1 is its version.
const linkPath = "/p#1."

// maxLinkText bounds what is parsed as a link.
const maxLinkText = proof.MaxOrigin + 64

// FormatLink returns PAGE-ORIGIN/p#1.<pid>.<s>. It is as secret as s.
func FormatLink(page string, pid proof.LinkID, s LinkSecret) string {
	return page + linkPath + pid.String() + "." + wire.Bytes(s.b[:]).String()
}

// ParseLink takes a link apart. The page's origin must be as proof.Origin gives it.
func ParseLink(text string) (page string, pid proof.LinkID, s LinkSecret, err error) {
	bad := fmt.Errorf("%w: not a linking link", proof.ErrForm)
	if len(text) > maxLinkText {
		return "", pid, s, bad
	}
	page, rest, found := strings.Cut(strings.TrimSpace(text), linkPath)
	first, second, both := strings.Cut(rest, ".")
	origin, err := proof.Origin(page)
	if !found || !both || err != nil || origin != page {
		return "", pid, s, bad
	}
	secret, err := wire.ParseBytes(second)
	if err != nil || len(secret) != linkSecretSize || pid.UnmarshalText([]byte(first)) != nil || pid.IsZero() {
		return "", proof.LinkID{}, s, bad
	}
	copy(s.b[:], secret)
	return page, pid, s, nil
}

// FormatCode returns NN-BCDF-GHJK. It is a secret, shown once at the desktop.
func FormatCode(nameplate string, letters proof.Letters) string {
	l := string(letters)
	return nameplate + "-" + l[:4] + "-" + l[4:]
}

// ParseCode reads a typed code: case-free, hyphens and spaces ignored.
func ParseCode(text string) (nameplate string, letters proof.Letters, err error) {
	bad := fmt.Errorf("%w: a code has two digits and eight letters", proof.ErrForm)
	clean := strings.NewReplacer("-", "", " ", "").Replace(strings.TrimSpace(text))
	if len(text) > 40 || len(clean) != 2+proof.CodeLetters || proof.CheckNameplate(clean[:2]) != nil {
		return "", "", bad
	}
	letters, err = proof.ParseLetters(clean[2:], proof.CodeLetters)
	if err != nil {
		return "", "", bad
	}
	return clean[:2], letters, nil
}
