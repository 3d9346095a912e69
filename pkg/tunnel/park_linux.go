package tunnel

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// parker waits for a TCP connection to have something to read. An idle link's receive
// loop waits here instead of deep inside the WebSocket library: the garbage
// collector gives back most of the stack of a goroutine that waits near its top,
// and never that of one that waits deep down (ADR 0003: 8 to 16 KiB a link).
type parker struct {
	raw  syscall.RawConn
	peek [1]byte
}

// newParker returns nil for what is not plain TCP: TLS may have bytes that the socket has not.
func newParker(c net.Conn) *parker {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	return &parker{raw: raw}
}

// wait returns when a read would not block, whatever it would return.
func (p *parker) wait() { _ = p.raw.Read(p.readable) }

func (p *parker) readable(fd uintptr) bool {
	_, _, err := unix.Recvfrom(int(fd), p.peek[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err != unix.EAGAIN && err != unix.EINTR
}
