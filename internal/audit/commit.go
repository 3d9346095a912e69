package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// commitLabel separates these commitments from every other hash of the protocol.
const commitLabel = "odp/audit-value\x00"

const saltSize = 16

// Value is one row of the side table: what a line's commitment stands for. Erasing the row erases the value; the
// salt keeps a short value such as an address from being guessed out of the line.
type Value struct {
	Commitment string // as it stands in the line
	Field      string // label, ip or ua
	Salt       [saltSize]byte
	Text       string
}

// Holds says whether the commitment is to this value, in constant time.
func (v Value) Holds() bool {
	want := commitment(v.Field, v.Salt, v.Text)
	return subtle.ConstantTimeCompare([]byte(want), []byte(v.Commitment)) == 1
}

// commit records a value and returns what the line says instead; nothing for nothing.
func (e *Entry) commit(field, text string) string {
	if text == "" {
		return ""
	}
	v := Value{Field: field, Text: text}
	rand.Read(v.Salt[:]) // never fails
	v.Commitment = commitment(field, v.Salt, text)
	e.Values = append(e.Values, v)
	return v.Commitment
}

func commitment(field string, salt [saltSize]byte, text string) string {
	sum := sha256.Sum256(proof.Label(commitLabel).Text(field).Field(salt[:]).Text(text).Bytes())
	return wire.Bytes(sum[:]).String()
}
