//go:build !linux

package tunnel

import "net"

// parker saves stack on Linux only.
type parker struct{}

func newParker(net.Conn) *parker { return nil }

func (*parker) wait() {}
