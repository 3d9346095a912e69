package tunnel

import (
	"net"
	"time"
)

// keepaliveTCP finds a dead peer after 15 + 3 × 5 s of silence.
func keepaliveTCP(t *net.TCPConn) {
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	})
}
