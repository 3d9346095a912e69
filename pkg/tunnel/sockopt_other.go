//go:build !linux

package tunnel

import "net"

// tuneTCP sets keepalive on a TCP connection, and does nothing to another.
func tuneTCP(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		keepaliveTCP(t)
	}
}
