package wire

import "encoding/json"

// LinkClaimRequest is message 2 of linking: Claim is proof's claim message, passed on unread but for its mode,
// pid, admit or code. Nothing changes by a GET; this is the tap.
type LinkClaimRequest struct {
	Claim json.RawMessage `json:"claim"`
}

// LinkClaimReply is message 3: the desktop's offer, and the session under which the surface goes on. Session is
// an unguessable 128-bit value, known to this claimer alone.
type LinkClaimReply struct {
	Session Bytes           `json:"session"`
	Offer   json.RawMessage `json:"offer"`
	Expires int64           `json:"expires"` // unix milliseconds
}

// LinkRevealRequest is message 4.
type LinkRevealRequest struct {
	Session Bytes           `json:"session"`
	Reveal  json.RawMessage `json:"reveal"`
}

// LinkGrantRequest asks for message 6, or cancels.
type LinkGrantRequest struct {
	Session Bytes `json:"session"`
}

// LinkGrantReply: State is pending, done, burned, expired or cancelled; Grant is set when done.
type LinkGrantReply struct {
	State string          `json:"state"`
	Grant json.RawMessage `json:"grant,omitempty"`
}

// LinkFinishRequest carries proof's signed finish to the desktop. Without it before the session's end the desktop
// revokes what it granted.
type LinkFinishRequest struct {
	Session Bytes           `json:"session"`
	Finish  json.RawMessage `json:"finish"`
}

// AuthNonceRequest starts a surface's sign-in; an unknown surface gets a nonce too.
type AuthNonceRequest struct {
	Pairing string `json:"pairing"`
	Surface string `json:"surface"`
}

// AuthTokenRequest is Ssig's signature over proof's auth input.
type AuthTokenRequest struct {
	Pairing   string `json:"pairing"`
	Surface   string `json:"surface"`
	Nonce     Bytes  `json:"nonce"`
	Time      int64  `json:"time"` // unix milliseconds
	Signature Bytes  `json:"signature"`
}

// AuthToken is sent as "Authorization: Bearer ..." for 15 minutes. It is worth nothing for another pairing.
type AuthToken struct {
	Token   string `json:"token"`
	Expires int64  `json:"expires"` // unix milliseconds
}

// PairingState is what the broker knows of a desktop. Online is only the broker's word: a surface believes beats.
type PairingState struct {
	Pairing  string   `json:"pairing"`
	Online   bool     `json:"online"`
	Since    int64    `json:"since"` // unix ms: connected since, or last seen
	Locked   bool     `json:"locked"`
	Executor string   `json:"executor"`
	Kinds    []string `json:"kinds"`  // kinds which the desktop stated
	Bundle   Bytes    `json:"bundle"` // newest signed Dkem bundle
	Grant    Bytes    `json:"grant"`  // this surface's grant, public half
	Seq      uint64   `json:"seq"`    // last envelope of this surface which the broker took
	Prev     Bytes    `json:"prev"`   // its hash
	Cursor   uint64   `json:"cursor"` // newest event cursor
	Time     int64    `json:"time"`   // broker's clock, unix ms
}

// CommandPost carries one sealed envelope.
type CommandPost struct {
	Sealed Bytes `json:"sealed"`
}

// Command is the state of a command as the broker sees it. Result is the desktop's signed, sealed result; only
// it is to be believed.
type Command struct {
	ID       string `json:"id"`
	Pairing  string `json:"pairing"`
	Surface  string `json:"surface"`
	Kind     string `json:"kind"`
	Sequence uint64 `json:"sequence"` // per pairing, given by the broker
	Envelope Bytes  `json:"envelope"` // SHA-256 of the envelope
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Created  int64  `json:"created"` // unix ms
	Expires  int64  `json:"expires"` // unix ms
	Updated  int64  `json:"updated"` // unix ms
	Result   Bytes  `json:"result,omitempty"`

	DesktopOnline bool  `json:"desktop_online"`
	DesktopSince  int64 `json:"desktop_since"` // unix ms: connected since, or last seen
}

// States of a command.
const (
	StateQueued         = "queued"
	StateLeased         = "leased"
	StateAccepted       = "accepted"
	StateWaitingLocal   = "waiting_local"
	StateCompleted      = "completed"
	StateFailed         = "failed"
	StateBlocked        = "blocked_by_policy"
	StateExpired        = "expired"
	StateCancelled      = "cancelled"
	StateOutcomeUnknown = "outcome_unknown"
)

// Resolve is a person's decision about outcome_unknown.
type Resolve struct {
	Decision string `json:"decision"`         // it_ran or send_again
	Sealed   Bytes  `json:"sealed,omitempty"` // send_again: the new envelope, a new command
}

// OpenRequests are the newest sealed request.open batches without a close.
type OpenRequests struct {
	Requests []StreamEvent `json:"requests"`
	Epochs   []EpochBox    `json:"epochs"` // boxes for this surface, of every epoch named above
	Cursor   uint64        `json:"cursor"` // continue a stream after this
}

// StreamSubscribe is one pairing of a stream. After 0 starts with the retained past; nil starts now.
type StreamSubscribe struct {
	Pairing string  `json:"pairing"`
	Token   string  `json:"token"`
	After   *uint64 `json:"after,omitempty"`
}

// Names of the SSE events of a stream. The data of each is JSON of the type named beside it. The SSE id is
// "pairing:cursor" pairs joined by commas, complete for all subscriptions, so that Last-Event-ID resumes.
const (
	StreamBatch    = "batch"             // StreamEvent
	StreamEpoch    = "epoch"             // EpochBox, before the first batch of that epoch
	StreamBeat     = "beat"              // Beat
	StreamResult   = "result"            // Command: an own command reached a terminal state
	StreamSnapshot = "snapshot.required" // StreamGap
	StreamPresence = "presence"          // PairingState without the surface's own fields
	StreamEnd      = "end"               // StreamGap: the broker closes (reason: revoked, expired, slow, drain, locked)
)

// StreamEvent is one sealed batch with what the broker may see of it.
type StreamEvent struct {
	Pairing string `json:"pairing"`
	Cursor  uint64 `json:"cursor"`
	Batch   Bytes  `json:"batch"` // proof's batch encoding: header, ciphertext, signature
}

// EpochBox is one epoch's signed announcement with the keys sealed to this surface, in proof's encoding.
type EpochBox struct {
	Pairing string `json:"pairing"`
	Box     Bytes  `json:"box"`
}

// Beat is proof's signed beat: time, epoch, last seq, digest of the open requests.
type Beat struct {
	Pairing string `json:"pairing"`
	Beat    Bytes  `json:"beat"`
}

// StreamGap names a pairing and why.
type StreamGap struct {
	Pairing string `json:"pairing"`
	Cursor  uint64 `json:"cursor"`
	Reason  string `json:"reason"`
}
