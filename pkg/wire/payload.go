package wire

import "encoding/json"

// Payloads inside sealed command envelopes. The header's kind alone selects which of these is parsed; unknown
// fields refuse the message.

// CreateSession starts a session. Project is a name that the desktop's owner gave to a folder.
type CreateSession struct {
	Project string `json:"project,omitempty"`
	Title   string `json:"title,omitempty"`
}

// Prompt sends text into a session.
type Prompt struct {
	SessionID   string       `json:"sessionId"`
	Text        string       `json:"text"`
	Agent       string       `json:"agent,omitempty"`
	Variant     string       `json:"variant,omitempty"`
	Attachments []Attachment `json:"attachments,omitempty"`
}

// Attachment is a file as a data: URL; needs the policy's allowRemoteAttachments.
type Attachment struct {
	Mime     string `json:"mime"`
	URL      string `json:"url"`
	Filename string `json:"filename,omitempty"`
}

// Abort ends the turn that a prompt started, and only that one.
type Abort struct {
	SessionID string `json:"sessionId"`
	MessageID string `json:"messageId"`
}

// Decision answers an open request: permission.respond (allow or deny), question.reply (answers) and
// question.reject. RequestSHA256 is proof's digest over the request's bytes as the desktop published them.
type Decision struct {
	SessionID     string     `json:"sessionId"`
	RequestID     string     `json:"request_id"`
	RequestSHA256 Bytes      `json:"request_sha256"`
	Decision      string     `json:"decision"` // allow, deny, answer, reject
	Reason        string     `json:"reason,omitempty"`
	Answers       [][]string `json:"answers,omitempty"`
	ShownAt       int64      `json:"shown_at"` // unix ms
}

// Status asks for sessions and open requests.
type Status struct{}

// History asks for a page of a session's transcript, newest last. Before is the id of the oldest message known.
type History struct {
	SessionID string `json:"sessionId"`
	Before    string `json:"before,omitempty"`
	Limit     int    `json:"limit,omitempty"` // 1..100, default 50
}

// RevokeSurface ends a surface: itself, or with decide another.
type RevokeSurface struct {
	Surface string `json:"surface"`
}

// RevokePairing ends the pairing.
type RevokePairing struct{}

// ResultBody is the plaintext of a sealed result.
type ResultBody struct {
	OK          bool            `json:"ok"`
	Status      string          `json:"status"` // a terminal state
	Code        string          `json:"code,omitempty"`
	Message     string          `json:"message,omitempty"`
	Session     *Session        `json:"session,omitempty"`
	Sessions    []Session       `json:"sessions,omitempty"`
	Requests    []Exact         `json:"requests,omitempty"`   // status: open requests (Request), each exactly as published; only for decide
	Messages    []Message       `json:"messages,omitempty"`   // history
	More        bool            `json:"more,omitempty"`       // history: older messages exist
	TurnID      string          `json:"turn_id,omitempty"`    // prompt: the message id, which abort and events name
	Policy      json.RawMessage `json:"policy,omitempty"`     // status
	LastSeq     uint64          `json:"last_seq,omitempty"`   // out_of_order: the last seq of this surface which the desktop journalled
	LastHash    Bytes           `json:"last_hash,omitempty"`  // and its envelope hash
	DecidedBy   string          `json:"decided_by,omitempty"` // already_decided: label of who was faster
	DesktopTime int64           `json:"desktop_time"`         // unix ms
}

// Exact is JSON inside JSON whose bytes must not change on the way, since a digest covers them: it travels as a string.
type Exact string

// Session is a session as surfaces see it: no paths.
type Session struct {
	ID      string `json:"id"`
	Title   string `json:"title"`
	Project string `json:"project,omitempty"`
	State   string `json:"state"`          // idle, busy, retry, waiting
	Turn    string `json:"turn,omitempty"` // message id of the running turn
	Created int64  `json:"created"`        // unix ms
	Updated int64  `json:"updated"`
	Parent  string `json:"parent,omitempty"`
}

// Message is one message of a transcript.
type Message struct {
	ID      string `json:"id"`
	Role    string `json:"role"` // user, assistant
	Created int64  `json:"created"`
	Error   string `json:"error,omitempty"`
	Parts   []Part `json:"parts"`
}

// Part is one part of a message. Type is text, reasoning, tool or file.
type Part struct {
	ID     string          `json:"id"`
	Type   string          `json:"type"`
	Text   string          `json:"text,omitempty"`
	Tool   string          `json:"tool,omitempty"`
	State  string          `json:"state,omitempty"` // tool: pending, running, completed, error
	Input  json.RawMessage `json:"input,omitempty"`
	Output string          `json:"output,omitempty"`
}

// Request is an open approval or question. Its JSON bytes, as published, are what a Decision's digest covers;
// the desktop keeps them and repeats them byte for byte.
type Request struct {
	ID        string          `json:"id"`
	Kind      string          `json:"kind"` // permission, question
	SessionID string          `json:"sessionId"`
	Project   string          `json:"project,omitempty"`
	Action    string          `json:"action,omitempty"` // permission: bash, edit, webfetch, external_directory ...
	Command   string          `json:"command,omitempty"`
	Path      string          `json:"path,omitempty"`
	Diff      string          `json:"diff,omitempty"`
	URL       string          `json:"url,omitempty"`
	Patterns  []string        `json:"patterns,omitempty"`
	Questions []Question      `json:"questions,omitempty"`
	Asked     int64           `json:"asked"` // unix ms
	Extra     json.RawMessage `json:"extra,omitempty"`
}

// Question is one question with its options.
type Question struct {
	Header   string   `json:"header,omitempty"`
	Question string   `json:"question"`
	Options  []Option `json:"options,omitempty"`
	Multiple bool     `json:"multiple,omitempty"`
	Custom   bool     `json:"custom,omitempty"`
}

// Option is one answer that a question offers.
type Option struct {
	Label       string `json:"label"`
	Description string `json:"description,omitempty"`
}

// Event types inside a sealed batch.
const (
	EventText          = "text"           // Data: TextDelta
	EventPart          = "part"           // Data: Part
	EventSession       = "session"        // Data: Session
	EventTurnStarted   = "turn.started"   // Data: Turn
	EventTurnEnded     = "turn.ended"     // Data: Turn
	EventRequestOpen   = "request.open"   // Data: Request (decide epoch key) or RequestSummary (view key)
	EventRequestClosed = "request.closed" // Data: RequestClosed
	EventRuntime       = "runtime"        // Data: RuntimeState
	EventSurfaceLinked = "surface.linked" // Data: SurfaceNote: every older surface is told
	EventSurfaceGone   = "surface.gone"   // Data: SurfaceNote
	EventNotice        = "notice"         // Data: Notice
)

// Event is one thing that happened; a batch's plaintext is a JSON array of these.
type Event struct {
	Type      string          `json:"type"`
	SessionID string          `json:"sessionId,omitempty"`
	MessageID string          `json:"messageId,omitempty"`
	Command   string          `json:"command,omitempty"` // envelope hash (base64url) of the prompt that started the turn
	Time      int64           `json:"time"`              // desktop's clock, unix ms
	Data      json.RawMessage `json:"data,omitempty"`
}

// TextDelta is streamed text of a part.
type TextDelta struct {
	Part string `json:"part"`
	Text string `json:"text"`
}

// Turn is the start or end of a turn. Outcome is done, error, aborted or interrupted.
type Turn struct {
	TurnID  string `json:"turn_id"` // message id of the prompt
	Outcome string `json:"outcome,omitempty"`
	Message string `json:"message,omitempty"`
}

// RequestSummary tells those without decide that something waits, without its text.
type RequestSummary struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Action string `json:"action,omitempty"`
	Asked  int64  `json:"asked"`
}

// RequestClosed: Outcome is allowed, denied, answered, rejected, lost or expired; By is a label, "desk" for the
// desktop itself.
type RequestClosed struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
	By      string `json:"by,omitempty"`
}

// RuntimeState says how the executor is: up, down, starting.
type RuntimeState struct {
	State   string `json:"state"`
	Message string `json:"message,omitempty"`
}

// SurfaceNote names a surface that was linked, revoked or has ended.
type SurfaceNote struct {
	Surface string   `json:"surface"`
	Label   string   `json:"label"`
	Scopes  []string `json:"scopes,omitempty"`
}
