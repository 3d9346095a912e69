package tunnel

import (
	"time"

	"github.com/hashicorp/yamux"
)

// What the tests of this package's outside need of its inside.

// NumStreams is how many streams yamux knows on the link.
func (l *Link) NumStreams() int { return l.sess.NumStreams() }

// RawStream opens a yamux stream past all rules, as a hostile peer would.
func (l *Link) RawStream() (*yamux.Stream, error) { return l.sess.OpenStream() }

// SetWall replaces the wall clock of wake detection.
func (c *RedialConfig) SetWall(f func() time.Time) { c.wall = f }

// Delay is how long a Redialer waits.
var Delay = delay

// Frame and ErrorFrame make frames for hostile peers.
func Frame(c Class, k uint8, id uint64, body []byte) []byte {
	return frame(header{class: c, kind: kind(k), id: id}, body)
}

// Ghost reports whether the peer owes an answer to a keepalive.
func (l *Link) Ghost() bool { return l.ghost() }

// ErrorFrame is how a stream is reset with a code.
func ErrorFrame(code string) []byte { return errorFrame(0, 0, &CallError{Code: code}) }
