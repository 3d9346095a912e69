package mailbox

import (
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// Limits of the mailbox. What is one over is refused and changes nothing.
const (
	MaxOpen          = 1000                  // open commands of a pairing
	MaxOpenBytes     = 64 << 20              // bytes of their envelopes
	MaxOpenSurface   = 100                   // open commands of a surface
	MaxEnvelope      = wire.MaxEnvelopeBytes // bytes of one envelope: a prompt of 1,000,000 bytes fits
	MaxResult        = 1 << 20               // bytes of one sealed result
	MaxReason        = 64                    // bytes of a result's reason code
	MaxReportRows    = 2 * MaxOpen           // rows of one report
	MaxBatch         = wire.MaxBatchBytes    // bytes of one event batch
	MaxAppend        = 64                    // batches of one append
	MaxRequestRef    = 64                    // bytes of a request reference
	MaxOpenRequests  = 200                   // open requests of a pairing; the oldest gives way
	MaxBoxes         = 256                   // boxes of one event epoch
	MaxBox           = 4 << 10               // bytes of one box
	MaxJournalID     = 64                    // bytes of a journal's id
	MaxPage          = 500                   // batches that one Since returns
	MaxDeliveries    = 5                     // the last delivery that is tried
	MaxKept          = 10_000                // ended commands of a pairing that are remembered
	MaxHeaderBytes   = 512                   // bytes of an envelope's header
	RetainBatches    = 5000                  // newest batches of a pairing that are kept
	maxPruneOverhang = 250                   // batches above RetainBatches before Append prunes by itself
)

// Times of the mailbox.
const (
	MaxWait       = wire.MaxWaitSeconds * time.Second // the longest Wait
	RetainEvents  = 7 * 24 * time.Hour                // how long batches are kept
	RetainEnded   = 30 * 24 * time.Hour               // how long an ended command is remembered
	ForgetAfter   = 30 * 24 * time.Hour               // after its time without word a command is outcome_unknown
	retryOpen     = 5 * time.Second                   // RetryAfter while too much is open
	retryRestored = 30 * time.Second                  // RetryAfter until the desktop has reported
)
