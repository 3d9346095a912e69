package tunnel

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/yamux"
)

// Accept backlogs (ADR 0003).
const (
	brokerBacklog = 16
	agentBacklog  = 256
)

// muxConfig is the one place where yamux is set up; ADR 0003 says why.
func muxConfig(s side, log *slog.Logger) *yamux.Config {
	backlog := brokerBacklog
	if s == agentSide {
		backlog = agentBacklog
	}
	return &yamux.Config{
		AcceptBacklog:          backlog,
		EnableKeepAlive:        false,
		KeepAliveInterval:      keepaliveEvery, // unused, but it must not be 0
		ConnectionWriteTimeout: writeTime,
		MaxStreamWindowSize:    window,
		StreamOpenTimeout:      75 * time.Second,
		StreamCloseTimeout:     30 * time.Second,
		Logger:                 muxLogger{log},
	}
}

// muxLogger passes yamux's lines on. They are what a peer can provoke at will,
// so they are for debugging only; why a link ended is in Link.Err. Nothing is formatted
// for nobody: it would double the stack of each link's receive loop for good.
type muxLogger struct{ log *slog.Logger }

func (m muxLogger) Printf(format string, v ...any) {
	if m.log.Enabled(context.Background(), slog.LevelDebug) {
		m.line(fmt.Sprintf(format, v...))
	}
}

func (m muxLogger) Print(v ...any) {
	if m.log.Enabled(context.Background(), slog.LevelDebug) {
		m.line(fmt.Sprint(v...))
	}
}

func (m muxLogger) Println(v ...any) { m.Print(v...) }

func (m muxLogger) line(s string) {
	m.log.Debug("tunnel: yamux", "line", ascii(strings.TrimSpace(s), maxText))
}
