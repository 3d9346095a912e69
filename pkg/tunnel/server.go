package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/time/rate"
)

// Defaults of a ServerConfig.
const (
	defaultAcceptRate  = 500
	defaultAcceptBurst = 1000
	defaultMaxStreams  = 4096
)

// admitTime bounds Authenticate and Admit together.
const admitTime = 10 * time.Second

// ServerConfig is what a broker tells its end of the tunnel.
type ServerConfig struct {
	// Authenticate says whose upgrade this is; required. It is called before the
	// upgrade; an *HTTPError of it is sent as it is.
	Authenticate func(*http.Request) (Peer, error)
	// Admit gives the fencing epoch of the new link; required. It is called once for
	// each link, before the upgrade, and must return a greater number each time for
	// a peer. An *HTTPError of it is sent as it is.
	Admit func(ctx context.Context, p Peer) (epoch uint64, err error)
	// OnLink has each new link that won its place, in a goroutine of its own. It
	// should call Serve, start what it must and return: a goroutine held here is
	// held by every link.
	OnLink func(*Link)
	// OnClose is called once for each link that OnLink was given, after it ended and OnLink
	// returned; Link.Err says why.
	OnClose func(*Link)
	// OnConflict is called once when a peer is locked (SPEC section 6), in a goroutine of its own.
	OnConflict func(Peer)
	// AcceptRate is upgrades a second for this node (0 = 500), AcceptBurst how many
	// at once (0 = 1000).
	AcceptRate  float64
	AcceptBurst int
	// MaxStreams caps the accepted streams of all links together (0 = 4096).
	MaxStreams int
	// Logger has what no caller sees; nil is slog.Default.
	Logger *slog.Logger
}

// Server is the broker's end: an http.Handler for the upgrade, and the registry
// of live links. All methods may be called concurrently.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	accepts *rate.Limiter
	mux     *yamux.Config
	budget  *budget
	wheel   wheel
	drain   atomic.Pointer[time.Duration] // set: draining

	mu     sync.Mutex
	links  map[string]*Link
	fights map[string]*fight
	locked map[string]bool
}

// NewServer makes a Server; it panics when Authenticate or Admit is missing.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Authenticate == nil || cfg.Admit == nil {
		panic("tunnel: a server needs Authenticate and Admit")
	}
	if cfg.AcceptRate <= 0 {
		cfg.AcceptRate = defaultAcceptRate
	}
	if cfg.AcceptBurst <= 0 {
		cfg.AcceptBurst = defaultAcceptBurst
	}
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = defaultMaxStreams
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Server{
		cfg: cfg, log: cfg.Logger,
		accepts: rate.NewLimiter(rate.Limit(cfg.AcceptRate), cfg.AcceptBurst),
		mux:     muxConfig(brokerSide, cfg.Logger),
		budget:  &budget{max: int64(cfg.MaxStreams)},
		links:   make(map[string]*Link),
		fights:  make(map[string]*fight),
		locked:  make(map[string]bool),
	}
}

// ServeHTTP does the upgrade (SPEC section 1) and returns after it: a handler
// that stayed would keep its stack for as long as the link.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	peer, epoch, err := s.admit(r)
	if err != nil {
		s.refusal(err).write(w)
		return
	}
	w.Header().Set(ProtocolHeader, Protocol)
	w.Header().Set(EpochHeader, strconv.FormatUint(epoch, 10))
	c, err := acceptWebSocket(w, r)
	if err != nil {
		s.log.Info("tunnel: an upgrade failed", "peer", peer.ID, "err", err)
		return
	}
	l, err := newLink(c, s.mux, linkConfig{
		side: brokerSide, peer: peer, epoch: epoch, log: s.log, budget: s.budget, onEnd: s.remove,
	})
	if err != nil {
		s.log.Error("tunnel: a link could not start", "peer", peer.ID, "err", err)
		return
	}
	s.place(l)
}

// admit says whose link this will be, or refuses with the first reason of SPEC section 1.
func (s *Server) admit(r *http.Request) (Peer, uint64, error) {
	if d := s.drain.Load(); d != nil {
		return Peer{}, 0, &HTTPError{Status: http.StatusServiceUnavailable, RetryAfter: max(*d, time.Second), Body: "draining"}
	}
	if err := checkUpgrade(r); err != nil {
		return Peer{}, 0, err
	}
	if wait := s.takeAccept(); wait > 0 {
		return Peer{}, 0, &HTTPError{Status: http.StatusTooManyRequests, RetryAfter: wait, Body: "accept_rate"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), admitTime)
	defer cancel()
	peer, err := s.cfg.Authenticate(r.WithContext(ctx))
	if err != nil {
		return Peer{}, 0, err
	}
	if s.isLocked(peer.ID) {
		return Peer{}, 0, errConflict
	}
	epoch, err := s.cfg.Admit(ctx, peer)
	return peer, epoch, err
}

var errConflict = &HTTPError{Status: http.StatusForbidden, Body: ReasonConflict}

// checkUpgrade refuses what could not become a tunnel, before anything is spent on it.
func checkUpgrade(r *http.Request) error {
	if r.ProtoMajor != 1 {
		return &HTTPError{Status: http.StatusHTTPVersionNotSupported, Body: "http_version"}
	}
	if !hasToken(r.Header, "Connection", "upgrade") || !hasToken(r.Header, "Upgrade", "websocket") ||
		!hasToken(r.Header, "Sec-WebSocket-Protocol", Protocol) && !hasToken(r.Header, ProtocolHeader, Protocol) {
		return &HTTPError{Status: http.StatusUpgradeRequired, Body: "upgrade_required"}
	}
	return nil
}

// hasToken looks for want in a comma-separated header, without regard to case.
func hasToken(h http.Header, key, want string) bool {
	for _, v := range h.Values(key) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), want) {
				return true
			}
		}
	}
	return false
}

// takeAccept takes from the accept bucket; when that is empty it says how long it
// will be so.
func (s *Server) takeAccept() time.Duration {
	r := s.accepts.Reserve()
	d := r.Delay()
	if d > 0 {
		r.Cancel()
		return max(d, time.Second)
	}
	return 0
}

// refusal is what the agent is told about err; what only the operator may know is logged.
func (s *Server) refusal(err error) *HTTPError {
	var he *HTTPError
	if errors.As(err, &he) {
		return he
	}
	s.log.Warn("tunnel: admission failed", "err", err)
	return &HTTPError{Status: http.StatusServiceUnavailable, RetryAfter: 5 * time.Second, Body: "try_again"}
}
