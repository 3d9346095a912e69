package wire

import "encoding/json"

// Frame is one request or reply inside a lane of the tunnel; a reply has the Body only.
type Frame struct {
	Type string          `json:"type"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Frames which the agent sends on its control lane, with their request -> reply bodies.
const (
	FrameHello     = "hello"      // Hello -> HelloReply; the first frame of a link, nothing else is served before it
	FrameResult    = "result"     // Result -> Durable
	FrameWaiting   = "waiting"    // CommandRef -> Durable: needs local confirmation
	FrameAccepted  = "accepted"   // CommandRef -> Durable: confirmed locally
	FrameReport    = "report"     // Report -> ReportReply: again within a link, after a stale token
	FrameLinkOpen  = "link.open"  // LinkOpen -> LinkOpened
	FrameLinkGrant = "link.grant" // LinkGranted -> Durable
	FrameLinkEnd   = "link.end"   // LinkEnd -> Durable: burned or cancelled at the desktop
	FrameRevoke    = "revoke"     // Revocation -> Durable: the owner revoked a surface, or the pairing
	FrameBundle    = "bundle"     // Bundle -> Durable
	FrameEpoch     = "epoch"      // Epoch -> Durable
	FrameAudit     = "audit"      // not used: the desktop's audit stays at the desktop
)

// Frames which the agent sends on its events lane.
const (
	FrameBatch = "batch" // Batch -> BatchReply
	FrameBeat  = "beat"  // Beat -> Durable (relayed, not stored)
)

// Frames which the broker sends: deliver on the command lane, the rest on control.
const (
	FrameDeliver    = "deliver"     // Deliver -> Delivered
	FrameSkip       = "skip"        // Skip -> Delivered: an envelope that ended at the broker, so that prev closes
	FrameStop       = "stop"        // Stop -> Stopped
	FrameLinkClaim  = "link.claim"  // LinkClaim -> LinkOffer
	FrameLinkReveal = "link.reveal" // LinkReveal -> Durable
	FrameLinkFinish = "link.finish" // LinkFinish -> Durable: the surface's signed word that it took the grant
	FrameLinkLost   = "link.lost"   // LinkEnd -> Durable: a second claim, a cancel by the surface, an expiry at the broker
	FrameRevoked    = "revoked"     // Revocation -> Durable: revoked at the broker
	FrameAttached   = "attached"    // Attached -> Durable: how many surface streams are open; beats are sent while > 0
	FrameNotice     = "notice"      // Notice -> Durable: something the owner should be told
)

// Durable is the empty reply that says: stored.
type Durable struct{}

// Hello opens a link. Signed by Dsig (proof's hello input over Body's fields) so that its time can be trusted by
// those who see it: Sig is proof.Hello's signature over broker key, Time and the report's JournalID, Counter, HighWater.
type Hello struct {
	ProtocolMin int      `json:"protocol_min"`
	ProtocolMax int      `json:"protocol_max"`
	Time        int64    `json:"time"` // desktop's clock, unix ms
	Version     string   `json:"version"`
	Executor    string   `json:"executor"`
	Kinds       []string `json:"kinds"`
	Bundle      Bytes    `json:"bundle"` // newest signed Dkem bundle
	Report      Report   `json:"report"`
	Revoked     []string `json:"revoked"` // surface ids revoked at the desktop, for a broker that missed it
	Sig         Bytes    `json:"sig"`
}

// Report is the journal's state (mailbox.md, Links). HighWater is the highest mailbox sequence it ever journalled.
type Report struct {
	JournalID Bytes       `json:"journal_id"`
	Counter   uint64      `json:"counter"`
	HighWater uint64      `json:"high_water"`
	Open      []ReportRow `json:"open"` // rows which the broker has not acknowledged as durable
}

// ReportRow is one open row. State is received, waiting_local, started or done.
type ReportRow struct {
	Command string  `json:"command"`
	State   string  `json:"state"`
	Result  *Result `json:"result,omitempty"` // when done
}

// HelloReply: Rows carries a new token for each open row that the broker still has; Stops are wishes to answer.
type HelloReply struct {
	Protocol   int          `json:"protocol"`
	Time       int64        `json:"time"` // broker's clock, unix ms
	Report     ReportReply  `json:"report"`
	Revoked    []Revocation `json:"revoked"` // apply before anything is sealed or sent
	Attached   int          `json:"attached"`
	BatchSeq   uint64       `json:"batch_seq"`   // highest batch seq of the newest epoch which is stored
	BatchEpoch Bytes        `json:"batch_epoch"` // that epoch
}

// ReportReply answers a report.
type ReportReply struct {
	Rows  []RowToken `json:"rows"`
	Known []string   `json:"known"` // open rows whose result the broker holds already: done with
	Stops []Stop     `json:"stops"`
}

// RowToken is a fresh fencing token.
type RowToken struct {
	Command string `json:"command"`
	Token   Bytes  `json:"token"`
}

// CommandRef names a command under a lease.
type CommandRef struct {
	Command string `json:"command"`
	Token   Bytes  `json:"token"`
}

// Result reports a terminal state. Sealed is proof's signed result (header, ciphertext, signature); empty only
// when the envelope could not be tied to a surface.
type Result struct {
	Command string `json:"command"`
	Token   Bytes  `json:"token"`
	State   string `json:"state"`
	Reason  string `json:"reason,omitempty"` // stable code, for example policy_blocked, expired, clock_skew
	Sealed  Bytes  `json:"sealed,omitempty"`
}

// Deliver hands a command over under a lease.
type Deliver struct {
	Command  string `json:"command"`
	Sequence uint64 `json:"sequence"`
	Token    Bytes  `json:"token"`
	Envelope Bytes  `json:"envelope"`
}

// Delivered answers Deliver and Skip once the journal row is durable. State is received, waiting_local (a person at
// the desktop must allow it), duplicate or refused (a result follows).
type Delivered struct {
	State string `json:"state"`
}

// Skip replaces an envelope that ended at the broker.
type Skip struct {
	Command   string `json:"command"`
	Header    Bytes  `json:"header"`
	Envelope  Bytes  `json:"envelope"` // SHA-256 of the envelope
	BodyHash  Bytes  `json:"body_hash"`
	Signature Bytes  `json:"signature"`
	State     string `json:"state"` // how it ended
}

// Stop asks the agent not to run a command. Why is cancelled or expired.
type Stop struct {
	Command string `json:"command"`
	Why     string `json:"why"`
}

// Stopped is the agent's answer: tombstone (never ran and never will) or started.
type Stopped struct {
	Command string `json:"command"`
	Answer  string `json:"answer"`
}

// LinkOpen is message 1, proof's signed open.
type LinkOpen struct {
	Open json.RawMessage `json:"open"`
}

// LinkOpened: Nameplate is set in code mode.
type LinkOpened struct {
	Nameplate string `json:"nameplate,omitempty"`
	Expires   int64  `json:"expires"` // unix ms
}

// LinkClaim carries message 2 to the desktop with what the broker says about the network.
type LinkClaim struct {
	Pid     Bytes           `json:"pid"`
	Claim   json.RawMessage `json:"claim"`
	Network string          `json:"network"` // "the broker says"
	Agent   string          `json:"agent"`   // user agent, "the broker says"
}

// LinkOffer is message 3.
type LinkOffer struct {
	Offer json.RawMessage `json:"offer"`
}

// LinkReveal is message 4.
type LinkReveal struct {
	Pid    Bytes           `json:"pid"`
	Reveal json.RawMessage `json:"reveal"`
}

// LinkGranted is message 6: Grant goes to the surface unread, Public is the half that the broker keeps and verifies.
type LinkGranted struct {
	Pid    Bytes           `json:"pid"`
	Grant  json.RawMessage `json:"grant"`
	Public Bytes           `json:"public"`
	Label  string          `json:"label"`
}

// LinkFinish is the surface's last message.
type LinkFinish struct {
	Pid    Bytes           `json:"pid"`
	Finish json.RawMessage `json:"finish"`
}

// LinkEnd: Reason is burned, cancelled, expired or second_claim.
type LinkEnd struct {
	Pid    Bytes  `json:"pid"`
	Reason string `json:"reason"`
}

// Revocation of a surface, or of the pairing when Surface is empty. Proof is the signature of who revoked, when
// it was the desktop or a surface.
type Revocation struct {
	Surface string `json:"surface,omitempty"`
	By      string `json:"by"` // desktop, surface, operator
	Time    int64  `json:"time"`
	Proof   Bytes  `json:"proof,omitempty"`
}

// Bundle is a new signed Dkem bundle.
type Bundle struct {
	Bundle Bytes `json:"bundle"`
}

// Epoch is a new epoch: one signed box per surface.
type Epoch struct {
	Epoch Bytes            `json:"epoch"` // 8 bytes
	Boxes map[string]Bytes `json:"boxes"` // by surface id
}

// Batch is one sealed, signed event batch; the broker reads its header by proof.
type Batch struct {
	Batch Bytes `json:"batch"`
}

// BatchReply acknowledges durably. Cursor is the broker's.
type BatchReply struct {
	Cursor uint64 `json:"cursor"`
}

// Attached counts open surface streams of this pairing.
type Attached struct {
	Streams int `json:"streams"`
}

// Notice is a stable code and one sentence, for example identity_conflict.
type Notice struct {
	Code string `json:"code"`
	Text string `json:"text"`
}
