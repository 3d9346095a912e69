package tunneltest

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
)

// unitMax is the largest WebSocket message that is kept whole.
const unitMax = 128 << 10

// units cuts one direction of a connection into its HTTP head and then whole
// WebSocket messages. A wire delays only between units: yamux holds a mutex while it waits for
// the rest of a frame, and time in a bubble stands still while a goroutine waits for a mutex.
type units struct {
	r    *bufio.Reader
	head bool // read
	raw  bool // not WebSocket: anything is a unit
}

func newUnits(c net.Conn) *units { return &units{r: bufio.NewReaderSize(c, unitMax)} }

// next returns one unit, and those behind it that came in the same write.
func (u *units) next() ([]byte, error) {
	unit, err := u.one()
	for err == nil && u.buffered() {
		var more []byte
		if more, err = u.one(); err == nil {
			unit = append(unit, more...)
		}
	}
	return unit, err
}

func (u *units) one() ([]byte, error) {
	switch {
	case !u.head:
		return u.readHead()
	case u.raw:
		return u.take(0)
	}
	n, err := u.size()
	if err != nil {
		return nil, err
	}
	if n > unitMax {
		u.raw = true
		return u.take(0)
	}
	return u.take(n)
}

// readHead reads up to the empty line. An answer that is no upgrade has no messages behind it.
func (u *units) readHead() ([]byte, error) {
	var head strings.Builder
	for first := true; ; first = false {
		line, err := u.r.ReadString('\n')
		head.WriteString(line)
		if err != nil {
			return nil, err
		}
		if first && strings.HasPrefix(line, "HTTP/") && !strings.Contains(line, " 101 ") {
			u.raw = true
		}
		if strings.TrimSpace(line) == "" {
			u.head = true
			return []byte(head.String()), nil
		}
	}
}

// size is the size of the message that comes, header included.
func (u *units) size() (int, error) {
	h, err := u.r.Peek(2)
	if err != nil {
		return 0, err
	}
	n, ext := int(h[1]&0x7f), 2
	switch n {
	case 126:
		ext = 4
	case 127:
		ext = 10
	}
	if h, err = u.r.Peek(ext); err != nil {
		return 0, err
	}
	switch n {
	case 126:
		n = int(binary.BigEndian.Uint16(h[2:]))
	case 127:
		n = int(min(binary.BigEndian.Uint64(h[2:]), 2*unitMax))
	}
	if h[1]&0x80 != 0 {
		ext += 4
	}
	return ext + n, nil
}

// take returns n bytes, or with 0 whatever there is.
func (u *units) take(n int) ([]byte, error) {
	if n == 0 {
		if _, err := u.r.Peek(1); err != nil {
			return nil, err
		}
		n = u.r.Buffered()
	}
	b := make([]byte, n)
	_, err := io.ReadFull(u.r, b)
	return b, err
}

// buffered reports whether the next unit is here already.
func (u *units) buffered() bool {
	if !u.head || u.r.Buffered() < 14 {
		return false
	}
	if u.raw {
		return true
	}
	n, err := u.size()
	return err == nil && n <= u.r.Buffered()
}
