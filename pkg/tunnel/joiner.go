package tunnel

import (
	"encoding/binary"
	"io"
	"sync"
)

// pieces holds buffers for one joined frame each, so that an idle link holds none.
var pieces = sync.Pool{New: func() any { b := make([]byte, 0, muxHeaderSize+bulkPiece); return &b }}

// joiner makes one write, and so one WebSocket message, of a yamux data header
// and the body that yamux's send loop writes next. Only that loop writes, so it needs no lock.
type joiner struct {
	io.ReadWriteCloser
	head [muxHeaderSize]byte
	held bool
}

func (j *joiner) Write(p []byte) (int, error) {
	if !j.held && isDataHeader(p) {
		copy(j.head[:], p)
		j.held = true
		return len(p), nil
	}
	if !j.held {
		return j.ReadWriteCloser.Write(p)
	}
	j.held = false
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	*buf = append(append((*buf)[:0], j.head[:]...), p...)
	if _, err := j.ReadWriteCloser.Write(*buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

// isDataHeader reports whether p is a yamux header that a body follows: type 0, length not 0.
func isDataHeader(p []byte) bool {
	return len(p) == muxHeaderSize && p[1] == 0 && binary.BigEndian.Uint32(p[8:]) > 0
}
