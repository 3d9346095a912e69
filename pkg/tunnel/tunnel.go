// Package tunnel carries everything between an agent and its broker over one
// WebSocket with one yamux session in it, dialled by the agent.
//
// The protocol is written down in SPEC.md, and this code follows it. The
// package knows nothing of pairings: a broker tells it by [ServerConfig] who a
// request is, and an agent signs its own upgrade in [DialConfig].
package tunnel

import (
	"context"
	"time"
)

// Protocol is the name and version of the protocol. It is offered as the
// WebSocket subprotocol and repeated in [ProtocolHeader] (SPEC section 1).
const Protocol = "odp-tunnel.v1"

// Headers of the upgrade (SPEC section 1).
const (
	ProtocolHeader = "Odp-Tunnel-Protocol" // both ways: repeats Protocol
	EpochHeader    = "Odp-Tunnel-Epoch"    // broker to agent: the fencing epoch, decimal
)

// Limits (SPEC section 9).
const (
	// MaxFrame is the largest request or reply of a lane, in bytes.
	MaxFrame = 2 << 20
	// MaxInFlight is how many requests may wait for their reply on one lane.
	MaxInFlight = 64
	// MaxAgentStreams is how many streams a broker takes from one agent at once.
	MaxAgentStreams = 4
	// MaxBrokerStreams is how many streams an agent takes from its broker at once.
	MaxBrokerStreams = 256
)

const (
	maxMessage    = 64 << 10 // WebSocket read limit, bytes
	window        = 1 << 20  // yamux window of a stream, bytes
	maxLingering  = 64       // reset streams that the peer has not closed yet
	maxLingerData = 4 << 20  // bytes thrown away on one reset stream
	bulkInFlight  = 2        // pieces of bulk streams in the send queue of a link
	wsHeaderSize  = 4        // WebSocket header of a message of a piece, unmasked
	muxHeaderSize = 12       // yamux frame header

	// What a stream writes at once. yamux keeps a buffer of the largest for as long as the
	// link lives, so what goes over links that are mostly idle is cut smaller.
	interactivePiece = 4<<10 - wsHeaderSize - muxHeaderSize
	bulkPiece        = 16<<10 - wsHeaderSize - muxHeaderSize
)

// Times (SPEC sections 5, 7, 8 and 9).
const (
	laneQuiet      = 5 * time.Second  // an idle lane is closed by its opener
	replyGrace     = 5 * time.Second  // a reply may be this late before its lane ends
	callTime       = 60 * time.Second // deadline of a call whose context has none
	headerTime     = 10 * time.Second // for the first header of an accepted stream
	laneSilence    = 30 * time.Second // for the next frame, or the next byte of one
	frameTime      = 10 * time.Minute // for a whole frame's body
	streamIdle     = 10 * time.Minute // read deadline of a raw stream
	writeTime      = 30 * time.Second // any one yamux write; fatal to the link
	closeGrace     = 500 * time.Millisecond
	keepaliveEvery = 20 * time.Second
	serveWait      = 5 * time.Second // how long early streams wait for Serve
)

// Class says what a stream carries, who may open it and how it is queued
// (SPEC section 3).
type Class uint8

// The classes (SPEC section 3).
const (
	Control Class = 1 + iota // hello, linking messages, revocation, results; opened by both
	Events                   // event batches; opened by the agent; bulk
	Command                  // commands, one ordered lane a link; opened by the broker
	Service                  // raw bytes to an allowed local address; opened by the broker; bulk
)

const numClasses = int(Service) + 1

func (c Class) String() string {
	switch c {
	case Control:
		return "control"
	case Events:
		return "events"
	case Command:
		return "command"
	case Service:
		return "service"
	}
	return "unknown"
}

func (c Class) valid() bool { return c >= Control && c <= Service }

// bulk classes wait for one another, so that interactive ones need not wait for them.
func (c Class) bulk() bool { return c == Events || c == Service }

// side is which end of a link this process is.
type side uint8

const (
	brokerSide side = iota
	agentSide
)

func (s side) other() side { return 1 - s }

// mayOpen is the table of SPEC section 3.
func (s side) mayOpen(c Class) bool {
	switch c {
	case Control:
		return true
	case Events:
		return s == agentSide
	case Command, Service:
		return s == brokerSide
	}
	return false
}

// maxAccepted is how many streams this side takes from its peer at once.
func (s side) maxAccepted() int {
	if s == brokerSide {
		return MaxAgentStreams
	}
	return MaxBrokerStreams
}

// Peer is who is at the other end: at the broker the identity that
// Authenticate found, at the agent the host of its broker.
type Peer struct{ ID string }

// Handler answers one request of a lane that the peer opened. Requests of one
// class are handled one after another, classes concurrently. ctx ends with the
// request's deadline and with the link. req belongs to the handler. A
// *[CallError] goes to the peer as it is; any other error is logged here and
// the peer sees only the code "internal".
type Handler func(ctx context.Context, class Class, req []byte) ([]byte, error)

// StreamHandler owns one raw stream that the peer opened, and must close it;
// it runs in its own goroutine. ctx ends with the link.
type StreamHandler func(ctx context.Context, s *Stream)
