package wire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Bytes is binary data that travels in JSON as base64url without padding (RFC 4648 section 5). Decoding is
// strict: padding, whitespace, the standard alphabet and non-canonical trailing bits are refused, so that one
// value has one text.
type Bytes []byte

var strict = base64.RawURLEncoding.Strict()

// String returns the base64url text.
func (b Bytes) String() string { return strict.EncodeToString(b) }

// MarshalJSON implements json.Marshaler.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(b.String()) }

// UnmarshalJSON implements json.Unmarshaler with the strictness described at Bytes.
func (b *Bytes) UnmarshalJSON(in []byte) error {
	var s string
	if err := json.Unmarshal(in, &s); err != nil {
		return fmt.Errorf("not a base64url string")
	}
	out, err := ParseBytes(s)
	if err != nil {
		return err
	}
	*b = out
	return nil
}

// ParseBytes decodes base64url text as strictly as Bytes does.
func ParseBytes(s string) (Bytes, error) {
	out, err := strict.DecodeString(s)
	if err != nil || strict.EncodeToString(out) != s { // the decoder skips line breaks; a round trip does not
		return nil, fmt.Errorf("not canonical base64url")
	}
	return out, nil
}
