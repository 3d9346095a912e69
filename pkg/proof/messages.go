package proof

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// MaxMessage is the largest linking message as JSON.
const MaxMessage = 8 << 10

// Admit is HKDF(s, "odp/admit/v1"): it shows the broker that a claimer has the link, and nothing more. It prints as
// dots; JSON carries base64url.
type Admit [AdmitSize]byte

// Digest returns SHA-256(admit), which is all that the broker keeps.
func (a Admit) Digest() Digest { return sha256.Sum256(a[:]) }

// String hides the value.
func (a Admit) String() string { return redacted }

// GoString hides the value.
func (a Admit) GoString() string { return redacted }

// LogValue hides the value.
func (a Admit) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler: the wire needs the value.
func (a Admit) MarshalText() ([]byte, error) { return []byte(wire.Bytes(a[:]).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, strictly.
func (a *Admit) UnmarshalText(text []byte) error { return fill(a[:], text) }

// Open is message 1, desktop to broker: a linking session begins. In link mode it has AdmitDigest, in code mode the
// Code's letters, of which the broker keeps an HMAC only.
type Open struct {
	Pid         LinkID     `json:"pid"`
	Mode        Mode       `json:"mode"`
	AdmitDigest *Digest    `json:"admit_sha256,omitempty"`
	Code        Letters    `json:"code,omitempty"`
	Expires     int64      `json:"expires"` // Unix ms, desktop's clock; at most LinkLife ahead
	Sig         wire.Bytes `json:"sig"`     // Dsig over "odp/open\0" ‖ lp(pairing, pid, mode, digest or code, expires)
}

func (o Open) input(pairing PairingID) []byte {
	e := Label(LabelOpen).Field(pairing[:]).Field(o.Pid[:]).Byte(byte(o.Mode))
	if o.AdmitDigest != nil {
		e.Field(o.AdmitDigest[:])
	} else {
		e.Text(string(o.Code))
	}
	return e.Time(o.Expires).Bytes()
}

// Sign fills Sig.
func (o *Open) Sign(dsig ed25519.PrivateKey) {
	o.Sig = ed25519.Sign(dsig, o.input(PairingOf(SigKeyOf(dsig))))
}

// Verify checks form and signature at the broker; Ends says when the session ends.
func (o Open) Verify(dsig SigKey) error {
	if err := o.check(); err != nil {
		return err
	}
	return dsig.Verify(o.input(PairingOf(dsig)), o.Sig)
}

func (o Open) check() error {
	if o.Pid.IsZero() || !o.Mode.Valid() || o.Expires <= 0 || o.Expires > MaxNumber {
		return fmt.Errorf("%w: open needs pid, mode and expires", ErrForm)
	}
	if o.Mode == ModeLink && (o.AdmitDigest == nil || o.Code != "") {
		return fmt.Errorf("%w: open in link mode has admit_sha256 and no code", ErrForm)
	}
	if o.Mode == ModeCode {
		if o.AdmitDigest != nil {
			return fmt.Errorf("%w: open in code mode has a code and no admit_sha256", ErrForm)
		}
		return o.Code.Check(CodeLetters)
	}
	return nil
}

// Claim is message 2, surface to broker to desktop. To the broker it has pid and admit, or nameplate and code; what
// goes on to the desktop is Bare.
type Claim struct {
	Mode      Mode    `json:"mode"`
	Pid       *LinkID `json:"pid,omitempty"`
	Admit     *Admit  `json:"admit,omitempty"`
	Nameplate string  `json:"nameplate,omitempty"` // two digits
	Code      Letters `json:"code,omitempty"`
	Commit    Digest  `json:"commit"` // cS
}

// Bare is the claim without what admits: for the desktop.
func (c Claim) Bare() Claim { return Claim{Mode: c.Mode, Commit: c.Commit} }

// CheckNameplate refuses anything but two digits.
func CheckNameplate(s string) error {
	if len(s) != 2 || s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return fmt.Errorf("%w: a nameplate is two digits", ErrForm)
	}
	return nil
}

// check holds the shape; bare claims have only mode and commit.
func (c Claim) check() error {
	if !c.Mode.Valid() || c.Commit.IsZero() {
		return fmt.Errorf("%w: a claim needs mode and commit", ErrForm)
	}
	isLink := c.Pid != nil && c.Admit != nil
	isCode := c.Nameplate != "" && c.Code != ""
	bare := c.Pid == nil && c.Admit == nil && c.Nameplate == "" && c.Code == ""
	switch {
	case bare:
		return nil
	case c.Mode == ModeLink && isLink && c.Nameplate == "" && c.Code == "":
		return nil
	case c.Mode == ModeCode && isCode && c.Pid == nil && c.Admit == nil:
		if err := CheckNameplate(c.Nameplate); err != nil {
			return err
		}
		return c.Code.Check(CodeLetters)
	}
	return fmt.Errorf("%w: a claim has pid and admit, or nameplate and code", ErrForm)
}

// IsBare reports whether the claim admits to nothing.
func (c Claim) IsBare() bool { return c.Pid == nil && c.Nameplate == "" }

// Offer is message 3, desktop to surface. Pid tells a surface in code mode which session it is in.
type Offer struct {
	Pid     LinkID     `json:"pid"`
	BundleD wire.Bytes `json:"bundle"`
	NonceD  wire.Bytes `json:"nonce"`
	MAC     wire.Bytes `json:"mac,omitempty"` // link mode only
}

func (o Offer) check() error {
	if o.Pid.IsZero() || len(o.BundleD) == 0 || len(o.NonceD) != LinkNonceSize {
		return fmt.Errorf("%w: an offer needs pid, bundle and a nonce of 32 bytes", ErrForm)
	}
	return checkMAC(o.MAC)
}

func checkMAC(mac []byte) error {
	if len(mac) != 0 && len(mac) != sha256.Size {
		return fmt.Errorf("%w: a mac has 32 bytes", ErrForm)
	}
	return nil
}

// Reveal is message 4, surface to desktop.
type Reveal struct {
	Pid     LinkID     `json:"pid"`
	BundleS wire.Bytes `json:"bundle"`
	NonceS  wire.Bytes `json:"nonce"`
	Sig     wire.Bytes `json:"sig"`           // Ssig over "odp/link-T\0" ‖ T
	MAC     wire.Bytes `json:"mac,omitempty"` // link mode only
}

func (r Reveal) check() error {
	if r.Pid.IsZero() || len(r.BundleS) == 0 || len(r.NonceS) != LinkNonceSize || len(r.Sig) != signatureSize {
		return fmt.Errorf("%w: a reveal needs pid, bundle, a nonce of 32 bytes and a signature", ErrForm)
	}
	return checkMAC(r.MAC)
}

// GrantMsg is message 6, desktop to surface: the signed grant, sealed to Skem (enc ‖ ciphertext). The same signed
// grant goes to the broker in clear; it says nothing that the broker must not know.
type GrantMsg struct {
	Pid    LinkID     `json:"pid"`
	Sealed wire.Bytes `json:"sealed"`
}

func (g GrantMsg) check() error {
	if g.Pid.IsZero() || len(g.Sealed) == 0 {
		return fmt.Errorf("%w: a grant message needs pid and sealed", ErrForm)
	}
	return nil
}

// Finish is the last message, surface to broker to desktop: the surface took the grant. Without it before the
// session's end the desktop revokes what it granted; a surface that does not take the grant cancels instead.
type Finish struct {
	Pid LinkID     `json:"pid"`
	Sig wire.Bytes `json:"sig"` // Ssig over "odp/finish\0" ‖ lp(pid, SHA-256(T))
}

func (f Finish) input(transcript Digest) []byte {
	return Label(LabelFinished).Field(f.Pid[:]).Field(transcript[:]).Bytes()
}

// Sign fills Sig. transcript is SHA-256(T), as the grant has it.
func (f *Finish) Sign(ssig ed25519.PrivateKey, transcript Digest) {
	f.Sig = ed25519.Sign(ssig, f.input(transcript))
}

// Verify checks it; the broker can too, with the grant's Ssig and Transcript.
func (f Finish) Verify(ssig SigKey, transcript Digest) error {
	return ssig.Verify(f.input(transcript), f.Sig)
}

func (f Finish) check() error {
	if f.Pid.IsZero() || len(f.Sig) != signatureSize {
		return fmt.Errorf("%w: finish needs pid and a signature", ErrForm)
	}
	return nil
}

// Message is every linking message.
type Message interface {
	Open | Claim | Offer | Reveal | GrantMsg | Finish
	check() error
}

// ParseMessage reads one linking message strictly: at most MaxMessage bytes, no unknown field, nothing after it, and
// every field of the form that its type needs. Signatures and MACs are not looked at.
func ParseMessage[M Message](raw []byte) (M, error) {
	var m, none M
	if len(raw) > MaxMessage {
		return none, fmt.Errorf("%w: a linking message has at most %d bytes", ErrForm, MaxMessage)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return none, fmt.Errorf("%w: %s", ErrForm, "not the JSON of this message")
	}
	if dec.More() || dec.InputOffset() != int64(len(bytes.TrimRight(raw, " \t\r\n"))) {
		return none, fmt.Errorf("%w: bytes after the message", ErrForm)
	}
	if err := m.check(); err != nil {
		return none, err
	}
	return m, nil
}

// SameAdmit compares a claim's admit with the digest that the broker keeps, in constant time.
func SameAdmit(a Admit, want Digest) bool {
	got := a.Digest()
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// Ends returns when a session that was opened with this message ends, by the broker's clock: never later than
// LinkLife from now.
func (o Open) Ends(now time.Time) time.Time {
	end := now.Add(LinkLife)
	if said := time.UnixMilli(o.Expires); said.Before(end) {
		return said
	}
	return end
}
