package wire

import "encoding/json"

// AuditVersion is the v of a line.
const AuditVersion = 1

// AuditLine is one line of an audit log. Its JSON bytes are the truth: they are written once, in the key order
// of this struct, and never re-encoded. Label, host name, ip and user agent are salted commitments; the values
// stand in a side table and can be erased without a byte of the line changing. Content, codes, tokens and paths
// never appear.
type AuditLine struct {
	V             int             `json:"v"`
	Seq           uint64          `json:"seq"`
	Time          string          `json:"time"` // RFC 3339 with milliseconds, UTC
	ID            string          `json:"id"`
	Type          string          `json:"type"`
	Code          string          `json:"code"`
	Outcome       string          `json:"outcome"` // success, failure, refused, unknown
	Reason        string          `json:"reason"`
	Pairing       string          `json:"pairing"`
	Actor         AuditActor      `json:"actor"`
	Target        AuditTarget     `json:"target"`
	Session       string          `json:"session,omitempty"`
	Command       *AuditCommand   `json:"command,omitempty"`
	RequestSHA256 string          `json:"request_sha256,omitempty"`
	Decision      string          `json:"decision,omitempty"`
	Source        AuditSource     `json:"source"`
	PolicyVersion int             `json:"policy_version"`
	Diff          json.RawMessage `json:"diff,omitempty"`
}

// AuditActor is who did it: kind is operator, desktop, surface, broker, network. Label is a salted commitment.
type AuditActor struct {
	Kind  string `json:"kind"`
	ID    string `json:"id"`
	Label string `json:"label"`
	Key   string `json:"key"`
}

// AuditTarget is what it was done to.
type AuditTarget struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// AuditCommand names a command by what the envelope's header shows.
type AuditCommand struct {
	ID             string `json:"id"`
	Kind           string `json:"kind"`
	EnvelopeSHA256 string `json:"envelope_sha256"`
	Commit         string `json:"commit"`
	Seq            uint64 `json:"seq"`
}

// AuditSource is where a request came from; both fields are salted commitments.
type AuditSource struct {
	IP string `json:"ip"`
	UA string `json:"ua"`
}
