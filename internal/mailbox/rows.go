package mailbox

import "time"

// Command is one command's row. Envelope, Header, BodyHash and Signature are filled only where a method says so; the
// envelope is opaque and is erased once the command has ended.
type Command struct {
	ID       CommandID
	Pairing  PairingID
	Sequence uint64 // per pairing, given by the broker; commands are delivered in this order

	// What the envelope's header shows.
	Surface  SurfaceID
	Kind     Kind
	Seq      uint64 // per surface, given by it
	Prev     Digest // the surface's previous envelope
	Digest   Digest // this envelope; the idempotency key
	Commit   Digest
	IssuedAt time.Time // desktop's clock
	Expires  time.Time // desktop's clock
	Size     int       // bytes of the envelope

	State      State
	Reason     string // of a terminal state: a stable code
	Token      Token  // of the newest lease, also after it ended
	Epoch      Epoch  // of the newest lease; 0 when the holder is unknown
	Deliveries int
	Stop       Stop
	Skip       bool   // it ended at the broker; the desktop still has to be told
	Reported   bool   // the desktop's word, or a report, left it outcome_unknown: send again is safe
	Resolved   string // a person's decision: "", it_ran or send_again
	Result     []byte // sealed and signed by the desktop; opaque
	Created    time.Time
	Updated    time.Time

	Envelope  []byte
	Header    []byte
	BodyHash  Digest
	Signature []byte
}

// Draft is a command as its sender posts it, after its signature, shape and scope were checked.
type Draft struct {
	Pairing   PairingID
	Surface   SurfaceID
	Kind      Kind
	Seq       uint64
	Prev      Digest
	Digest    Digest // SHA-256 of Envelope
	Commit    Digest
	IssuedAt  time.Time
	Expires   time.Time
	Envelope  []byte
	Header    []byte // kept beyond the envelope, for a Skip
	BodyHash  Digest // SHA-256(enc ‖ ct)
	Signature []byte
}

// Pairing is the mailbox's row of a pairing. One that was never seen is the zero value but for its ID.
type Pairing struct {
	ID        PairingID
	Epoch     Epoch  // newest link
	Reported  Epoch  // newest link whose report was applied
	JournalID []byte // as last reported
	HighWater uint64 // highest Sequence that the journal is known to have
	Sequence  uint64 // highest given out
	Open      int    // commands that have not ended
	OpenBytes int64  // of their envelopes
	Closed    bool   // revoked; nothing is taken any more
	Restored  bool   // the broker was restored; no Sequence before the next report
	Connected bool
	Since     time.Time // connected since, or last seen; zero when never
	Cursor    uint64    // newest event batch
	Floor     uint64    // every batch above it is retained
}

// Chain is where a surface's sequence of envelopes stands. One that never posted is the zero value.
type Chain struct {
	Seq    uint64 // last envelope taken
	Last   Digest // its digest
	Open   int    // commands that have not ended
	Closed bool   // revoked; nothing is taken any more
}

// Filter selects commands; the zero value of a field does not filter.
type Filter struct {
	Pairing       PairingID
	Surface       SurfaceID
	States        []State   // any of them; empty means every open one
	ExpiresBefore time.Time // Expires <= it
	StopNone      bool      // no stop asked or answered
	StopAsked     bool      // a stop waits for its answer
	Unreported    bool      // Reported and Resolved are not set
	Limit         int       // at most so many; required
}

// Class is what the broker may know of an event batch.
type Class string

// The classes.
const (
	ClassText          Class = "text"
	ClassRequestOpen   Class = "request.open"
	ClassRequestClosed Class = "request.closed"
	ClassTurnEnded     Class = "turn.ended"
	ClassOther         Class = "other"
)

// Batch is one sealed event batch and what its header shows. Epoch and Seq identify it.
type Batch struct {
	Epoch   EventEpochID
	Seq     uint64
	Class   Class
	Request string    // reference of a request; random bytes, empty for other classes
	Time    time.Time // desktop's clock
	Bytes   []byte    // opaque

	Cursor uint64 // given by the broker when it is stored
}

// Presence is what the broker knows of a desktop.
type Presence struct {
	Online bool
	Since  time.Time // connected since, or last seen; zero when never
	Open   int       // commands that have not ended
	Cursor uint64    // newest event batch
}
