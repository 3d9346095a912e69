package proof

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// Bounds of a linking session (section 3).
const (
	LinkLife        = 180 * time.Second // from open to done
	MaxCodeTries    = 5                 // wrong typed codes per session
	MaxDigitEntries = 3                 // entries of the digits at the desktop
	MaxLinksPerDay  = 10                // sessions which a desktop opens in 24 h
	DigitsPlain     = 6                 // digits for observe and prompt
	DigitsDecide    = 8                 // digits when the scope is decide
	LinkNonceSize   = 32                // nS and nD
	AdmitSize       = 32                // admit, in link mode
	MaxVersions     = 8
	MaxPolicyText   = 512
)

// Mode is how a surface learns of a session. A session has one; a message of the other is refused.
type Mode byte

// The modes.
const (
	ModeLink Mode = 1 // link or QR with 128 bits of secret
	ModeCode Mode = 2 // nameplate and eight letters
)

// Valid reports whether m is one of the two.
func (m Mode) Valid() bool { return m == ModeLink || m == ModeCode }

// String returns link, code or mode(N).
func (m Mode) String() string {
	switch m {
	case ModeLink:
		return "link"
	case ModeCode:
		return "code"
	}
	return fmt.Sprintf("mode(%d)", byte(m))
}

// MarshalText implements encoding.TextMarshaler.
func (m Mode) MarshalText() ([]byte, error) {
	if !m.Valid() {
		return nil, fmt.Errorf("%w: no such mode", ErrForm)
	}
	return []byte(m.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(text []byte) error {
	switch string(text) {
	case "link":
		*m = ModeLink
	case "code":
		*m = ModeCode
	default:
		return fmt.Errorf("%w: a mode is link or code", ErrForm)
	}
	return nil
}

// Versions lists the protocol versions that one end speaks, ascending. Both lists stand in the transcript, so that
// taking the better ones away shows. A version fixes its suite: version 1 is suite 1.
type Versions []byte

// OwnVersions is what this build speaks.
func OwnVersions() Versions { return Versions{Version} }

// Common returns the highest version in both lists, or an error when there is none.
func (v Versions) Common(o Versions) (byte, error) {
	for i := len(v) - 1; i >= 0; i-- {
		for _, b := range o {
			if v[i] == b {
				return b, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: no common protocol version", ErrRefused)
}

func (d *Decoder) versions() Versions {
	v := Versions(d.Field(MaxVersions))
	for i, b := range v {
		d.check(b > 0 && (i == 0 || b > v[i-1]), "versions are ascending")
	}
	d.check(len(v) > 0, "a version list has at least one version")
	return v
}

// DesktopCard is bundleD: what a desktop says of itself in its offer. Bundle is the signed Dkem bundle.
type DesktopCard struct {
	Pairing  PairingID
	Dsig     SigKey
	Bundle   []byte
	Host     string // host name, CheckLabel
	Policy   string // one line for people, at most MaxPolicyText bytes of printable ASCII
	Digits   int    // 6 or 8
	Versions Versions
}

// Encode returns bundleD.
func (c DesktopCard) Encode() []byte {
	var e Encoder
	e.Field(c.Pairing[:]).Field(c.Dsig[:]).Field(c.Bundle).Text(c.Host).Text(c.Policy)
	return e.Byte(byte(c.Digits)).Field(c.Versions).Bytes()
}

// ParseDesktopCard reads bundleD and holds that the pairing is that of Dsig, that Dsig signed the Dkem bundle, and
// every rule of form.
func ParseDesktopCard(b []byte) (c DesktopCard, err error) {
	d := NewDecoder(b)
	d.Fill(c.Pairing[:])
	d.Fill(c.Dsig[:])
	c.Bundle = d.Field(BundleSize + signatureSize)
	c.Host, c.Policy, c.Digits = d.Text(MaxLabel), d.Text(MaxPolicyText), int(d.Byte())
	c.Versions = d.versions()
	d.check(CheckLabel(c.Host) == nil, "the host name is no label")
	d.check(printable(c.Policy), "the policy summary is not printable ASCII")
	d.check(c.Digits == DigitsPlain || c.Digits == DigitsDecide, "digits are 6 or 8")
	if err := d.Done(); err != nil {
		return DesktopCard{}, err
	}
	if err := c.Dsig.Check(); err != nil {
		return DesktopCard{}, err
	}
	if c.Pairing != PairingOf(c.Dsig) {
		return DesktopCard{}, fmt.Errorf("%w: the pairing is not that of the key", ErrRefused)
	}
	if _, err := OpenBundle(c.Dsig, c.Bundle); err != nil {
		return DesktopCard{}, err
	}
	return c, nil
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// SurfaceCard is bundleS: what a surface says of itself, committed to in its claim and shown in its reveal.
type SurfaceCard struct {
	Ssig     SigKey
	Skem     KemKey
	Label    string // CheckLabel
	Scope    Scope  // the highest scope asked for; the desktop's question has decided already what it can get
	Versions Versions
}

// Encode returns bundleS.
func (c SurfaceCard) Encode() []byte {
	var e Encoder
	e.Field(c.Ssig[:]).Field(c.Skem[:]).Text(c.Label).Byte(byte(c.Scope))
	return e.Field(c.Versions).Bytes()
}

// ParseSurfaceCard reads bundleS; keys of small order are refused.
func ParseSurfaceCard(b []byte) (c SurfaceCard, err error) {
	d := NewDecoder(b)
	d.Fill(c.Ssig[:])
	d.Fill(c.Skem[:])
	c.Label, c.Scope = d.Text(MaxLabel), Scope(d.Byte())
	c.Versions = d.versions()
	d.check(CheckLabel(c.Label) == nil, "the label is not allowed")
	d.check(c.Scope.Valid(), "no such scope")
	if err := d.Done(); err != nil {
		return SurfaceCard{}, err
	}
	if err := c.Ssig.Check(); err != nil {
		return SurfaceCard{}, err
	}
	return c, c.Skem.Check()
}

// Commit returns cS = SHA-256("odp/commit/v1\0" ‖ lp(bundleS) ‖ nS).
func Commit(bundleS, nS []byte) Digest {
	return sha256.Sum256(Label(LabelCommit).Field(bundleS).Raw(nS).Bytes())
}

// Transcript is all that both ends agree on before a person compares digits. Nothing else enters T.
type Transcript struct {
	Mode            Mode
	Pid             LinkID
	VersionsD       Versions
	VersionsS       Versions
	Origin          string // of the broker, as Origin gives it
	Commit          Digest
	BundleD, NonceD []byte
	BundleS, NonceS []byte
}

// Sum returns T.
func (t Transcript) Sum() Digest {
	e := Label(LabelTranscript).Byte(byte(t.Mode)).Field(t.Pid[:]).Field(t.VersionsD).Field(t.VersionsS)
	e.Text(t.Origin).Field(t.Commit[:]).Field(t.BundleD).Field(t.NonceD).Field(t.BundleS).Field(t.NonceS)
	return sha256.Sum256(e.Bytes())
}

// Digits returns the n decimal digits (6 or 8) that the surface shows and the person types into the desktop.
func Digits(t Digest, n int) string { return digits(LabelDigits, t, n) }

// FinishDigits returns the finish code of code mode, which the desktop shows after success.
func FinishDigits(t Digest, n int) string { return digits(LabelFinish, t, n) }

func digits(label string, t Digest, n int) string {
	modulus := uint64(1)
	for range n {
		modulus *= 10
	}
	sum := sha256.Sum256(Label(label).Raw(t[:]).Bytes())
	return fmt.Sprintf("%0*d", n, binary.BigEndian.Uint64(sum[:8])%modulus)
}

// DigitsFor returns how many digits a session for the scope needs.
func DigitsFor(highest Scope) int {
	if highest == ScopeDecide {
		return DigitsDecide
	}
	return DigitsPlain
}

// SignLink is the surface's proof that it holds Ssig, over "odp/link-T\0" ‖ T.
func SignLink(ssig ed25519.PrivateKey, t Digest) []byte {
	return ed25519.Sign(ssig, Label(LabelLink).Raw(t[:]).Bytes())
}

// VerifyLink checks it.
func VerifyLink(ssig SigKey, t Digest, sig []byte) error {
	return ssig.Verify(Label(LabelLink).Raw(t[:]).Bytes(), sig)
}

// OfferInput is what the link-mode MAC of an offer covers: "odp/mac/d\0" ‖ lp(mode, pid, versions, cS, bundleD, nD).
func OfferInput(mode Mode, pid LinkID, versions Versions, cS Digest, bundleD, nD []byte) []byte {
	e := Label(LabelMACDesktop).Byte(byte(mode)).Field(pid[:]).Field(versions)
	return e.Field(cS[:]).Field(bundleD).Field(nD).Bytes()
}

// RevealInput is what the link-mode MAC of a reveal covers: "odp/mac/s\0" ‖ T.
func RevealInput(t Digest) []byte { return Label(LabelMACSurface).Raw(t[:]).Bytes() }
