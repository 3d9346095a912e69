package wire

import (
	"encoding/json"
	"time"
)

// The structs of this file are what the agent and its executors (internal/opencode,
// internal/opencowork, the agent's echo) say to each other inside one process, and what
// the agent journals of it. They hold local content in clear: exact requests, transcripts,
// folders. Nothing of them leaves the desktop before the agent has redacted and sealed it.

// ExecCommand is one command as an executor gets it, after signature, expiry, revocation
// and policy were checked. Which fields are used depends on Kind; the others are empty.
type ExecCommand struct {
	// ID is the command's id: the lower-case hexadecimal hash of its envelope.
	ID string `json:"id"`
	// Kind is one of the command kinds, for example "prompt".
	Kind string `json:"kind"`
	// Ref is what Prepare returned for this command and the journal keeps; empty for
	// kinds that need none.
	Ref string `json:"ref,omitempty"`
	// StartedAt is when the journal's row became "started". Find needs it to know
	// whether an old request can still arrive.
	StartedAt time.Time `json:"startedAt,omitzero"`
	// SessionID names the session of prompt, abort, decisions and history.
	SessionID string `json:"sessionId,omitempty"`
	// Project is the owner's name for a folder (create_session; empty is the first one).
	Project string `json:"project,omitempty"`
	// Title is the title of a new session; empty lets the runtime choose.
	Title string `json:"title,omitempty"`
	// Text is the prompt.
	Text string `json:"text,omitempty"`
	// Agent and Variant choose the runtime's agent and model variant for a prompt.
	Agent   string `json:"agent,omitempty"`
	Variant string `json:"variant,omitempty"`
	// Attachments of a prompt, when the policy allowed them.
	Attachments []ExecAttachment `json:"attachments,omitempty"`
	// RequestID names the approval or question that is decided.
	RequestID string `json:"requestId,omitempty"`
	// Request is the request that is decided, as the agent showed it; Find looks at its
	// tool call when the request is no longer open.
	Request *ExecRequest `json:"request,omitempty"`
	// Allow is the decision of permission.respond: true allows this once, false denies.
	Allow bool `json:"allow,omitempty"`
	// Reason of a denial. When it is set the runtime hands it to the model and the turn
	// goes on; without it the turn ends.
	Reason string `json:"reason,omitempty"`
	// Answers of question.reply: for each question the labels or texts chosen.
	Answers [][]string `json:"answers,omitempty"`
	// MessageID is the turn an abort names (the ref of its prompt); when empty, whatever
	// turn the session runs.
	MessageID string `json:"messageId,omitempty"`
	// Cursor and Limit page through history: Cursor is the Next of the page before, or the
	// id of the oldest message known (empty: the newest page); Limit is the number of
	// messages, 1 to 100 (0: 50).
	Cursor string `json:"cursor,omitempty"`
	Limit  int    `json:"limit,omitempty"`
}

// ExecAttachment is one file given to a prompt; URL is a data: URL.
type ExecAttachment struct {
	Mime     string `json:"mime"`
	URL      string `json:"url"`
	Filename string `json:"filename,omitempty"`
}

// ExecResult is what a command brought. Which fields are set depends on the kind.
type ExecResult struct {
	// Session of create_session (the new one) and prompt (the one prompted).
	Session *ExecSession `json:"session,omitempty"`
	// Sessions of status, newest first.
	Sessions []ExecSession `json:"sessions,omitempty"`
	// Requests of status: what is open in those sessions.
	Requests []ExecRequest `json:"requests,omitempty"`
	// History of history.
	History *ExecPage `json:"history,omitempty"`
	// MessageID is the user message that a prompt became: the id of its turn.
	MessageID string `json:"messageId,omitempty"`
	// Decision is what became of a request: one of the Decision constants.
	Decision string `json:"decision,omitempty"`
	// Message is one short sentence for people, free of local content.
	Message string `json:"message,omitempty"`
}

// What became of an approval or a question.
const (
	DecisionAllowed  = "allowed"
	DecisionDenied   = "denied"
	DecisionAnswered = "answered"
	DecisionRejected = "rejected"
	// DecisionLost: the runtime ended before anyone decided.
	DecisionLost = "lost"
)

// ExecSession is one session of the runtime.
type ExecSession struct {
	ID       string `json:"id"`
	ParentID string `json:"parentId,omitempty"`
	Title    string `json:"title"`
	// Project is the owner's name for the session's folder; empty when the folder is
	// none of the named ones.
	Project string `json:"project,omitempty"`
	// Directory is a local path: it leaves the desktop only if the policy exposes paths.
	Directory string `json:"directory,omitempty"`
	// State is idle, busy or retry.
	State string `json:"state"`
	// Retry says why a model call is tried again, when State is retry.
	Retry string `json:"retry,omitempty"`
	// TurnID is the user message of the running turn, when one runs and is known.
	TurnID    string    `json:"turnId,omitempty"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
}

// States of a session.
const (
	SessionIdle  = "idle"
	SessionBusy  = "busy"
	SessionRetry = "retry"
)

// ExecPage is one page of a session's messages in order of time, the newest page first.
type ExecPage struct {
	SessionID string        `json:"sessionId"`
	Messages  []ExecMessage `json:"messages"`
	// Next is the Cursor of the page before this one in time; empty at the beginning.
	Next string `json:"next,omitempty"`
}

// ExecMessage is one message of a transcript.
type ExecMessage struct {
	ID   string `json:"id"`
	Role string `json:"role"`
	// ParentID of an assistant's message is the user message it answers.
	ParentID  string    `json:"parentId,omitempty"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
	// Error is the runtime's error object of a turn that failed.
	Error json.RawMessage `json:"error,omitempty"`
	// Parts are the runtime's part objects, unredacted.
	Parts []json.RawMessage `json:"parts"`
}

// ExecRequest is an approval or a question that waits for a person.
type ExecRequest struct {
	ID string `json:"id"`
	// Kind is permission or question.
	Kind string `json:"kind"`
	// SessionID is the session that asked; RootID the top of its tree, which is the
	// session people know (they are the same unless a subagent asked).
	SessionID string `json:"sessionId"`
	RootID    string `json:"rootId"`
	Project   string `json:"project,omitempty"`
	// MessageID and CallID name the tool call that waits.
	MessageID string `json:"messageId,omitempty"`
	CallID    string `json:"callId,omitempty"`
	// Permission is what is asked for (bash, edit, external_directory ...).
	Permission string `json:"permission,omitempty"`
	// Exact is the runtime's object byte for byte as it was first seen; the same bytes
	// are given as long as the request is open and this process lives.
	Exact json.RawMessage `json:"exact"`
}

// Kinds of a request.
const (
	RequestPermission = "permission"
	RequestQuestion   = "question"
)

// ExecEvent is one thing that happened in the runtime.
type ExecEvent struct {
	// Type is one of the Exec constants below.
	Type string `json:"type"`
	// SessionID and MessageID it happened in, when there are such.
	SessionID string `json:"sessionId,omitempty"`
	MessageID string `json:"messageId,omitempty"`
	// CommandRef is the Ref of the prompt whose turn this belongs to (the user message
	// id, also for turns that a person at the desktop started); empty when unknown.
	CommandRef string    `json:"commandRef,omitempty"`
	Time       time.Time `json:"time"`
	// Role is user or assistant for text and part events, when known.
	Role string `json:"role,omitempty"`
	// Data is the runtime's own payload, unredacted; may be empty.
	Data json.RawMessage `json:"data,omitempty"`
	// Request of request.open and request.closed. At a close only ID, Kind, SessionID
	// and RootID are certain.
	Request *ExecRequest `json:"request,omitempty"`
	// Outcome of turn.ended (Outcome constants) and request.closed (Decision constants).
	Outcome string `json:"outcome,omitempty"`
	// Session of a session event.
	Session *ExecSession `json:"session,omitempty"`
	// Health of a runtime event.
	Health *ExecHealth `json:"health,omitempty"`
}

// Types of an ExecEvent.
const (
	// ExecText is a piece of streamed text; Data is {"partID","field","delta"}.
	ExecText = "text"
	// ExecPart is a whole part (text at its end, a tool call's state); Data is the part.
	ExecPart = "part"
	// ExecSessionChanged says that a session began, changed its title or its state.
	ExecSessionChanged = "session"
	ExecRequestOpen    = "request.open"
	ExecRequestClosed  = "request.closed"
	ExecTurnStarted    = "turn.started"
	// ExecTurnEnded comes once per turn; Data is the runtime's error object, if any.
	ExecTurnEnded = "turn.ended"
	// ExecRuntime says that the runtime came up, went down or was replaced.
	ExecRuntime = "runtime"
	// ExecOther is any other event of a session; Data is {"type","properties"}.
	ExecOther = "other"
)

// Outcomes of a turn.
const (
	OutcomeDone        = "done"
	OutcomeError       = "error"
	OutcomeAborted     = "aborted"
	OutcomeInterrupted = "interrupted"
)

// ExecError is a definite failure: the command had no effect and never will have one.
// Code is one of the Exec error codes; Message is one sentence free of local content.
type ExecError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error returns the message with its code.
func (e *ExecError) Error() string { return e.Code + ": " + e.Message }

// Codes of an ExecError.
const (
	ExecInvalid     = "invalid"         // a field is missing or malformed
	ExecUnsupported = "unsupported"     // this executor does not know the kind
	ExecNotFound    = "not_found"       // no such session or project
	ExecNotRunning  = "not_running"     // abort: the turn named does not run
	ExecNotPending  = "not_pending"     // decision: the request is not open (any more)
	ExecDecided     = "already_decided" // decision: someone decided otherwise
	ExecRefused     = "refused"         // the runtime refused the call
	ExecUnavailable = "unavailable"     // the runtime was not reached, nothing was sent
)

// ExecTurn names a turn whose end the agent's journal does not have yet.
type ExecTurn struct {
	SessionID string `json:"sessionId"`
	// Ref of the prompt: the user message id.
	Ref string `json:"ref"`
}

// ExecFound is what became of a started command.
type ExecFound struct {
	State string `json:"state"`
	// Result, when Found: what Execute would have returned.
	Result ExecResult `json:"result,omitzero"`
	// Err, when Found and the command had no effect (for example ExecDecided).
	Err *ExecError `json:"err,omitempty"`
	// RetryAfter, when Unknown: ask again after this time; zero when asking again will
	// never help and a person must decide.
	RetryAfter time.Duration `json:"retryAfter,omitempty"`
}

// States of an ExecFound.
const (
	// FoundRan: it ran (or definitely failed, see Err).
	FoundRan = "found"
	// FoundAbsent: it never ran and never will; it may be executed again under its Ref.
	FoundAbsent = "absent"
	// FoundUnknown: not known, see RetryAfter.
	FoundUnknown = "unknown"
)

// ExecHealth is the executor's line of the status page. It holds local paths and
// addresses and is shown only at the desktop; it holds no secret.
type ExecHealth struct {
	// Executor is opencode, opencowork or echo.
	Executor string `json:"executor"`
	// Mode is own, isolated or attach.
	Mode string `json:"mode,omitempty"`
	// State is starting, ready, down or stopped.
	State   string `json:"state"`
	Version string `json:"version,omitempty"`
	PID     int    `json:"pid,omitempty"`
	// Address is where the runtime listens, for example http://127.0.0.1:40123.
	Address string `json:"address,omitempty"`
	// Adopted says that this runtime was started by an earlier agent.
	Adopted  bool `json:"adopted,omitempty"`
	Restarts int  `json:"restarts,omitempty"`
	// Since is when State was entered.
	Since time.Time `json:"since,omitzero"`
	// Problem is the last thing that went wrong while State is not ready.
	Problem  string        `json:"problem,omitempty"`
	Projects []ExecProject `json:"projects,omitempty"`
}

// States of an executor's runtime.
const (
	RuntimeStarting = "starting"
	RuntimeReady    = "ready"
	RuntimeDown     = "down"
	RuntimeStopped  = "stopped"
)

// ExecProject is a folder to which the desktop's owner gave a name.
type ExecProject struct {
	Name string `json:"name"`
	Dir  string `json:"dir"`
	// LoosenedBy lists what the folder's own configuration allows beyond asking.
	LoosenedBy []string `json:"loosenedBy,omitempty"`
}
