package agent

import (
	"encoding/json"
	"strings"
	"testing"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Each bound is met exactly, and refused one byte over.
func TestPayloadBounds(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	digest := d32(1)
	decision := func(change func(*wire.Decision)) wire.Decision {
		d := wire.Decision{SessionID: "s", RequestID: "r", RequestSHA256: digest, Decision: decideAllow}
		change(&d)
		return d
	}
	answers := func(questions, each, size int) [][]string {
		all := make([][]string, questions)
		for i := range all {
			all[i] = make([]string, each)
			for j := range all[i] {
				all[i][j] = x(size)
			}
		}
		return all
	}
	files := make([]wire.Attachment, maxAttachments+1)
	for i := range files {
		files[i] = wire.Attachment{Mime: "text/plain", URL: "data:,x"}
	}
	for name, c := range map[string]struct {
		kind      proof.Kind
		fits, not any
	}{
		"title":       {proof.CreateSession, wire.CreateSession{Title: x(maxTitle)}, wire.CreateSession{Title: x(maxTitle + 1)}},
		"project":     {proof.CreateSession, wire.CreateSession{Project: x(maxName)}, wire.CreateSession{Project: x(maxName + 1)}},
		"text":        {proof.Prompt, wire.Prompt{SessionID: "s", Text: x(wire.MaxPromptBytes)}, wire.Prompt{SessionID: "s", Text: x(wire.MaxPromptBytes + 1)}},
		"blank text":  {proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"}, wire.Prompt{SessionID: "s", Text: " \n"}},
		"session":     {proof.Prompt, wire.Prompt{SessionID: x(maxID), Text: "x"}, wire.Prompt{SessionID: x(maxID + 1), Text: "x"}},
		"no session":  {proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"}, wire.Prompt{Text: "x"}},
		"odd session": {proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"}, wire.Prompt{SessionID: "a b", Text: "x"}},
		"agent":       {proof.Prompt, wire.Prompt{SessionID: "s", Text: "x", Agent: x(maxName)}, wire.Prompt{SessionID: "s", Text: "x", Agent: x(maxName + 1)}},
		"variant":     {proof.Prompt, wire.Prompt{SessionID: "s", Text: "x", Variant: x(maxName)}, wire.Prompt{SessionID: "s", Text: "x", Variant: x(maxName + 1)}},
		"attachments": {proof.Prompt, wire.Prompt{SessionID: "s", Text: "x", Attachments: files[1:]}, wire.Prompt{SessionID: "s", Text: "x", Attachments: files}},
		"attachment by address": {
			proof.Prompt,
			wire.Prompt{SessionID: "s", Text: "x", Attachments: files[:1]},
			wire.Prompt{SessionID: "s", Text: "x", Attachments: []wire.Attachment{{Mime: "text/plain", URL: "file:///etc/passwd"}}},
		},
		"abort":          {proof.Abort, wire.Abort{SessionID: "s", MessageID: "m"}, wire.Abort{SessionID: "s"}},
		"reason":         {proof.PermissionRespond, decision(func(d *wire.Decision) { d.Reason = x(maxReason) }), decision(func(d *wire.Decision) { d.Reason = x(maxReason + 1) })},
		"digest":         {proof.PermissionRespond, decision(func(*wire.Decision) {}), decision(func(d *wire.Decision) { d.RequestSHA256 = digest[1:] })},
		"word":           {proof.PermissionRespond, decision(func(d *wire.Decision) { d.Decision = decideDeny }), decision(func(d *wire.Decision) { d.Decision = "always" })},
		"another's word": {proof.QuestionReject, decision(func(d *wire.Decision) { d.Decision = decideReject }), decision(func(*wire.Decision) {})},
		"answers to an approval": {
			proof.PermissionRespond, decision(func(*wire.Decision) {}),
			decision(func(d *wire.Decision) { d.Answers = answers(1, 1, 1) }),
		},
		"no answers": {
			proof.QuestionReply, decision(func(d *wire.Decision) { d.Decision, d.Answers = decideAnswer, [][]string{{}} }),
			decision(func(d *wire.Decision) { d.Decision = decideAnswer }),
		},
		"questions": {
			proof.QuestionReply, decision(func(d *wire.Decision) { d.Decision, d.Answers = decideAnswer, answers(maxAnswers, 1, 1) }),
			decision(func(d *wire.Decision) { d.Decision, d.Answers = decideAnswer, answers(maxAnswers+1, 1, 1) }),
		},
		"answers to one": {
			proof.QuestionReply, decision(func(d *wire.Decision) { d.Decision, d.Answers = decideAnswer, answers(1, maxAnswers, 1) }),
			decision(func(d *wire.Decision) { d.Decision, d.Answers = decideAnswer, answers(1, maxAnswers+1, 1) }),
		},
		"answer": {
			proof.QuestionReply, decision(func(d *wire.Decision) { d.Decision, d.Answers = decideAnswer, answers(1, 1, maxAnswerBytes) }),
			decision(func(d *wire.Decision) { d.Decision, d.Answers = decideAnswer, answers(1, 1, maxAnswerBytes+1) }),
		},
		"history": {proof.History, wire.History{SessionID: "s", Limit: maxHistory}, wire.History{SessionID: "s", Limit: maxHistory + 1}},
		"surface": {proof.RevokeSurface, wire.RevokeSurface{Surface: proof.SurfaceID{1}.String()}, wire.RevokeSurface{Surface: "me"}},
		"status":  {proof.Status, wire.Status{}, json.RawMessage(`{"all":true}`)},
		"pairing": {proof.RevokePairing, wire.RevokePairing{}, json.RawMessage(`null`)},
	} {
		if a, err := parsePayload(c.kind, []byte(asJSON(t, c.fits))); err != nil || a.exec.Kind != c.kind.String() {
			t.Errorf("%s: refused at the bound: %v", name, err)
		}
		if _, err := parsePayload(c.kind, []byte(asJSON(t, c.not))); err == nil {
			t.Errorf("%s: taken over the bound", name)
		}
	}
	if _, err := parsePayload(proof.Kind(99), []byte(`{}`)); err == nil {
		t.Error("an unknown kind was taken")
	}
}

// No payload of one kind is one of another kind, but for those without fields.
func FuzzParsePayload(f *testing.F) {
	for _, seed := range []string{`{}`, `{"sessionId":"s","text":"x"}`, `{"sessionId":"s","messageId":"m"}`, `{"surface":"AAAAAAAAAAAAAAAAAAAAAA"}`, `[]`, `{"sessionId":"s"}x`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, kind := range proof.Kinds() {
			a, err := parsePayload(kind, raw)
			if err != nil {
				continue
			}
			if !json.Valid(raw) {
				t.Fatalf("%s took what is no JSON", kind)
			}
			if len(a.exec.SessionID) > maxID || len(a.exec.Text) > wire.MaxPromptBytes || len(a.exec.Attachments) > maxAttachments {
				t.Fatalf("%s took what is over a bound", kind)
			}
		}
	})
}
