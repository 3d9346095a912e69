// Package httpapi is the broker's inbound HTTP: the API of surfaces and desktops, and the operator's on a unix socket.
// Handlers check form, limits and signatures, and leave every rule to pairing and mailbox; what leaves an error is a
// problem document. api/openapi.yaml states every exchange.
package httpapi

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/internal/topology"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
)

// ErrOffline is what Desktops.Call returns when the desktop has no tunnel here.
var ErrOffline = errors.New("the desktop is not connected")

// Desktops reaches connected desktops. All methods are safe for concurrent use.
type Desktops interface {
	// Call sends one frame on the desktop's control lane and fills reply (nil: not wanted). It returns ErrOffline
	// without a tunnel; any other error means that the desktop refused, or that it is not known whether it answered.
	Call(ctx context.Context, p proof.PairingID, frame string, body, reply any) error
	// Online says whether the desktop is connected here, and since when.
	Online(p proof.PairingID) (since time.Time, ok bool)
	// Ahead says how far the desktop's clock was ahead of ours at its last hello; 0 when it is not known.
	Ahead(p proof.PairingID) time.Duration
	// Cut ends the desktop's link with a reason token, within a second; it may be called without one.
	Cut(p proof.PairingID, reason string)
	// Unlock lets a desktop connect again that the tunnel itself had locked.
	Unlock(p proof.PairingID)
}

// Audit reads the audit log.
type Audit interface {
	// Lines returns at most limit lines with a seq above after, each exactly as stored, and the after of the next call.
	Lines(ctx context.Context, after uint64, limit int) (lines []json.RawMessage, next uint64, err error)
	// SubscribeLog returns hints that the log has grown, and what ends them.
	SubscribeLog() (hints <-chan struct{}, cancel func())
}

// Rows reads the mailbox's rows in one snapshot.
type Rows interface {
	View(ctx context.Context, fn func(mailbox.Reader) error) error
}

// Config is what a Server needs; every field but AllowedOrigins and TrustedProxies is required.
type Config struct {
	Enrolment *pairing.Enrolment
	Registry  *pairing.Registry
	Linking   *pairing.Linking
	Mailbox   *mailbox.Service
	Rows      Rows
	Waker     mailbox.Waker
	Desktops  Desktops
	Tunnel    http.Handler // the upgrade of desktops
	Feed      *Feed
	Limits    *limits.Limiter
	Audit     Audit

	Key            ed25519.PrivateKey // the broker's own
	PageOrigin     string
	AllowedOrigins []string
	TrustedProxies []netip.Prefix
	Version        string
	Now            func() time.Time
	Log            *slog.Logger
}

// Server answers both APIs. Close must be called at its end.
type Server struct {
	cfg    Config
	key    proof.SigKey
	limits *limits.Limiter
	log    *slog.Logger
	nonces *nonces
	bell   *bell
	kinds  map[proof.Kind]topology.Capability

	ctx  context.Context // of what goes on after an answer
	stop context.CancelFunc
	work sync.WaitGroup
}

// New makes a Server.
func New(cfg Config) *Server {
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		cfg: cfg, key: proof.SigKeyOf(cfg.Key), limits: cfg.Limits, log: cfg.Log,
		nonces: newNonces(), bell: newBell(), ctx: ctx, stop: stop,
	}
	s.kinds = topology.Dispatch(topology.DesktopLocal, topology.Sealed, func(c topology.Capability) (topology.Capability, bool) {
		return c, true // every row of the registry is a kind that may be posted
	})
	return s
}

// Close ends the streams and waits for what goes on after an answer. Closing twice is safe.
func (s *Server) Close() {
	s.cfg.Feed.EndAll(EndDrain)
	s.stop()
	s.work.Wait()
}

// after runs fn when the answer must not wait for it, with a deadline, until Close.
func (s *Server) after(limit time.Duration, fn func(ctx context.Context)) {
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, limit)
		defer cancel()
		fn(ctx)
	})
}

func (s *Server) now() time.Time { return s.cfg.Now() }
