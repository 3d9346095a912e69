package proof

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// Bounds of signing in (section 2).
const (
	NonceSize = 32               // bytes the broker gives out
	NonceLife = 60 * time.Second // each is used once
	TokenLife = 15 * time.Minute // what a surface gets for a signature
)

// SignTunnel opens the tunnel: Ed25519(Dsig, "odp/tunnel\0" ‖ lp(broker's key, nonce, host)). host is the host[:port]
// that the desktop dialled, so that one broker cannot relay to another.
func SignTunnel(dsig ed25519.PrivateKey, broker SigKey, nonce []byte, host string) []byte {
	return ed25519.Sign(dsig, tunnelInput(broker, nonce, host))
}

// VerifyTunnel checks it at the broker. That the nonce is live and unused is the caller's to know.
func VerifyTunnel(dsig, broker SigKey, nonce []byte, host string, sig []byte) error {
	return dsig.Verify(tunnelInput(broker, nonce, host), sig)
}

func tunnelInput(broker SigKey, nonce []byte, host string) []byte {
	return Label(LabelTunnel).Field(broker[:]).Field(nonce).Text(host).Bytes()
}

// SurfaceAuth is what a surface signs for a token: "odp/auth\0" ‖ lp(origin, broker's key, pairing, surface, nonce,
// time).
type SurfaceAuth struct {
	Origin  string // of the broker, as Origin gives it
	Broker  SigKey
	Pairing PairingID
	Surface SurfaceID
	Nonce   []byte
	Time    int64 // Unix ms
}

func (a SurfaceAuth) input() []byte {
	e := Label(LabelAuth).Text(a.Origin).Field(a.Broker[:]).Field(a.Pairing[:]).Field(a.Surface[:])
	return e.Field(a.Nonce).Time(a.Time).Bytes()
}

// Sign returns the signature.
func (a SurfaceAuth) Sign(ssig ed25519.PrivateKey) []byte { return ed25519.Sign(ssig, a.input()) }

// Verify checks it.
func (a SurfaceAuth) Verify(ssig SigKey, sig []byte) error { return ssig.Verify(a.input(), sig) }

// Token is a surface's session at the broker, signed by the broker's own key. Revocation is looked up at each use.
type Token struct {
	Pairing PairingID
	Surface SurfaceID
	Expires int64 // Unix ms, broker's clock
}

// Sign returns the token's text.
func (t Token) Sign(broker ed25519.PrivateKey) string {
	var e Encoder
	e.Field(t.Pairing[:]).Field(t.Surface[:]).Time(t.Expires)
	return wire.Bytes(statement(LabelToken, e.Bytes(), broker)).String()
}

// maxToken is the length of a token's text.
const maxToken = (3*prefix+16+16+8+signatureSize)*4/3 + 1

// OpenToken verifies a token's text at now by the broker's clock.
func OpenToken(broker SigKey, text string, now time.Time) (Token, error) {
	var t Token
	if len(text) > maxToken {
		return t, fmt.Errorf("%w: too long for a token", ErrForm)
	}
	signed, err := wire.ParseBytes(text)
	if err != nil {
		return t, fmt.Errorf("%w: %w", ErrForm, err)
	}
	body, err := openStatement(LabelToken, signed, broker)
	if err != nil {
		return t, err
	}
	d := NewDecoder(body)
	d.Fill(t.Pairing[:])
	d.Fill(t.Surface[:])
	t.Expires = d.Time()
	if err := d.Done(); err != nil {
		return Token{}, err
	}
	if now.UnixMilli() >= t.Expires {
		return Token{}, fmt.Errorf("%w: the token has ended", ErrRefused)
	}
	return t, nil
}

// Hello is what a desktop signs when a link opens: its clock and its journal's state, to this broker.
type Hello struct {
	Broker    SigKey
	Time      int64 // Unix ms, desktop's clock
	JournalID []byte
	Counter   uint64
	HighWater uint64
}

func (h Hello) input() []byte {
	return Label(LabelHello).Field(h.Broker[:]).Time(h.Time).Field(h.JournalID).Uint(h.Counter).Uint(h.HighWater).Bytes()
}

// Sign returns the signature.
func (h Hello) Sign(dsig ed25519.PrivateKey) []byte { return ed25519.Sign(dsig, h.input()) }

// Verify checks it.
func (h Hello) Verify(dsig SigKey, sig []byte) error { return dsig.Verify(h.input(), sig) }

// Redeem is what a desktop signs when it enrols: everything that it sends, and the broker's key, which it has held
// against the code's text before it sends the code.
type Redeem struct {
	Broker   SigKey
	Code     Letters // without separators
	Dsig     SigKey
	Bundle   []byte // signed
	Host     string // host name, CheckLabel
	Versions Versions
	Executor string
}

func (r Redeem) input() []byte {
	e := Label(LabelRedeem).Field(r.Broker[:]).Text(string(r.Code)).Field(r.Dsig[:]).Field(r.Bundle)
	return e.Text(r.Host).Field(r.Versions).Text(r.Executor).Bytes()
}

// Sign returns the proof.
func (r Redeem) Sign(dsig ed25519.PrivateKey) []byte { return ed25519.Sign(dsig, r.input()) }

// Verify checks proof, the bundle under Dsig, the host name and the key.
func (r Redeem) Verify(sig []byte) error {
	if err := r.Dsig.Check(); err != nil {
		return err
	}
	if err := CheckLabel(r.Host); err != nil {
		return err
	}
	if _, err := OpenBundle(r.Dsig, r.Bundle); err != nil {
		return err
	}
	if !token(r.Executor) || len(r.Executor) > MaxLabel || len(r.Versions) == 0 || len(r.Versions) > MaxVersions {
		return fmt.Errorf("%w: redeem needs an executor and versions", ErrForm)
	}
	return r.Dsig.Verify(r.input(), sig)
}

// Digest names the request: the same bytes within a code's life get the same answer.
func (r Redeem) Digest() Digest { return sha256.Sum256(r.input()) }

// Revocation ends a surface, or the pairing when Surface is zero. Who signs is who revokes: the desktop with Dsig, a
// surface with Ssig.
type Revocation struct {
	Pairing PairingID
	Surface SurfaceID
	Time    int64 // Unix ms, by the clock of who revokes
}

func (r Revocation) input() []byte {
	return Label(LabelRevoke).Field(r.Pairing[:]).Field(r.Surface[:]).Time(r.Time).Bytes()
}

// Sign returns the proof.
func (r Revocation) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, r.input()) }

// Verify checks it under the key of who is said to have revoked.
func (r Revocation) Verify(key SigKey, sig []byte) error { return key.Verify(r.input(), sig) }
