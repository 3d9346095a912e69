package wire

// BrokerInfo is public: who this broker says it is.
type BrokerInfo struct {
	Key         Bytes  `json:"key"` // Ed25519 public key
	ProtocolMin int    `json:"protocol_min"`
	ProtocolMax int    `json:"protocol_max"`
	PageOrigin  string `json:"page_origin"` // what links start with, for example https://broker.example.com
	Time        int64  `json:"time"`        // unix milliseconds by the broker's clock
	Version     string `json:"version"`
}

// EnrolRequest redeems an enrolment code (pairing-protocol.md section 2). Bundle is the signed Dkem bundle and
// Proof Dsig's signature over the rest, both in pkg/proof's encoding.
type EnrolRequest struct {
	Code     string `json:"code"`
	Dsig     Bytes  `json:"dsig"`
	Bundle   Bytes  `json:"bundle"`
	Host     string `json:"host"`
	Versions []int  `json:"versions"`
	Executor string `json:"executor"` // opencode or echo; shown to the operator
	Proof    Bytes  `json:"proof"`
}

// EnrolReply answers a redeemed code; the same bytes again get the same answer within the code's life.
type EnrolReply struct {
	Pairing    string `json:"pairing"`
	BrokerKey  Bytes  `json:"broker_key"`
	PageOrigin string `json:"page_origin"`
	Limits     Limits `json:"limits"`
}

// Limits are the broker's bounds which a client should know before it meets them.
type Limits struct {
	OpenCommands   int `json:"open_commands"`
	PerSurface     int `json:"per_surface"`
	EnvelopeBytes  int `json:"envelope_bytes"`
	BatchBytes     int `json:"batch_bytes"`
	EventBatches   int `json:"event_batches"`
	RetentionHours int `json:"retention_hours"`
}

// TunnelNonceRequest asks for a nonce to open the tunnel; an unknown pairing gets one too.
type TunnelNonceRequest struct {
	Pairing string `json:"pairing"`
}

// Nonce is single use and lives 60 s.
type Nonce struct {
	Nonce     Bytes `json:"nonce"`
	BrokerKey Bytes `json:"broker_key"`
	Time      int64 `json:"time"` // unix milliseconds by the broker's clock
}
