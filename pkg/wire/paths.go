package wire

// Protocol versions that this build speaks, stated in hello and at GET PathBroker.
const (
	ProtocolMin = 1
	ProtocolMax = 1
)

// Paths of the broker's public API. Patterns for net/http are these with a method in front.
const (
	PathBroker      = "/api/v1/broker"                                   // GET: BrokerInfo
	PathEnrol       = "/api/v1/enrol"                                    // POST: EnrolRequest -> EnrolReply
	PathTunnelNonce = "/api/v1/tunnel/nonce"                             // POST: TunnelNonceRequest -> Nonce
	PathTunnel      = "/api/v1/tunnel"                                   // GET: WebSocket upgrade, headers below
	PathLinkClaim   = "/api/v1/link/claim"                               // POST: LinkClaimRequest -> LinkClaimReply
	PathLinkReveal  = "/api/v1/link/reveal"                              // POST: LinkRevealRequest -> 204
	PathLinkGrant   = "/api/v1/link/grant"                               // POST: LinkGrantRequest (?wait=1..25) -> LinkGrantReply
	PathLinkFinish  = "/api/v1/link/finish"                              // POST: LinkFinishRequest -> 204: the surface took the grant, or dropped it
	PathLinkCancel  = "/api/v1/link/cancel"                              // POST: LinkGrantRequest -> 204
	PathAuthNonce   = "/api/v1/auth/nonce"                               // POST: AuthNonceRequest -> Nonce
	PathAuthToken   = "/api/v1/auth/token"                               // POST: AuthTokenRequest -> AuthToken
	PathPairing     = "/api/v1/pairings/{pairing}"                       // GET: PairingState
	PathCommands    = "/api/v1/pairings/{pairing}/commands"              // POST: CommandPost (?wait=) -> Command
	PathCommand     = "/api/v1/pairings/{pairing}/commands/{id}"         // GET (?wait=) -> Command
	PathCancel      = "/api/v1/pairings/{pairing}/commands/{id}/cancel"  // POST -> Command
	PathResolve     = "/api/v1/pairings/{pairing}/commands/{id}/resolve" // POST: Resolve -> Command
	PathRequests    = "/api/v1/pairings/{pairing}/requests"              // GET -> OpenRequests
	PathRevokeSelf  = "/api/v1/pairings/{pairing}/surfaces/self/revoke"  // POST -> 204: a surface ends itself at the broker
	PathStreams     = "/api/v1/streams"                                  // POST: []StreamSubscribe -> text/event-stream
	PathPage        = "/p"                                               // GET: what a link opens; a plain text page until the phone page exists
	PathHealth      = "/healthz"                                         // GET: 200 "ok" when the store answers
)

// Paths of the operator API, served on a unix socket (0600) only.
const (
	PathOpCodes         = "/op/v1/codes"                                        // GET: []EnrolmentCode, POST: CodeIssue -> CodeIssued
	PathOpCodeRevoke    = "/op/v1/codes/{id}/revoke"                            // POST -> 204
	PathOpPairings      = "/op/v1/pairings"                                     // GET: []OperatorPairing
	PathOpPairing       = "/op/v1/pairings/{pairing}"                           // GET: OperatorPairing
	PathOpPairingLock   = "/op/v1/pairings/{pairing}/lock"                      // POST -> 204
	PathOpPairingUnlock = "/op/v1/pairings/{pairing}/unlock"                    // POST -> 204
	PathOpPairingRevoke = "/op/v1/pairings/{pairing}/revoke"                    // POST -> 204
	PathOpSurfaces      = "/op/v1/pairings/{pairing}/surfaces"                  // GET: []OperatorSurface
	PathOpSurfaceRevoke = "/op/v1/pairings/{pairing}/surfaces/{surface}/revoke" // POST -> 204
	PathOpAudit         = "/op/v1/audit"                                        // GET ?after=SEQ&limit=N&wait=S -> AuditPage
	PathOpLimits        = "/op/v1/limits"                                       // GET -> the table of internal/limits
)

// Headers of the tunnel's upgrade request; values are base64url, HeaderTunnelTime is unix milliseconds.
const (
	HeaderTunnelPairing   = "Odp-Pairing"
	HeaderTunnelNonce     = "Odp-Nonce"
	HeaderTunnelTime      = "Odp-Time"
	HeaderTunnelSignature = "Odp-Signature"
)

// Limits that both ends know. A body or string one byte over is refused.
const (
	MaxPromptBytes   = 1_000_000 // prompt text inside a sealed payload
	MaxEnvelopeBytes = 1_100_000 // one sealed envelope, before base64url
	MaxSmallBody     = 64 << 10  // any JSON body that carries no envelope
	MaxCommandBody   = 1_600_000 // a CommandPost body
	MaxWaitSeconds   = 25        // the largest ?wait=
	MaxStreams       = 32        // subscriptions in one POST PathStreams
	MaxBatchBytes    = 256 << 10 // one sealed event batch
)
