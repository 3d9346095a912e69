package tunnel

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// ServerConfig is what a broker tells its end of the tunnel.
type ServerConfig struct {
	// Authenticate says whose upgrade this is; required. It is called before the
	// upgrade; an *HTTPError is sent as it is.
	Authenticate func(*http.Request) (Peer, error)
	// Admit gives the fencing epoch of the new link; required. It is called once for
	// each link, before the upgrade, and must return a greater number each time for a peer.
	Admit func(ctx context.Context, p Peer) (epoch uint64, err error)
	// OnLink has each new link that won its place, in a goroutine of its own. It should call Serve,
	// start what it must and return: a goroutine held here is held by each link.
	OnLink func(*Link)
	// OnClose is called once for each link that OnLink had, after it ended; see [Link.Err].
	OnClose func(*Link)
	// OnConflict is called once when a peer is locked (SPEC section 6).
	OnConflict func(Peer)
	// AcceptRate is upgrades a second for this node (0 = 500), AcceptBurst how many at once (0 = 1000).
	AcceptRate  float64
	AcceptBurst int
	// MaxStreams caps the accepted streams of all links together (0 = 4096).
	MaxStreams int
	Logger     *slog.Logger // nil: slog.Default
}

// Server is the broker's end: an http.Handler for the upgrade and the registry
// of live links. All methods may be called concurrently.
type Server struct{ cfg ServerConfig }

// NewServer makes a Server; it panics when Authenticate or Admit is missing.
func NewServer(cfg ServerConfig) *Server { return &Server{cfg: cfg} }

// ServeHTTP does the upgrade (SPEC section 1) and returns after it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {}

// Link returns the live link of a peer.
func (s *Server) Link(peerID string) (*Link, bool) { return nil, false }

// Links returns the live links, in no order; Count how many there are.
func (s *Server) Links() []*Link { return nil }

// Count is the number of live links.
func (s *Server) Count() int { return 0 }

// Disconnect ends a peer's link within a second, with a reason token; false when it had none.
// From its return on the link takes and gives nothing.
func (s *Server) Disconnect(peerID, reason string) bool { return false }

// Lock refuses the peer's upgrades (403 identity_conflict) and ends its link; Unlock undoes it.
func (s *Server) Lock(peerID string) {}

// Unlock lets a locked peer connect again; false when it was not locked.
func (s *Server) Unlock(peerID string) bool { return false }

// Drain refuses new upgrades, waits for open streams until ctx ends, and closes each link,
// telling its agent not to come back sooner than comeBackIn (SPEC section 7). It returns when all links are closed.
func (s *Server) Drain(ctx context.Context, comeBackIn time.Duration) error { return nil }

// DialConfig says how an agent reaches its broker.
type DialConfig struct {
	URL string // ws:// or wss://
	// Header is called before each dial, for a fresh signed nonce; its result is sent with the upgrade.
	Header func(ctx context.Context) (http.Header, error)
	TLS    *tls.Config // base, may be nil; ALPN is always http/1.1
	// ExtraCA is PEM, trusted beside the system's roots.
	ExtraCA []byte
	// Pins, when not empty, are accepted keys: base64 SHA-256 of a SubjectPublicKeyInfo in the verified chain.
	Pins []string
	// Proxy is "" for the environment's, "direct" for none, or an http, https, socks5 or socks5h URL.
	Proxy string
	// DialContext replaces the dialler of TCP connections (tests).
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	Logger      *slog.Logger // nil: slog.Default
}

// Dial makes one link. A refusal is an *HTTPError.
func Dial(ctx context.Context, cfg DialConfig) (*Link, error) { return nil, ErrClosed }

// Link is one live tunnel, at either end. All methods may be called concurrently.
type Link struct{}

// Peer is who is at the other end.
func (l *Link) Peer() Peer { return Peer{} }

// Epoch is the fencing epoch that Admit gave.
func (l *Link) Epoch() uint64 { return 0 }

// Since is when the link came up.
func (l *Link) Since() time.Time { return time.Time{} }

// Done is closed when the link has ended.
func (l *Link) Done() <-chan struct{} { return nil }

// Err is nil while the link lives, then why it ended; a *CloseError when on purpose.
func (l *Link) Err() error { return nil }

// Close ends the link with a reason token; it returns within a second.
func (l *Link) Close(reason string) {}

// Ping measures one round trip.
func (l *Link) Ping(ctx context.Context) (time.Duration, error) { return 0, ErrClosed }

// Call sends req on the lane of class and waits for its reply (SPEC section 5).
func (l *Link) Call(ctx context.Context, class Class, req []byte) ([]byte, error) {
	return nil, ErrClosed
}

// Serve answers the lanes that the peer opens with h, from now on; it does not block.
// Call it once, at once: streams that come before it wait 5 s.
func (l *Link) Serve(h Handler) {}

// ServeStreams gives the raw streams that the peer opens to h. Call it before Serve.
func (l *Link) ServeStreams(h StreamHandler) {}

// Open opens a raw stream.
func (l *Link) Open(ctx context.Context, class Class) (*Stream, error) { return nil, ErrClosed }

// Stream is one raw stream, a net.Conn.
type Stream struct{ net.Conn }

// Class is the class the stream was opened with.
func (s *Stream) Class() Class { return 0 }

// CloseWrite says that no more will be written; reads go on for at most 30 s.
func (s *Stream) CloseWrite() error { return nil }

// RedialConfig is what a Redialer keeps up.
type RedialConfig struct {
	Dial DialConfig
	// OnLink has each new link, in a goroutine of its own, which must end soon after the link does.
	OnLink func(*Link)
	// OnState, if set, is called after each change, one call at a time.
	OnState func(State)
	// GiveUp, if set, says that after this error only RetryNow dials again; `replaced` always does.
	GiveUp func(error) bool
}

// Redialer keeps one link to a broker up (SPEC section 8).
type Redialer struct{}

// NewRedialer makes a Redialer; Run starts it.
func NewRedialer(cfg RedialConfig) *Redialer { return &Redialer{} }

// Run dials, and dials again, until ctx ends; it closes the link and returns nil then. Call it once.
func (r *Redialer) Run(ctx context.Context) error { return nil }

// RetryNow dials at once when waiting or off, and probes the live link with a 2 s deadline otherwise.
func (r *Redialer) RetryNow() {}

// Link is the live link, or nil.
func (r *Redialer) Link() *Link { return nil }

// State is what a status page shows.
func (r *Redialer) State() State { return State{} }

// Phase is what a Redialer does.
type Phase uint8

// The phases.
const (
	Stopped   Phase = iota // Run has not begun or has ended
	Dialing                // an upgrade is under way
	Connected              // Link is live
	Waiting                // for NextTry
	Off                    // until RetryNow
)

// State is a snapshot of a Redialer.
type State struct {
	Phase    Phase
	Since    time.Time     // when the phase began
	LastErr  error         // of the last dial or link; nil after a link lived 30 s
	NextTry  time.Time     // with Waiting
	Attempts int           // dials since a link last lived 30 s
	RTT      time.Duration // with Connected, measured at its start; 0 until then
}
