package tunnel

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout is how long sent bytes may stay unacknowledged: without it the
// kernel tries for fifteen minutes. It bounds keepalive probes too, so it must be
// just below the 15 + 3 × 5 s of those: with 20 s a single lost probe ends an idle
// connection, which cost 2 % of 5,000 links a minute on loopback (ADR 0003).
const userTimeout = 28 * time.Second

// tuneTCP sets keepalive and the user timeout on a TCP connection, and does
// nothing to another.
func tuneTCP(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	keepaliveTCP(t)
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
	})
}
