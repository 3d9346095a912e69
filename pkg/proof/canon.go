package proof

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors of this package. A decoder wraps ErrForm, a verifier ErrSignature or ErrRefused; compare with errors.Is.
var (
	// ErrForm: the bytes are not the one canonical encoding of a value.
	ErrForm = errors.New("not in canonical form")
	// ErrSignature: the signature is not by the expected key over these bytes.
	ErrSignature = errors.New("signature does not verify")
	// ErrRefused: well formed and signed, and yet against a rule; the text names it.
	ErrRefused = errors.New("refused")
)

// MaxNumber is the largest number in an encoding: 2^53-1, which a page can hold exactly.
const MaxNumber = 1<<53 - 1

// prefix is the size of a field's length.
const prefix = 4

// Encoder builds a canonical encoding. The zero value is empty and ready.
type Encoder struct{ buf []byte }

// Label starts an encoding with a label.
func Label(label string) *Encoder { return &Encoder{buf: append(make([]byte, 0, 256), label...)} }

// Raw appends bytes of a fixed, known length without a prefix.
func (e *Encoder) Raw(b []byte) *Encoder {
	e.buf = append(e.buf, b...)
	return e
}

// Field appends one length-prefixed field.
func (e *Encoder) Field(b []byte) *Encoder {
	e.buf = binary.BigEndian.AppendUint32(e.buf, uint32(len(b)))
	e.buf = append(e.buf, b...)
	return e
}

// Text appends a string as a field.
func (e *Encoder) Text(s string) *Encoder { return e.Field([]byte(s)) }

// Byte appends one byte as a field.
func (e *Encoder) Byte(b byte) *Encoder { return e.Field([]byte{b}) }

// Uint appends a number as a field of eight bytes.
func (e *Encoder) Uint(n uint64) *Encoder { return e.Field(binary.BigEndian.AppendUint64(nil, n)) }

// Time appends Unix milliseconds as a number. A negative time becomes a number that no decoder takes.
func (e *Encoder) Time(ms int64) *Encoder { return e.Uint(uint64(ms)) }

// Bytes returns what was encoded.
func (e *Encoder) Bytes() []byte { return e.buf }

// Decoder reads a canonical encoding strictly. The first fault stays and is returned by Done; until then the
// methods return zero values. Returned slices alias the input.
type Decoder struct {
	rest []byte
	err  error
}

// NewDecoder reads b.
func NewDecoder(b []byte) *Decoder { return &Decoder{rest: b} }

func (d *Decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrForm}, args...)...)
	}
}

// Field reads one field of at most limit bytes.
func (d *Decoder) Field(limit int) []byte {
	if d.err != nil {
		return nil
	}
	if len(d.rest) < prefix {
		d.fail("a field is missing")
		return nil
	}
	n := int64(binary.BigEndian.Uint32(d.rest))
	if n > int64(limit) {
		d.fail("a field of %d bytes, at most %d", n, limit)
		return nil
	}
	if int64(len(d.rest)-prefix) < n {
		d.fail("a field is cut off")
		return nil
	}
	field := d.rest[prefix : prefix+n : prefix+n]
	d.rest = d.rest[prefix+n:]
	return field
}

// Fill reads a field of exactly len(dst) bytes into dst.
func (d *Decoder) Fill(dst []byte) {
	field := d.Field(len(dst))
	if d.err == nil && len(field) != len(dst) {
		d.fail("a field of %d bytes, want %d", len(field), len(dst))
	}
	copy(dst, field)
}

// Text reads a field as a string of at most limit bytes.
func (d *Decoder) Text(limit int) string { return string(d.Field(limit)) }

// Byte reads a field of one byte.
func (d *Decoder) Byte() byte {
	var b [1]byte
	d.Fill(b[:])
	return b[0]
}

// Uint reads a number of at most MaxNumber.
func (d *Decoder) Uint() uint64 {
	var b [8]byte
	d.Fill(b[:])
	n := binary.BigEndian.Uint64(b[:])
	if n > MaxNumber {
		d.fail("a number above 2^53-1")
		return 0
	}
	return n
}

// Time reads Unix milliseconds.
func (d *Decoder) Time() int64 { return int64(d.Uint()) }

// Raw reads exactly n bytes without a prefix.
func (d *Decoder) Raw(n int) []byte {
	if d.err != nil {
		return nil
	}
	if len(d.rest) < n {
		d.fail("%d bytes are missing", n-len(d.rest))
		return nil
	}
	raw := d.rest[:n:n]
	d.rest = d.rest[n:]
	return raw
}

// Done returns the first fault, or one for trailing bytes.
func (d *Decoder) Done() error {
	if d.err == nil && len(d.rest) != 0 {
		d.fail("%d trailing bytes", len(d.rest))
	}
	return d.err
}

// check records a rule that decoded values broke.
func (d *Decoder) check(ok bool, what string) {
	if d.err == nil && !ok {
		d.fail("%s", what)
	}
}
