package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/internal/redact"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// Where the two halves of the agent meet. The core (link loop, inbox, scheduler, results) calls identity, linker and
// publisher through these interfaces; they get what they need from it in deps.

// identityAPI holds one pairing's keys. Safe for concurrent use.
type identityAPI interface {
	// Keys are the pairing's secrets: they judge and open envelopes, seal results and sign.
	Keys() *seal.Desktop
	// Rotate makes a bundle when one is due and erases halves whose time has come. It reports whether it made one.
	Rotate(ctx context.Context, now time.Time) (rotated bool, err error)
	// ReplaceAll makes a new bundle and erases every older half: recover (pairing-protocol.md section 6).
	ReplaceAll(ctx context.Context, now time.Time) error
	// Mirror is the journal's id and counter as the keystore holds them; false when it holds none.
	Mirror(ctx context.Context) (id journal.ID, counter uint64, ok bool, err error)
	// SetMirror stores them.
	SetMirror(ctx context.Context, id journal.ID, counter uint64) error
}

// linkerAPI is the desktop's side of linking, one live session at a time. Safe for concurrent use.
type linkerAPI interface {
	// Start begins a session; mode is "link" or "code".
	Start(ctx context.Context, mode string, decide bool) (LinkTicket, error)
	// Events returns the session's events after the given number; when there are none it waits for one until ctx ends.
	Events(ctx context.Context, after int) ([]LinkEvent, error)
	// Digits is what the person typed.
	Digits(ctx context.Context, digits string) error
	// Cancel ends the live session.
	Cancel(ctx context.Context) error

	HandleClaim(ctx context.Context, claim wire.LinkClaim) (wire.LinkOffer, error)
	HandleReveal(ctx context.Context, reveal wire.LinkReveal) error
	HandleFinish(ctx context.Context, finish wire.LinkFinish) error
	HandleLost(ctx context.Context, end wire.LinkEnd) error
}

// publisherAPI turns what happens on the desktop into sealed events. Safe for concurrent use.
type publisherAPI interface {
	// Event takes an event from the executor. It never blocks for long.
	Event(e wire.ExecEvent)
	// Connected is called once per link, after revocations were applied and before commands are served: announce what
	// the broker misses, then send the outbox from its last batch on.
	Connected(ctx context.Context, link caller, hello wire.HelloReply) error
	// Disconnected ends what Connected began.
	Disconnected()
	// SurfacesChanged begins a new epoch after a surface was linked or revoked, and publishes open requests again.
	SurfacesChanged(ctx context.Context) error
	// Attached says how many streams of surfaces are open at the broker.
	Attached(n int)
	// RequestBytes returns an open request exactly as it was published, with its digest.
	RequestBytes(id string) (bytes []byte, digest proof.Digest, ok bool)
	// CloseRequest tells surfaces how a request ended; the journal has it already when a decision of a surface did it.
	CloseRequest(id, outcome, by string)
	// Notice publishes an event of the agent's own, for example wire.EventNotice or wire.EventSurfaceGone.
	Notice(e wire.Event)
	// Run owns the publisher's goroutines until ctx ends.
	Run(ctx context.Context) error
}

// caller sends frames over one link, on the lane of class (tunnel.Control or tunnel.Events); reply may be nil. A call
// has a deadline of its own and fails at once when the link has gone: with errOffline when there was none.
type caller interface {
	Call(ctx context.Context, class tunnel.Class, frame string, body, reply any) error
}

// errOffline says that no link to the broker is up; whatever is durable is sent when there is one.
var errOffline = errors.New("not connected to the broker")

// deps is what the core gives to the parts of one pairing.
type deps struct {
	pairing journal.Pairing // as it was when the agent started
	journal *journal.Journal
	link    func() caller         // the current link; while there is none, calls fail with errOffline
	policy  func() pairing.Policy // what the owner allows now; the zero policy when the document is missing or malformed
	// redactor makes values remote-safe under the policy as it is now.
	redactor func() *redact.Redactor
	now      func() time.Time
	log      *slog.Logger
}

// parts makes the types behind the interfaces above for one pairing. The real ones are in parts.go; tests give their own.
type parts struct {
	identity  func(ctx context.Context, d deps) (identityAPI, error)
	publisher func(d deps, id identityAPI) publisherAPI
	linker    func(d deps, id identityAPI, pub publisherAPI) linkerAPI
}

// LinkTicket is what the person at the desktop shows to the new device.
type LinkTicket struct {
	Mode    string    `json:"mode"`           // link or code
	Link    string    `json:"link,omitempty"` // link mode: what the QR holds
	Code    string    `json:"code,omitempty"` // code mode: NN-BCDF-GHJK
	Expires time.Time `json:"expires"`
}

// LinkEvent is one step of a linking session. Type is one of the LinkEvent constants.
type LinkEvent struct {
	Seq     int      `json:"seq"` // from 1
	Type    string   `json:"type"`
	Label   string   `json:"label,omitempty"`   // claimed: what the device calls itself
	Network string   `json:"network,omitempty"` // claimed: what the broker says
	Agent   string   `json:"agent,omitempty"`   // claimed: its user agent, as the broker says
	Scopes  []string `json:"scopes,omitempty"`  // claimed: what it will be allowed
	Digits  int      `json:"digits,omitempty"`  // digits: how many are wanted
	Left    int      `json:"left,omitempty"`    // digits: entries left
	Finish  string   `json:"finish,omitempty"`  // confirmed, code mode: what the person types into the device
	Surface string   `json:"surface,omitempty"` // done
	Reason  string   `json:"reason,omitempty"`  // burned, expired, cancelled
}

// Types of a LinkEvent.
const (
	LinkWaiting   = "waiting"   // for a claim
	LinkClaimed   = "claimed"   // a device claimed; it has not shown its keys
	LinkDigits    = "digits"    // the digits on the device are wanted
	LinkConfirmed = "confirmed" // they were right
	LinkDone      = "done"
	LinkBurned    = "burned"
	LinkExpired   = "expired"
	LinkCancelled = "cancelled"
)
