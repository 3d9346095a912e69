package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Bounds of a payload's fields, beside the envelope's own (wire.MaxEnvelopeBytes).
const (
	maxID          = 256 // bytes of a session, message or request id
	maxName        = 128 // of a project, agent or variant
	maxTitle       = 512
	maxReason      = 4 << 10 // of a denial
	maxAnswers     = 64      // questions, and answers to one
	maxAnswerBytes = 16 << 10
	maxAttachments = 10
	maxHistory     = 100 // messages in one page
)

// What a Decision says.
const (
	decideAllow  = "allow"
	decideDeny   = "deny"
	decideAnswer = "answer"
	decideReject = "reject"
)

var errPayload = errors.New("the payload is not of its kind")

// asked is a payload taken apart: what the executor gets, and what only the agent looks at.
type asked struct {
	exec    wire.ExecCommand
	digest  proof.Digest    // of the request that a decision answers
	surface proof.SurfaceID // of revoke_surface
}

// parsePayload reads the payload of one kind strictly: the header's kind alone selects the parser, and a payload with
// another kind's fields is refused (pairing-protocol.md section 4).
func parsePayload(kind proof.Kind, raw []byte) (asked, error) {
	read, ok := payloads[kind]
	if !ok {
		return asked{}, errPayload
	}
	a, err := read(raw)
	a.exec.Kind = kind.String()
	return a, err
}

var payloads = map[proof.Kind]func([]byte) (asked, error){
	proof.CreateSession:     readCreate,
	proof.Prompt:            readPrompt,
	proof.Abort:             readAbort,
	proof.PermissionRespond: func(raw []byte) (asked, error) { return readDecision(raw, decideAllow, decideDeny) },
	proof.QuestionReply:     func(raw []byte) (asked, error) { return readDecision(raw, decideAnswer) },
	proof.QuestionReject:    func(raw []byte) (asked, error) { return readDecision(raw, decideReject) },
	proof.Status: func(raw []byte) (asked, error) {
		_, err := strictly[wire.Status](raw)
		return asked{}, err
	},
	proof.History: readHistory,
	proof.RevokePairing: func(raw []byte) (asked, error) {
		_, err := strictly[wire.RevokePairing](raw)
		return asked{}, err
	},
	proof.RevokeSurface: readRevoke,
}

// strictly decodes one JSON object: no unknown field, nothing after it.
func strictly[T any](raw []byte) (T, error) {
	var v T
	trimmed := bytes.TrimSpace(raw)
	if len(trimmed) == 0 || trimmed[0] != '{' {
		return v, errPayload
	}
	dec := json.NewDecoder(bytes.NewReader(trimmed))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil || dec.InputOffset() != int64(len(trimmed)) {
		return v, errPayload
	}
	return v, nil
}

func readCreate(raw []byte) (asked, error) {
	c, err := strictly[wire.CreateSession](raw)
	if err != nil || len(c.Project) > maxName || len(c.Title) > maxTitle {
		return asked{}, errPayload
	}
	return asked{exec: wire.ExecCommand{Project: c.Project, Title: c.Title}}, nil
}

func readPrompt(raw []byte) (asked, error) {
	c, err := strictly[wire.Prompt](raw)
	switch {
	case err != nil, !isID(c.SessionID), len(c.Text) > wire.MaxPromptBytes, len(c.Agent) > maxName, len(c.Variant) > maxName,
		len(c.Attachments) > maxAttachments, strings.TrimSpace(c.Text) == "":
		return asked{}, errPayload
	}
	a := asked{exec: wire.ExecCommand{SessionID: c.SessionID, Text: c.Text, Agent: c.Agent, Variant: c.Variant}}
	for _, f := range c.Attachments {
		if !strings.HasPrefix(f.URL, "data:") || f.Mime == "" || len(f.Mime) > maxName || len(f.Filename) > maxID {
			return asked{}, errPayload
		}
		a.exec.Attachments = append(a.exec.Attachments, wire.ExecAttachment(f))
	}
	return a, nil
}

func readAbort(raw []byte) (asked, error) {
	c, err := strictly[wire.Abort](raw)
	if err != nil || !isID(c.SessionID) || !isID(c.MessageID) {
		return asked{}, errPayload
	}
	return asked{exec: wire.ExecCommand{SessionID: c.SessionID, MessageID: c.MessageID}}, nil
}

func readDecision(raw []byte, words ...string) (asked, error) {
	c, err := strictly[wire.Decision](raw)
	if err != nil || !isID(c.SessionID) || !isID(c.RequestID) || len(c.RequestSHA256) != len(proof.Digest{}) || len(c.Reason) > maxReason {
		return asked{}, errPayload
	}
	if !oneOf(c.Decision, words) || (c.Answers != nil) != (c.Decision == decideAnswer) || !boundedAnswers(c.Answers) {
		return asked{}, errPayload
	}
	return asked{
		digest: proof.Digest(c.RequestSHA256),
		exec: wire.ExecCommand{
			SessionID: c.SessionID, RequestID: c.RequestID, Allow: c.Decision == decideAllow, Reason: c.Reason, Answers: c.Answers,
		},
	}, nil
}

func boundedAnswers(answers [][]string) bool {
	if len(answers) > maxAnswers {
		return false
	}
	for _, list := range answers {
		if len(list) > maxAnswers {
			return false
		}
		for _, text := range list {
			if len(text) > maxAnswerBytes {
				return false
			}
		}
	}
	return true
}

func readHistory(raw []byte) (asked, error) {
	c, err := strictly[wire.History](raw)
	if err != nil || !isID(c.SessionID) || len(c.Before) > maxID || c.Limit < 0 || c.Limit > maxHistory {
		return asked{}, errPayload
	}
	return asked{exec: wire.ExecCommand{SessionID: c.SessionID, Cursor: c.Before, Limit: c.Limit}}, nil
}

func readRevoke(raw []byte) (asked, error) {
	c, err := strictly[wire.RevokeSurface](raw)
	if err != nil {
		return asked{}, errPayload
	}
	id, err := proof.ParseSurfaceID(c.Surface)
	if err != nil {
		return asked{}, errPayload
	}
	return asked{surface: id}, nil
}

// isID reports whether s may name something at the executor: not empty, bounded, printable ASCII without spaces.
func isID(s string) bool {
	if s == "" || len(s) > maxID {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

func oneOf(word string, words []string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}
