package pairing

import (
	"encoding/json"
	"fmt"
	"slices"

	"cowork.example.com/broker/pkg/proof"
)

// Rule is a three-way switch of a policy. The zero value is disabled.
type Rule byte

// The rules of remoteApprovals and remoteQuestions.
const (
	Disabled Rule = iota
	LocalConfirmation
	RemoteAllowed
)

var ruleNames = [...]string{Disabled: "disabled", LocalConfirmation: "local_confirmation", RemoteAllowed: "remote_allowed"}

// String returns the contract's word.
func (r Rule) String() string {
	if int(r) >= len(ruleNames) {
		return ruleNames[Disabled]
	}
	return ruleNames[r]
}

// MarshalText implements encoding.TextMarshaler.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText takes an unknown word for disabled, and reports it.
func (r *Rule) UnmarshalText(text []byte) error {
	*r = Disabled
	for i, name := range ruleNames {
		if name == string(text) {
			*r = Rule(i)
			return nil
		}
	}
	return fmt.Errorf("%q is none of disabled, local_confirmation, remote_allowed", text)
}

// Show says which surfaces get the full text of requests. The zero value is nobody.
type Show byte

// The values of showRequests.
const (
	ShowNobody Show = iota
	ShowDecide
)

// String returns the word.
func (s Show) String() string {
	if s == ShowDecide {
		return "decide"
	}
	return "nobody"
}

// MarshalText implements encoding.TextMarshaler.
func (s Show) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes an unknown word for nobody, and reports it.
func (s *Show) UnmarshalText(text []byte) error {
	*s = ShowNobody
	switch string(text) {
	case "decide":
		*s = ShowDecide
	case "nobody":
	default:
		return fmt.Errorf("%q is neither decide nor nobody", text)
	}
	return nil
}

// Policy is what a desktop's owner allows on one pairing: the contract's eight fields and our two. The zero value
// allows nothing but status, and revoking.
type Policy struct {
	AllowRemotePrompts     bool `json:"allowRemotePrompts"`
	AllowRemoteAbort       bool `json:"allowRemoteAbort"`
	RemoteApprovals        Rule `json:"remoteApprovals"`
	RemoteQuestions        Rule `json:"remoteQuestions"`
	ExposeArtifactBodies   bool `json:"exposeArtifactBodies"`
	ExposeLocalPaths       bool `json:"exposeLocalPaths"`
	ExposeLocalMcpDetails  bool `json:"exposeLocalMcpDetails"`
	AllowRemoteAttachments bool `json:"allowRemoteAttachments"`
	ShowRequests           Show `json:"showRequests"`
	History                bool `json:"history"`
}

// DefaultPolicy is what a new pairing gets: the contract's defaults, requests shown to those who decide, and
// history. remote_allowed is never a default.
func DefaultPolicy() Policy {
	return Policy{
		AllowRemotePrompts: true,
		AllowRemoteAbort:   true,
		RemoteApprovals:    LocalConfirmation,
		RemoteQuestions:    LocalConfirmation,
		ShowRequests:       ShowDecide,
		History:            true,
	}
}

// maxPolicy bounds a policy's JSON.
const maxPolicy = 4 << 10

// ParsePolicy reads a stored policy. A missing field means no. Anything malformed, an unknown field or word, or
// bytes after it give the zero Policy and an error that names the fault: the caller goes on with no.
func ParsePolicy(raw []byte) (Policy, error) {
	if len(raw) > maxPolicy {
		return Policy{}, fmt.Errorf("a policy has at most %d bytes", maxPolicy)
	}
	var keys map[string]json.RawMessage // encoding/json alone would take any spelling of a key
	if err := json.Unmarshal(raw, &keys); err != nil {
		return Policy{}, fmt.Errorf("reading the policy: %w", err)
	}
	for key := range keys {
		if !slices.Contains(policyFields, key) {
			return Policy{}, fmt.Errorf("reading the policy: unknown field %q", key)
		}
	}
	var p Policy
	if err := json.Unmarshal(raw, &p); err != nil {
		return Policy{}, fmt.Errorf("reading the policy: %w", err)
	}
	return p, nil
}

// PolicyFields are the names of a policy's fields, in the order of the document.
func PolicyFields() []string { return slices.Clone(policyFields) }

var policyFields = []string{
	"allowRemotePrompts", "allowRemoteAbort", "remoteApprovals", "remoteQuestions", "exposeArtifactBodies",
	"exposeLocalPaths", "exposeLocalMcpDetails", "allowRemoteAttachments", "showRequests", "history",
}

// Elevates reports whether p lets a surface decide where old did not: this leaves its own audit line.
func (p Policy) Elevates(old Policy) bool {
	return (p.RemoteApprovals == RemoteAllowed && old.RemoteApprovals != RemoteAllowed) ||
		(p.RemoteQuestions == RemoteAllowed && old.RemoteQuestions != RemoteAllowed)
}

// Summary is one printable line for an offer: what this policy lets a surface do.
func (p Policy) Summary() string {
	return fmt.Sprintf("prompts %s, abort %s, approvals %s, questions %s, attachments %s, history %s, paths %s",
		yes(p.AllowRemotePrompts), yes(p.AllowRemoteAbort), p.RemoteApprovals, p.RemoteQuestions,
		yes(p.AllowRemoteAttachments), yes(p.History), yes(p.ExposeLocalPaths))
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Answer is what a policy says to one command. The zero value blocks.
type Answer byte

// The answers.
const (
	Block Answer = iota
	Confirm
	Allow
)

// String returns block, confirm or allow.
func (a Answer) String() string { return [...]string{"block", "confirm", "allow"}[min(a, Allow)] }

// Reason codes of a Decision, stable, for results and audit lines.
const (
	ReasonAllowed      = "allowed"
	ReasonOutOfScope   = "out_of_scope"
	ReasonNoPrompts    = "policy_prompts"
	ReasonNoAttachment = "policy_attachments"
	ReasonNoAbort      = "policy_abort"
	ReasonNoApprovals  = "policy_approvals"
	ReasonNoQuestions  = "policy_questions"
	ReasonNoHistory    = "policy_history"
	ReasonConfirm      = "local_confirmation"
	ReasonUnknownKind  = "unknown_kind"
)

// Ask is what the desktop knows of a command when it asks its policy.
type Ask struct {
	Kind        proof.Kind
	Scopes      proof.Scopes // of the grant
	Self        bool         // a revoke_surface that names its sender
	Attachments bool         // the prompt has some
}

// Decision is a policy's answer and why.
type Decision struct {
	Answer Answer
	Reason string
}

// Decide says what this policy answers: scope first, then the rule of the kind. Creating a session needs
// allowRemotePrompts, since a session without prompts is of no use. Denying an approval needs the same rule as
// allowing it, as in the contract. Status and revoking need no policy.
func (p Policy) Decide(ask Ask) Decision {
	if !ask.Kind.Valid() {
		return Decision{Block, ReasonUnknownKind}
	}
	if !ask.Scopes.Allow(ask.Kind, ask.Self) {
		return Decision{Block, ReasonOutOfScope}
	}
	switch ask.Kind {
	case proof.CreateSession:
		return when(p.AllowRemotePrompts, ReasonNoPrompts)
	case proof.Prompt:
		if p.AllowRemotePrompts && ask.Attachments {
			return when(p.AllowRemoteAttachments, ReasonNoAttachment)
		}
		return when(p.AllowRemotePrompts, ReasonNoPrompts)
	case proof.Abort:
		return when(p.AllowRemoteAbort, ReasonNoAbort)
	case proof.PermissionRespond:
		return p.RemoteApprovals.decide(ReasonNoApprovals)
	case proof.QuestionReply, proof.QuestionReject:
		return p.RemoteQuestions.decide(ReasonNoQuestions)
	case proof.History:
		return when(p.History, ReasonNoHistory)
	case proof.Status, proof.RevokePairing, proof.RevokeSurface:
		return Decision{Allow, ReasonAllowed}
	}
	return Decision{Block, ReasonUnknownKind}
}

func when(ok bool, reason string) Decision {
	if ok {
		return Decision{Allow, ReasonAllowed}
	}
	return Decision{Block, reason}
}

func (r Rule) decide(reason string) Decision {
	switch r {
	case RemoteAllowed:
		return Decision{Allow, ReasonAllowed}
	case LocalConfirmation:
		return Decision{Confirm, ReasonConfirm}
	}
	return Decision{Block, reason}
}
