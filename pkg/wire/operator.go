package wire

import "encoding/json"

// CodeIssue asks for an enrolment code. TTLSeconds 0 means 15 minutes; at most 24 hours.
type CodeIssue struct {
	TTLSeconds int    `json:"ttl_seconds,omitempty"`
	Note       string `json:"note,omitempty"`
}

// CodeIssued is shown once. Text is typed, Link pasted; both carry (part of) the hash of the broker's key.
type CodeIssued struct {
	ID      string `json:"id"`
	Text    string `json:"text"`
	Link    string `json:"link"`
	Expires int64  `json:"expires"` // unix ms
}

// EnrolmentCode is what the operator sees of a code afterwards: never the code.
type EnrolmentCode struct {
	ID      string `json:"id"`
	State   string `json:"state"` // open, used, expired, burned, revoked
	Tries   int    `json:"tries"`
	Note    string `json:"note,omitempty"`
	Created int64  `json:"created"`
	Expires int64  `json:"expires"`
	Pairing string `json:"pairing,omitempty"` // when used
}

// OperatorPairing is one pairing in the operator's list.
type OperatorPairing struct {
	Pairing  string `json:"pairing"`
	Host     string `json:"host"`
	State    string `json:"state"` // active, locked, revoked
	Reason   string `json:"reason,omitempty"`
	Sealed   bool   `json:"sealed"`
	Executor string `json:"executor"`
	Online   bool   `json:"online"`
	Since    int64  `json:"since"` // unix ms: connected since, or last seen
	Created  int64  `json:"created"`
	Surfaces int    `json:"surfaces"`
	Open     int    `json:"open"` // open commands
}

// OperatorSurface is one surface in the operator's list.
type OperatorSurface struct {
	Surface  string   `json:"surface"`
	Pairing  string   `json:"pairing"`
	Label    string   `json:"label"`
	Scopes   []string `json:"scopes"`
	State    string   `json:"state"` // active, revoked, expired
	Created  int64    `json:"created"`
	LastUsed int64    `json:"last_used"`
	NotAfter int64    `json:"not_after"`
}

// AuditPage is a run of lines, each exactly as stored.
type AuditPage struct {
	Lines []json.RawMessage `json:"lines"`
	Next  uint64            `json:"next"` // after= of the next call
}
