// Package audit builds the lines of the audit log. A line is written in the same transaction as the change it
// describes (internal/store/sqlite, internal/journal); what it says about people and networks is a salted
// commitment, whose value stands beside the log and can be erased without changing a byte of a line.
package audit

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// Outcome says how it went.
type Outcome string

// The outcomes.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Refused Outcome = "refused"
	Unknown Outcome = "unknown"
)

// Kinds of actors and targets.
const (
	Operator = "operator"
	Desktop  = "desktop"
	Surface  = "surface"
	Broker   = "broker"
	Network  = "network" // someone whose identity was not proven
	Pairing  = "pairing"
	Command  = "command"
	Request  = "request"
	Link     = "link"
	EnrolKey = "code"
)

// Actor is who did it, in clear. Label (a surface's label, a desktop's host name) is committed to, not written.
type Actor struct {
	Kind  string
	ID    string
	Label string
	Key   string // public, base64url; empty when no key was proven
}

// Source is where a request came from, in clear; both are committed to, not written.
type Source struct {
	IP string
	UA string
}

// Record is what a line says, in clear. Type and Time are required, Outcome defaults to Success. Content, codes,
// tokens and paths have no field here, and Diff must not carry them.
type Record struct {
	Type          Type
	Time          time.Time
	Outcome       Outcome
	Reason        string // a stable code, never free text
	Pairing       string
	Actor         Actor
	Target        wire.AuditTarget
	Session       string
	Command       *wire.AuditCommand
	RequestSHA256 string
	Decision      string
	Source        Source
	PolicyVersion int
	Diff          json.RawMessage
}

// Entry is a line that a store can append, and the values behind its commitments for the side table.
type Entry struct {
	Line   wire.AuditLine
	Values []Value
}

// Build makes the entry of a record.
func Build(r Record) Entry {
	if r.Outcome == "" {
		r.Outcome = Success
	}
	return Commit(wire.AuditLine{
		Time:          r.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"),
		Type:          string(r.Type),
		Outcome:       string(r.Outcome),
		Reason:        r.Reason,
		Pairing:       r.Pairing,
		Actor:         wire.AuditActor{Kind: r.Actor.Kind, ID: r.Actor.ID, Label: r.Actor.Label, Key: r.Actor.Key},
		Target:        r.Target,
		Session:       r.Session,
		Command:       r.Command,
		RequestSHA256: r.RequestSHA256,
		Decision:      r.Decision,
		Source:        wire.AuditSource{IP: r.Source.IP, UA: r.Source.UA},
		PolicyVersion: r.PolicyVersion,
		Diff:          r.Diff,
	})
}

// Commit makes the entry of a line whose label, ip and ua are still in clear, as pkg/pairing hands it over: a random
// id, the type's code, and a commitment with a fresh salt in the place of each value.
func Commit(l wire.AuditLine) Entry {
	var e Entry
	l.V, l.ID, l.Code = wire.AuditVersion, "aud_"+rand.Text(), Type(l.Type).Code()
	l.Actor.Label = e.commit("label", l.Actor.Label)
	l.Source = wire.AuditSource{IP: e.commit("ip", l.Source.IP), UA: e.commit("ua", l.Source.UA)}
	e.Line = l
	return e
}

// Encode gives the entry its place in the log and returns the exact bytes to store. It refuses a line whose type is
// not in the table: such a line could not be found again.
func (e Entry) Encode(seq uint64) ([]byte, error) {
	if Type(e.Line.Type).Code() == "" {
		return nil, fmt.Errorf("audit: no such type %q", e.Line.Type)
	}
	e.Line.Seq = seq
	b, err := json.Marshal(e.Line)
	if err != nil {
		return nil, fmt.Errorf("audit: encoding a line: %w", err)
	}
	return b, nil
}
