package proof

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
)

// signatureSize ends every signed encoding.
const signatureSize = ed25519.SignatureSize

// statement appends to body the signature over label ‖ body.
func statement(label string, body []byte, key ed25519.PrivateKey) []byte {
	sig := ed25519.Sign(key, Label(label).Raw(body).Bytes())
	return append(append(make([]byte, 0, len(body)+signatureSize), body...), sig...)
}

// openStatement returns the body of a statement that key signed.
func openStatement(label string, signed []byte, key SigKey) ([]byte, error) {
	if len(signed) < signatureSize {
		return nil, fmt.Errorf("%w: too short for a signature", ErrForm)
	}
	body, sig := signed[:len(signed)-signatureSize], signed[len(signed)-signatureSize:]
	if err := key.Verify(Label(label).Raw(body).Bytes(), sig); err != nil {
		return nil, err
	}
	return body, nil
}

// A sealed statement is lp(header) ‖ lp(sealed) ‖ signature over label ‖ lp(header) ‖ lp(SHA-256(sealed)). The header
// is also the aad of the sealed bytes, so it cannot be moved to other ones.
func sealedStatement(label string, header, sealed []byte, key ed25519.PrivateKey) []byte {
	var e Encoder
	e.buf = make([]byte, 0, 2*prefix+len(header)+len(sealed)+signatureSize)
	e.Field(header).Field(sealed)
	return append(e.buf, ed25519.Sign(key, sealedInput(label, header, sealed))...)
}

func sealedInput(label string, header, sealed []byte) []byte {
	sum := sha256.Sum256(sealed)
	return Label(label).Field(header).Field(sum[:]).Bytes()
}

// maxHeader bounds the header of a sealed statement.
const maxHeader = 1 << 10

// splitSealed takes a sealed statement apart without verifying it.
func splitSealed(signed []byte, maxSealed int) (header, sealed, sig []byte, err error) {
	d := NewDecoder(signed)
	header, sealed, sig = d.Field(maxHeader), d.Field(maxSealed), d.Raw(signatureSize)
	return header, sealed, sig, d.Done()
}
