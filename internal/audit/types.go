package audit

// Type names what happened. Names and codes are stable: they are searched for, exported and alerted on. The table
// in docs/audit-events.md is written from kinds, and a test holds the two together.
type Type string

// Enrolment and pairings.
const (
	CodeIssued       Type = "code.issued"
	CodeRedeemed     Type = "code.redeemed"
	CodeRefused      Type = "code.refused"
	CodeBurned       Type = "code.burned"
	CodeExpired      Type = "code.expired"
	CodeRevoked      Type = "code.revoked"
	PairingEnrolled  Type = "pairing.enrolled"
	PairingLocked    Type = "pairing.locked"
	PairingUnlocked  Type = "pairing.unlocked"
	PairingRevoked   Type = "pairing.revoked"
	PairingRecovered Type = "pairing.recovered"
	BundlePublished  Type = "bundle.published"
)

// Linking and surfaces.
const (
	LinkOpened      Type = "link.opened"
	LinkClaimed     Type = "link.claimed"
	LinkRevealed    Type = "link.revealed"
	LinkConfirmed   Type = "link.confirmed"
	LinkDone        Type = "link.done"
	LinkBurned      Type = "link.burned"
	LinkExpired     Type = "link.expired"
	LinkCancelled   Type = "link.cancelled"
	LinkSecondClaim Type = "link.second_claim"
	SurfaceLinked   Type = "surface.linked"
	SurfaceRevoked  Type = "surface.revoked"
	SurfaceRenewed  Type = "surface.renewed"
	SurfaceSignedIn Type = "surface.signed_in"
	SurfaceRefused  Type = "surface.refused"
)

// The tunnel and the agent's reports.
const (
	TunnelConnected    Type = "tunnel.connected"
	TunnelDisconnected Type = "tunnel.disconnected"
	TunnelRefused      Type = "tunnel.refused"
	TunnelConflict     Type = "tunnel.conflict"
	ReportApplied      Type = "report.applied"
	JournalChanged     Type = "journal.changed"
)

// Commands, as the mailbox and the journal see them.
const (
	CommandQueued        Type = "command.queued"
	CommandLeased        Type = "command.leased"
	CommandReceived      Type = "command.received"
	CommandRefused       Type = "command.refused"
	CommandAccepted      Type = "command.accepted"
	CommandWaiting       Type = "command.waiting_local"
	CommandAllowed       Type = "command.allowed"
	CommandStarted       Type = "command.started"
	CommandEnded         Type = "command.ended"
	CommandRequeued      Type = "command.requeued"
	CommandUnknown       Type = "command.outcome_unknown"
	CommandStopAsked     Type = "command.stop_asked"
	CommandStopAnswered  Type = "command.stop_answered"
	CommandResultRefused Type = "command.result_refused"
	CommandLateTruth     Type = "command.late_truth"
	CommandResolved      Type = "command.resolved"
	CommandSkipped       Type = "command.skipped"
	CommandGap           Type = "command.gap"
)

// Requests, turns, policy and the operator.
const (
	RequestOpened  Type = "request.opened"
	RequestClosed  Type = "request.closed"
	TurnEnded      Type = "turn.ended"
	EpochBegun     Type = "epoch.begun"
	PolicyChanged  Type = "policy.changed"
	BrokerStarted  Type = "broker.started"
	BrokerStopped  Type = "broker.stopped"
	BrokerRestored Type = "broker.restored"
	AuditRead      Type = "audit.read"
	AuditExported  Type = "audit.exported"
)

// Kind is one row of the table of types.
type Kind struct {
	Type    Type
	Code    string // stable, unique, for people who search by code
	Where   string // whose log has it: broker, desktop or both
	Meaning string
}

// kinds is the table. Codes are never given to another type, and never change.
var kinds = []Kind{
	{CodeIssued, "E01", "broker", "An operator issued an enrolment code."},
	{CodeRedeemed, "E02", "broker", "A desktop redeemed an enrolment code."},
	{CodeRefused, "E03", "broker", "A code was refused: wrong, used, expired or burned."},
	{CodeBurned, "E04", "broker", "A code had its last wrong try."},
	{CodeExpired, "E05", "broker", "A code's time ran out unused."},
	{CodeRevoked, "E06", "broker", "An operator revoked a code."},
	{PairingEnrolled, "P01", "both", "A desktop opted in to this broker."},
	{PairingLocked, "P02", "both", "The pairing was locked: by an operator, an identity conflict or a changed journal."},
	{PairingUnlocked, "P03", "both", "The pairing was unlocked."},
	{PairingRevoked, "P04", "both", "The pairing was ended for good."},
	{PairingRecovered, "P05", "desktop", "The owner let a restored journal go on."},
	{BundlePublished, "P06", "both", "The desktop published a new key bundle."},
	{LinkOpened, "L01", "both", "The owner started to link a surface."},
	{LinkClaimed, "L02", "both", "A surface claimed the linking session."},
	{LinkRevealed, "L03", "both", "The surface revealed its keys."},
	{LinkConfirmed, "L04", "both", "The owner typed the right digits."},
	{LinkDone, "L05", "both", "The grant was handed over."},
	{LinkBurned, "L06", "both", "The linking session was burned."},
	{LinkExpired, "L07", "both", "The linking session ran out of time."},
	{LinkCancelled, "L08", "both", "The linking session was cancelled."},
	{LinkSecondClaim, "L09", "both", "Someone claimed a linking session a second time."},
	{SurfaceLinked, "S01", "both", "A surface was linked."},
	{SurfaceRevoked, "S02", "both", "A surface was revoked."},
	{SurfaceRenewed, "S03", "both", "A surface's grant was renewed."},
	{SurfaceSignedIn, "S04", "broker", "A surface proved its key and got a session token."},
	{SurfaceRefused, "S05", "broker", "A surface's proof was refused."},
	{TunnelConnected, "T01", "broker", "The desktop connected; a new epoch began."},
	{TunnelDisconnected, "T02", "broker", "The desktop's newest link ended."},
	{TunnelRefused, "T03", "broker", "A tunnel was refused before its upgrade."},
	{TunnelConflict, "T04", "broker", "Two programs fought over one identity."},
	{ReportApplied, "T05", "broker", "The agent's report was applied to the open commands."},
	{JournalChanged, "T06", "both", "The desktop's journal is new or older than known."},
	{CommandQueued, "C01", "broker", "A surface's command was stored."},
	{CommandLeased, "C02", "broker", "The command was leased to the desktop's link."},
	{CommandReceived, "C03", "desktop", "The command was written to the journal."},
	{CommandRefused, "C04", "desktop", "The command was refused before it ran: signature, scope, expiry or policy."},
	{CommandAccepted, "C05", "broker", "The desktop has the command in its journal."},
	{CommandWaiting, "C06", "both", "The command waits for a person at the desktop."},
	{CommandAllowed, "C07", "desktop", "A person at the desktop allowed or denied the command."},
	{CommandStarted, "C08", "desktop", "The executor is about to be called."},
	{CommandEnded, "C09", "both", "The command has a terminal state."},
	{CommandRequeued, "C10", "broker", "The desktop never had the command; it waits again."},
	{CommandUnknown, "C11", "both", "It cannot be known whether the command ran; a person decides."},
	{CommandStopAsked, "C12", "broker", "The desktop shall not run the command any more: cancelled, expired or revoked."},
	{CommandStopAnswered, "C13", "both", "The desktop answered a stop: never to run, or already started."},
	{CommandResultRefused, "C14", "broker", "A result was refused: stale token, or another result stands."},
	{CommandLateTruth, "C15", "broker", "A real result replaced outcome_unknown."},
	{CommandResolved, "C16", "broker", "A person decided an outcome_unknown: it ran, or send again."},
	{CommandSkipped, "C17", "both", "The desktop was told of a command that ended at the broker."},
	{CommandGap, "C18", "desktop", "A surface's chain has a gap that nothing explains."},
	{RequestOpened, "R01", "both", "An approval or question waits for an answer."},
	{RequestClosed, "R02", "both", "An approval or question was decided or is gone."},
	{TurnEnded, "R03", "both", "A turn ended."},
	{EpochBegun, "R04", "both", "A new epoch of event keys began."},
	{PolicyChanged, "D01", "desktop", "The desktop's policy was changed."},
	{BrokerStarted, "B01", "broker", "The broker started."},
	{BrokerStopped, "B02", "broker", "The broker was stopped."},
	{BrokerRestored, "B03", "broker", "The broker's store was restored from a backup."},
	{AuditRead, "B04", "broker", "Someone read the audit log."},
	{AuditExported, "B05", "broker", "Someone exported the audit log."},
}

var codes = func() map[Type]string {
	m := make(map[Type]string, len(kinds))
	for _, k := range kinds {
		m[k.Type] = k.Code
	}
	return m
}()

// Kinds returns the table of types, in the order of the document.
func Kinds() []Kind { return append([]Kind(nil), kinds...) }

// Code returns the stable code of a type, and "" for one that is not in the table.
func (t Type) Code() string { return codes[t] }
