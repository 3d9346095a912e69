package tunnel

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// headerVersion is the first byte of each header.
const headerVersion = 1

// headerSize is the size of the header of SPEC section 4, in bytes.
const headerSize = 20

// maxDeadline bounds the time a peer may ask for one request.
const maxDeadline = 10 * time.Minute

// firstRead is how much of a frame's body is allocated before it has come.
const firstRead = 64 << 10

// kind says what follows a header.
type kind uint8

const (
	kindRequest kind = 1 + iota
	kindReply
	kindError
	kindRaw
)

// header is SPEC section 4 in memory.
type header struct {
	class    Class
	kind     kind
	codeLen  uint8
	length   uint32
	id       uint64
	deadline uint32 // milliseconds
}

// put writes h over b, which must have room for headerSize bytes.
func (h header) put(b []byte) {
	_ = b[headerSize-1]
	b[0], b[1], b[2], b[3] = headerVersion, byte(h.class), byte(h.kind), h.codeLen
	binary.BigEndian.PutUint32(b[4:], h.length)
	binary.BigEndian.PutUint64(b[8:], h.id)
	binary.BigEndian.PutUint32(b[16:], h.deadline)
}

// Faults of a header; the peer is told the code (SPEC section 4).
var (
	errBadFrame = &CallError{Code: CodeBadFrame}
	errTooLarge = &CallError{Code: CodeTooLarge}
)

// parseHeader reads the headerSize bytes of b.
func parseHeader(b []byte) (header, error) {
	_ = b[headerSize-1]
	h := header{
		class: Class(b[1]), kind: kind(b[2]), codeLen: b[3],
		length:   binary.BigEndian.Uint32(b[4:]),
		id:       binary.BigEndian.Uint64(b[8:]),
		deadline: binary.BigEndian.Uint32(b[16:]),
	}
	if b[0] != headerVersion || !h.consistent() {
		return header{}, errBadFrame
	}
	if h.length > MaxFrame {
		return header{}, errTooLarge
	}
	return h, nil
}

// consistent holds the rules of SPEC section 4 on which fields a kind may set.
func (h header) consistent() bool {
	if h.kind != kindError && (h.codeLen != 0 || !h.class.valid()) {
		return false
	}
	if h.kind != kindRequest && h.deadline != 0 {
		return false
	}
	switch h.kind {
	case kindRequest:
		return h.id != 0 && h.deadline <= uint32(maxDeadline/time.Millisecond)
	case kindReply:
		return h.id != 0
	case kindRaw:
		return h.id == 0 && h.length == 0
	case kindError:
		code, body := uint32(h.codeLen), h.length
		ending := h.class == 0 && h.id == 0
		return code >= 1 && code <= maxCode && body >= code && body <= code+maxText &&
			(ending || h.class.valid())
	}
	return false
}

// wait is how long the receiver of a request may take for it.
func (h header) wait() time.Duration {
	if h.deadline == 0 {
		return callTime
	}
	return time.Duration(h.deadline) * time.Millisecond
}

// frame returns one buffer with a header and a body, so that a small frame is one write.
func frame(h header, body []byte) []byte {
	h.length = uint32(len(body))
	b := make([]byte, headerSize+len(body))
	h.put(b)
	copy(b[headerSize:], body)
	return b
}

// errorFrame is the frame for e; class and id are 0 in one that ends the stream.
func errorFrame(class Class, id uint64, e *CallError) []byte {
	code := e.Code
	if !codeToken(code) {
		code = CodeInternal
	}
	h := header{class: class, kind: kindError, codeLen: uint8(len(code)), id: id}
	return frame(h, []byte(code+ascii(e.Message, maxText)))
}

// parseError reads the body of an error frame.
func parseError(h header, body []byte) (*CallError, error) {
	e := &CallError{Code: string(body[:h.codeLen]), Message: string(body[h.codeLen:])}
	if !codeToken(e.Code) || ascii(e.Message, maxText) != e.Message {
		return nil, errBadFrame
	}
	return e, nil
}

// readBody reads n bytes, at most MaxFrame. What a peer only announces costs no memory.
func readBody(r io.Reader, n uint32) ([]byte, error) {
	b := make([]byte, 0, min(n, firstRead))
	for got := 0; got < int(n); got = len(b) {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(2*cap(b), int(n))), b...)
		}
		m, err := io.ReadFull(r, b[len(b):cap(b)])
		b = b[:len(b)+m]
		if err != nil {
			return nil, unexpected(err)
		}
	}
	return b, nil
}

// unexpected is for an end of file where there must be more.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
