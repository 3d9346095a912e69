package pairing

import (
	"strings"
	"testing"

	"cowork.example.com/broker/pkg/proof"
)

// The broker's table, typed from section 3 as letters: o open, c claimed, r revealed, k confirmed, d done, b burned,
// e expired, x cancelled, - refused.
const brokerWalk = `
             o c r k d b e x
 claim       c b b b - - - -
 wrong_claim o b b b - - - -
 last_claim  b b b b - - - -
 offer       - c - - - - - -
 reveal      - r - - - - - -
 grant       - - k - - - - -
 took        - - - d - - - -
 burn        b b b b - - - -
 cancel      x x x x - - - -
 expire      e e e e - - - -`

func TestWalkLinkTable(t *testing.T) {
	letters := map[string]proof.LinkState{
		"o": proof.LinkOpen, "c": proof.LinkClaimed, "r": proof.LinkRevealed, "k": proof.LinkConfirmed,
		"d": proof.LinkDone, "b": proof.LinkBurned, "e": proof.LinkExpired, "x": proof.LinkCancelled,
	}
	rows := strings.Split(strings.TrimLeft(brokerWalk, "\n"), "\n")
	columns := strings.Fields(rows[0])
	if len(rows)-1 != len(LinkEvents()) || len(columns) != len(proof.LinkStates()) {
		t.Fatalf("%d rows, %d columns", len(rows)-1, len(columns))
	}
	for i, row := range rows[1:] {
		cells, event := strings.Fields(row), LinkEvents()[i]
		if cells[0] != event.String() {
			t.Fatalf("row %d is of %s, the event is %s", i, cells[0], event)
		}
		for j, cell := range cells[1:] {
			from := letters[columns[j]]
			want, ok := letters[cell]
			if !ok {
				want = from
			}
			if got, moved := NextLink(from, event); got != want || moved != ok {
				t.Errorf("%s in %v: %v %v, want %v %v", event, from, got, moved, want, ok)
			}
		}
	}
	for _, e := range LinkEvents() {
		if _, ok := NextLink(0, e); ok {
			t.Errorf("%s moves no state at all", e)
		}
	}
}

// Every kind under every policy that matters, typed from the contract's 2.2 and our block.
func TestDecide(t *testing.T) {
	all := proof.ScopesUpTo(proof.ScopeDecide)
	def, none := DefaultPolicy(), Policy{}
	remote := def
	remote.RemoteApprovals, remote.RemoteQuestions, remote.AllowRemoteAttachments = RemoteAllowed, RemoteAllowed, true
	off := def
	off.RemoteApprovals, off.RemoteQuestions = Disabled, Disabled
	wild := def
	wild.RemoteApprovals, wild.RemoteQuestions = 9, 9 // no rule at all
	for _, c := range []struct {
		kind                         string
		def, none, remote, off, wild string
	}{
		{"create_session", "allow", "block policy_prompts", "allow", "allow", "allow"},
		{"prompt", "allow", "block policy_prompts", "allow", "allow", "allow"},
		{"prompt+", "block policy_attachments", "block policy_prompts", "allow", "block policy_attachments", "block policy_attachments"},
		{"abort", "allow", "block policy_abort", "allow", "allow", "allow"},
		{"permission.respond", "confirm", "block policy_approvals", "allow", "block policy_approvals", "block policy_approvals"},
		{"question.reply", "confirm", "block policy_questions", "allow", "block policy_questions", "block policy_questions"},
		{"question.reject", "confirm", "block policy_questions", "allow", "block policy_questions", "block policy_questions"},
		{"status", "allow", "allow", "allow", "allow", "allow"},
		{"revoke_pairing", "allow", "allow", "allow", "allow", "allow"},
		{"history", "allow", "block policy_history", "allow", "allow", "allow"},
		{"revoke_surface", "allow", "allow", "allow", "allow", "allow"},
	} {
		name, attachments := strings.CutSuffix(c.kind, "+")
		kind, err := proof.ParseKind(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range []Policy{def, none, remote, off, wild} {
			want := []string{c.def, c.none, c.remote, c.off, c.wild}[i]
			got := p.Decide(Ask{Kind: kind, Scopes: all, Attachments: attachments})
			if text := strings.TrimSpace(got.Answer.String() + " " + reasonUnless(got)); text != want {
				t.Errorf("%s under policy %d: %q, want %q", c.kind, i, text, want)
			}
			if got := p.Decide(Ask{Kind: kind}); got.Answer != Block || got.Reason != ReasonOutOfScope {
				t.Errorf("%s without scope: %+v", c.kind, got)
			}
		}
	}
	if got := remote.Decide(Ask{Kind: 99, Scopes: all}); got.Answer != Block || got.Reason != ReasonUnknownKind {
		t.Errorf("no kind: %+v", got)
	}
	if got := def.Decide(Ask{Kind: proof.RevokeSurface, Self: true}); got.Answer != Allow {
		t.Errorf("a surface ends itself: %+v", got)
	}
}

func reasonUnless(d Decision) string {
	if d.Answer == Block {
		return d.Reason
	}
	return ""
}

func TestParsePolicy(t *testing.T) {
	p, err := ParsePolicy([]byte(`{"allowRemotePrompts":true,"allowRemoteAbort":true,"remoteApprovals":"local_confirmation",
		"remoteQuestions":"local_confirmation","exposeArtifactBodies":false,"exposeLocalPaths":false,"exposeLocalMcpDetails":false,
		"allowRemoteAttachments":false,"showRequests":"decide","history":true}`))
	if err != nil || p != DefaultPolicy() {
		t.Errorf("the defaults: %+v %v", p, err)
	}
	if p.RemoteApprovals == RemoteAllowed || p.RemoteQuestions == RemoteAllowed {
		t.Error("remote_allowed is a default")
	}
	if p, err := ParsePolicy([]byte(`{"allowRemotePrompts":true}`)); err != nil || p != (Policy{AllowRemotePrompts: true}) {
		t.Errorf("missing fields mean no: %+v %v", p, err)
	}
	for _, bad := range []string{
		"", "[]", "yes", `{"allowRemotePrompts":true,"x":1}`, `{"ALLOWREMOTEPROMPTS":true}`, `{"allowRemotePrompts":"yes"}`,
		`{"allowRemotePrompts":true,"remoteApprovals":"always"}`, `{"allowRemotePrompts":true,"remoteApprovals":2}`,
		`{"allowRemotePrompts":true,"showRequests":"all"}`, `{"allowRemotePrompts":true}{}`,
		`{"allowRemotePrompts":true` + strings.Repeat(" ", maxPolicy) + `}`,
	} {
		if p, err := ParsePolicy([]byte(bad)); err == nil || p != (Policy{}) {
			t.Errorf("%.60s: %+v %v", bad, p, err)
		}
	}
	remote := DefaultPolicy()
	remote.RemoteQuestions = RemoteAllowed
	if !remote.Elevates(DefaultPolicy()) || remote.Elevates(remote) || DefaultPolicy().Elevates(remote) {
		t.Error("raising to remote_allowed is seen wrongly")
	}
	if s := remote.Summary(); len(s) > proof.MaxPolicyText || !strings.Contains(s, "questions remote_allowed") {
		t.Errorf("%q", s)
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(`{"remoteApprovals":"remote_allowed","history":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePolicy(b); err != nil && p != (Policy{}) {
			t.Errorf("%q is malformed and allows %+v", b, p)
		}
	})
}
