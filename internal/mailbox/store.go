package mailbox

import (
	"context"
	"time"

	"cowork.example.com/broker/internal/audit"
)

// Store keeps the rows. Every backend must pass internal/store/storetest.
type Store interface {
	// Update runs fn in one serializable transaction. When it returns nil, everything fn wrote is on the disk; when fn
	// or the commit fails nothing of it is, and the error is returned: a full disk as an Error with code Full. fn may
	// be run on another goroutine, must not call the Store, and must be quick.
	Update(ctx context.Context, fn func(Tx) error) error
	// View runs fn on one consistent snapshot of committed rows.
	View(ctx context.Context, fn func(Reader) error) error
}

// Waker carries hints between whoever changes a pairing's rows and whoever waits for them. A hint may be lost, late
// or without cause: a waiter always looks at the rows, before it waits and after.
type Waker interface {
	// Wake hints that something about the pairing has changed. It never blocks.
	Wake(PairingID)
	// Subscribe returns a channel that holds at most one hint, and the function that ends the subscription, which may
	// be called more than once.
	Subscribe(PairingID) (hints <-chan struct{}, cancel func())
}

// Reader is a snapshot.
type Reader interface {
	CommandReader
	EventReader
}

// Tx is one transaction. Each change of a command or a pairing takes the audit line that describes it, so that there
// is no change without its line; an entry whose type is not in the table fails the transaction.
type Tx interface {
	Reader
	CommandWriter
	EventWriter
}

// CommandReader reads pairings, chains and commands.
type CommandReader interface {
	// Pairing returns the row, or the zero value with the id.
	Pairing(PairingID) (Pairing, error)
	// Chain returns where a surface stands, or the zero value.
	Chain(PairingID, SurfaceID) (Chain, error)
	// Command returns a command of this pairing without its envelope, or NotFound.
	Command(PairingID, CommandID) (Command, error)
	// ByDigest returns the command with this envelope, without it, or NotFound.
	ByDigest(PairingID, Digest) (Command, error)
	// Next returns the command of the lowest Sequence that is queued or has Skip set, with Envelope, Header, BodyHash
	// and Signature (the first is empty for a Skip), or NotFound.
	Next(PairingID) (Command, error)
	// Commands lists by pairing and Sequence, without envelopes.
	Commands(Filter) ([]Command, error)
	// Pairings lists the ids of the pairings that have a row, above after in the order of their bytes, at most limit.
	Pairings(after PairingID, limit int) ([]PairingID, error)
}

// CommandWriter changes them.
type CommandWriter interface {
	// Insert adds a new command with its envelope, sets the pairing's Sequence to the command's, the chain's Seq and
	// Last to its Seq and Digest, and counts it as open.
	Insert(Command, audit.Entry) error
	// Save writes what may change: State, Reason, Token, Epoch, Deliveries, Stop, Skip, Reported, Resolved, Result,
	// Updated. When the command has thereby ended it is not counted as open any more and its envelope is erased; the
	// header, body hash and signature stay as long as the row.
	Save(Command, audit.Entry) error
	// SavePairing writes Epoch, Reported, JournalID, HighWater, Sequence, Closed, Restored, Connected and Since.
	SavePairing(Pairing, audit.Entry) error
	// CloseChain sets the chain's Closed, also of a surface that never posted.
	CloseChain(PairingID, SurfaceID, audit.Entry) error
	// RaiseHighWater lifts the pairing's HighWater to at least seq, as part of the change just saved.
	RaiseHighWater(p PairingID, seq uint64) error
	// Note writes a line that describes no change: something was refused.
	Note(audit.Entry) error
	// PruneEnded deletes ended commands which ended before the time, or whose Sequence is keep or more below the
	// pairing's; at most limit, and says how many. An outcome_unknown that waits for a person's decision stays, and so
	// do all lines.
	PruneEnded(before time.Time, keep, limit int) (int, error)
}

// EventReader reads the event log.
type EventReader interface {
	// Batches returns those with a Cursor above after, in that order, at most limit.
	Batches(p PairingID, after uint64, limit int) ([]Batch, error)
	// BatchBySeq returns the batch of an event epoch's seq, or NotFound.
	BatchBySeq(PairingID, EventEpochID, uint64) (Batch, error)
	// OpenRequests returns, in the order of their cursors, the request.open batches of each request without a close, at
	// most MaxOpenRequests: those of the newest epoch that opened it, one for each key.
	OpenRequests(PairingID) ([]Batch, error)
	// NewestEpoch returns the event epoch that was begun last and the highest Seq stored of it; zero when none.
	NewestEpoch(PairingID) (EventEpochID, uint64, error)
	// HighestSeq returns the highest Seq ever stored of an epoch, also when its batch is pruned, and whether the
	// epoch is known.
	HighestSeq(PairingID, EventEpochID) (uint64, bool, error)
	// Box returns an epoch's box for a surface, or NotFound.
	Box(PairingID, EventEpochID, SurfaceID) ([]byte, error)
}

// EventWriter changes the event log.
type EventWriter interface {
	// AppendBatch stores a batch under the pairing's next cursor and returns it. A request.open takes the place of
	// those of the same request in other epochs among the open ones, and of the oldest of all when there are MaxOpenRequests; a
	// request.closed removes it. Of the classes request.open, request.closed and turn.ended the line must be given.
	AppendBatch(p PairingID, b Batch, now time.Time, line *audit.Entry) (cursor uint64, err error)
	// BeginEpoch stores a new event epoch, which becomes the newest, and its boxes.
	BeginEpoch(PairingID, EventEpochID, map[SurfaceID][]byte, audit.Entry) error
	// PruneBatches deletes batches of the pairing which are not open requests and were stored before the time or have
	// a Cursor of at most upTo, at most limit, raises the Floor above the highest of them, and deletes epochs without
	// batches but for the newest. It says how many batches went.
	PruneBatches(p PairingID, before time.Time, upTo uint64, limit int) (int, error)
}
