package agent

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// Every envelope whose signature and surface verify gets a final verdict, a line and a signed result; nothing of it
// runs.
func TestRefusals(t *testing.T) {
	prompt := wire.Prompt{SessionID: "s", Text: "x"}
	for name, c := range map[string]struct {
		envelope    func(d *desktop, p *phone) []byte
		state, code string
		line        string
	}{
		"malformed payload": {
			func(d *desktop, p *phone) []byte { return d.command(p, proof.Prompt, []byte(`{"sessionId":"s"`)) },
			wire.StateFailed, "malformed", "command.refused malformed",
		},
		"a payload with a kind of its own": {
			func(d *desktop, p *phone) []byte {
				return d.command(p, proof.Prompt, []byte(`{"sessionId":"s","text":"x","kind":"prompt"}`))
			},
			wire.StateFailed, "malformed", "command.refused malformed",
		},
		"another kind's payload": {
			func(d *desktop, p *phone) []byte {
				return d.command(p, proof.Abort, []byte(`{"sessionId":"s","messageId":"m","text":"x"}`))
			},
			wire.StateFailed, "malformed", "command.refused malformed",
		},
		"out of scope": {
			func(d *desktop, p *phone) []byte {
				return d.command(p, proof.RevokePairing, wire.RevokePairing{})
			},
			wire.StateFailed, "out_of_scope", "command.refused out_of_scope",
		},
		"revoke_surface of another without decide": {
			func(d *desktop, p *phone) []byte {
				return d.command(p, proof.RevokeSurface, wire.RevokeSurface{Surface: proof.SurfaceID{9}.String()})
			},
			wire.StateBlocked, "out_of_scope", "command.refused out_of_scope",
		},
		"expired": {
			func(d *desktop, p *phone) []byte {
				return d.commandFor(p, proof.Prompt, prompt, d.now().Add(-time.Hour), time.Minute)
			},
			wire.StateExpired, "expired", "command.refused expired",
		},
		"from the future": {
			func(d *desktop, p *phone) []byte {
				return d.commandFor(p, proof.Prompt, prompt, d.now().Add(proof.MaxSkew+time.Minute), time.Hour)
			},
			wire.StateFailed, "from_future", "command.refused from_future",
		},
		"attachments": {
			func(d *desktop, p *phone) []byte {
				with := prompt
				with.Attachments = []wire.Attachment{{Mime: "text/plain", URL: "data:,x"}}
				return d.command(p, proof.Prompt, with)
			},
			wire.StateBlocked, "policy_attachments", "command.refused policy_attachments",
		},
		"an erased bundle": {
			func(d *desktop, p *phone) []byte {
				e := d.command(p, proof.Prompt, prompt)
				if err := d.run.ident.ReplaceAll(t.Context(), d.now()); err != nil {
					t.Fatal(err)
				}
				return e
			},
			wire.StateFailed, "unknown_bundle", "command.refused unknown_bundle",
		},
		"revoked": {
			func(d *desktop, p *phone) []byte {
				d.record(d.agent.journal, journal.RevokeSurface(d.id, p.id, d.now(), "desktop"))
				return d.command(p, proof.Prompt, prompt)
			},
			wire.StateFailed, "revoked", "command.refused revoked",
		},
		"the desktop's clock was set back": {
			func(d *desktop, p *phone) []byte { d.shift(-time.Minute); return d.command(p, proof.Prompt, prompt) },
			wire.StateFailed, "clock_skew", "command.refused clock_skew",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesktop(t)
			p := d.link("phone", proof.ScopePrompt)
			d.boot()
			e := c.envelope(d, p)
			command := d.deliver(e, deliveredRefused)
			_, body := d.result(p, command)
			if body.Status != c.state || body.Code != c.code || body.Message == "" {
				t.Errorf("%+v", body)
			}
			d.wantLine(c.line)
			if row := d.row(command); row.State != journal.Done || row.Verdict != c.state {
				t.Errorf("row %+v", row)
			}
			d.deliverAs(command, 1, e, deliveredDuplicate) // the verdict is final
			if d.exec.total() != 0 {
				t.Error("it ran")
			}
		})
	}
}

// What no surface can be shown to have sent is refused without a signed result, and leaves a line.
func TestTurnedAway(t *testing.T) {
	for name, c := range map[string]struct {
		envelope func(d *desktop, p *phone) []byte
		reason   string
	}{
		"not an envelope": {func(*desktop, *phone) []byte { return []byte("junk") }, "malformed"},
		"altered": {func(d *desktop, p *phone) []byte {
			e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"})
			e[200] ^= 1
			return e
		}, "bad_signature"},
		"altered header": {func(d *desktop, p *phone) []byte {
			e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"})
			e[2] = byte(proof.CreateSession)
			return e
		}, "bad_signature"},
		"unknown surface": {func(d *desktop, p *phone) []byte {
			keys, _ := seal.NewSurface()
			return d.command(&phone{keys: keys}, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"})
		}, "unknown_surface"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesktop(t)
			p := d.link("phone", proof.ScopePrompt)
			d.boot()
			command := d.deliver(c.envelope(d, p), deliveredRefused)
			if r := d.broker.result(t, command); r.State != wire.StateFailed || r.Reason != c.reason || len(r.Sealed) != 0 {
				t.Errorf("%+v", r)
			}
			d.wantLine("command.refused " + c.reason)
			s, err := d.agent.journal.Surface(t.Context(), d.id, p.id)
			if err != nil || s.LastSeq != 0 {
				t.Errorf("the chain moved: %+v %v", s, err)
			}
			if d.exec.total() != 0 {
				t.Error("it ran")
			}
		})
	}
}

func TestBrokersClock(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.broker.offset = time.Hour
	d.boot()
	command := d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"}), deliveredRefused)
	_, body := d.result(p, command)
	if body.Code != "clock_skew" || strings.Count(body.Message, "UTC") != 2 {
		t.Fatalf("%+v", body)
	}
	abort := d.deliver(d.command(p, proof.Abort, wire.Abort{SessionID: "s", MessageID: "m"}), deliveredReceived)
	if _, body := d.result(p, abort); !body.OK {
		t.Fatalf("abort: %+v", body)
	}
}

func TestGapsAndSkips(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	prompt := func() []byte { return d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"}) }
	d.deliver(prompt(), deliveredReceived)

	ended := prompt() // cancelled at the broker, told by a skip
	d.skip(ended, "cmd_cancelled", deliveredReceived)
	d.skip(ended, "cmd_cancelled", deliveredDuplicate)
	d.deliver(prompt(), deliveredReceived)

	lost := prompt()
	after := prompt()
	command := d.deliver(after, deliveredRefused)
	e, _ := proof.ParseEnvelope(after)
	hash := e.Hash()
	if _, body := d.result(p, command); body.Code != reasonOutOfOrder || body.LastSeq != 5 || !bytes.Equal(body.LastHash, hash[:]) {
		t.Fatalf("%+v", body)
	}
	d.wantLine("command.gap " + reasonOutOfOrder)
	d.deliver(prompt(), deliveredReceived) // one lost envelope costs one refusal
	stale := d.deliver(lost, deliveredRefused)
	if _, body := d.result(p, stale); body.Code != reasonOutOfOrder || body.LastSeq != 6 {
		t.Fatalf("%+v", body)
	}
	fork := p.chain
	p.chain = proof.Chain{Seq: 6, Hash: proof.Digest{1}}
	command = d.deliver(prompt(), deliveredRefused)
	if _, body := d.result(p, command); body.Code != reasonOutOfOrder {
		t.Fatalf("wrong prev: %+v", body)
	}
	if fork == p.chain {
		t.Fatal("the fork is no fork")
	}
}

func TestForgedSkipMovesNothing(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	e, _ := proof.ParseEnvelope(d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"}))
	stub := e.Stub()
	stub.Sig[3] ^= 1
	k := wire.Skip{Command: "cmd_x", Header: e.HeaderBytes(), Envelope: stub.Hash[:], BodyHash: stub.BodyHash[:], Signature: stub.Sig[:], State: "expired"}
	var got wire.Delivered
	if err := d.broker.connected(t).send(tunnel.Command, wire.FrameSkip, k, &got); err != nil || got.State != deliveredRefused {
		t.Fatalf("%+v %v", got, err)
	}
	k.Signature = k.Signature[:10]
	if err := d.broker.connected(t).send(tunnel.Command, wire.FrameSkip, k, &got); err != nil || got.State != deliveredRefused {
		t.Fatalf("%+v %v", got, err)
	}
	if s, _ := d.agent.journal.Surface(t.Context(), d.id, p.id); s.LastSeq != 0 {
		t.Fatalf("%+v", s)
	}
	d.wantLine("command.skipped bad_signature")
}

func (d *desktop) skip(envelope []byte, command, want string) {
	d.t.Helper()
	e, err := proof.ParseEnvelope(envelope)
	if err != nil {
		d.t.Fatal(err)
	}
	stub := e.Stub()
	k := wire.Skip{
		Command: command, Header: stub.HeaderBytes(), Envelope: stub.Hash[:], BodyHash: stub.BodyHash[:], Signature: stub.Sig[:],
		State: wire.StateCancelled,
	}
	var got wire.Delivered
	if err := d.broker.connected(d.t).send(tunnel.Command, wire.FrameSkip, k, &got); err != nil || got.State != want {
		d.t.Fatalf("skip: %+v %v", got, err)
	}
}

// A mailbox id that the broker uses for two envelopes is its mistake: the second does not run under it.
func TestReusedCommandID(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	command := d.deliver(d.command(p, proof.Status, wire.Status{}), deliveredReceived)
	d.result(p, command)
	d.deliverAs(command, 7, d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"}), deliveredRefused)
	d.wantLine("command.refused command_id_reused")
}

// The policy's table is walked on the wire: what it blocks does not run, what it confirms waits, what it allows runs.
func TestPolicyIsAsked(t *testing.T) {
	digest := d32(7)
	payloads := map[proof.Kind]any{
		proof.CreateSession:     wire.CreateSession{},
		proof.Prompt:            wire.Prompt{SessionID: "s", Text: "x"},
		proof.Abort:             wire.Abort{SessionID: "s", MessageID: "m"},
		proof.PermissionRespond: wire.Decision{SessionID: "s", RequestID: "per_1", RequestSHA256: digest, Decision: decideAllow},
		proof.QuestionReply:     wire.Decision{SessionID: "s", RequestID: "que_1", RequestSHA256: digest, Decision: decideAnswer, Answers: [][]string{{"a"}}},
		proof.QuestionReject:    wire.Decision{SessionID: "s", RequestID: "que_1", RequestSHA256: digest, Decision: decideReject},
		proof.Status:            wire.Status{},
		proof.History:           wire.History{SessionID: "s"},
	}
	everything := pairing.Policy{
		AllowRemotePrompts: true, AllowRemoteAbort: true, RemoteApprovals: pairing.RemoteAllowed, RemoteQuestions: pairing.RemoteAllowed, History: true,
	}
	local := everything
	local.RemoteApprovals, local.RemoteQuestions = pairing.LocalConfirmation, pairing.LocalConfirmation
	for name, document := range map[string]string{
		"nothing": `{}`, "malformed": `{"allowRemotePrompts": true, "history": tru`, "unknown field": `{"allowRemotePrompts":true,"root":true}`,
		"unknown word": `{"remoteApprovals":"always"}`, "empty": ``, "everything": asJSON(t, everything), "local": asJSON(t, local),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesktop(t)
			p := d.link("phone", proof.ScopeDecide)
			d.boot()
			d.ask("per_1", wire.RequestPermission, digest)
			d.ask("que_1", wire.RequestQuestion, digest)
			d.record(d.agent.journal, journal.SetPolicy(d.id, []byte(document)))
			policy, _ := pairing.ParsePolicy([]byte(document))
			for _, kind := range proof.Kinds() {
				payload, ok := payloads[kind]
				if !ok {
					continue
				}
				if kind == proof.QuestionReject { // the reply before has claimed the first
					d.ask("que_2", wire.RequestQuestion, digest)
					payload = wire.Decision{SessionID: "s", RequestID: "que_2", RequestSHA256: digest, Decision: decideReject}
				}
				before := d.exec.total()
				want := policy.Decide(pairing.Ask{Kind: kind, Scopes: proof.ScopesUpTo(proof.ScopeDecide)})
				switch want.Answer {
				case pairing.Block:
					command := d.deliver(d.command(p, kind, payload), deliveredRefused)
					if _, body := d.result(p, command); body.Status != wire.StateBlocked || body.Code != want.Reason || d.exec.total() != before {
						t.Errorf("%s: %+v", kind, body)
					}
				case pairing.Confirm:
					command := d.deliver(d.command(p, kind, payload), deliveredWaiting)
					if d.row(command).State != journal.WaitingLocal || d.exec.total() != before {
						t.Errorf("%s does not wait", kind)
					}
				case pairing.Allow:
					command := d.deliver(d.command(p, kind, payload), deliveredReceived)
					if _, body := d.result(p, command); !body.OK || d.exec.total() != before+1 {
						t.Errorf("%s: %+v", kind, body)
					}
				}
			}
		})
	}
}

func d32(b byte) wire.Bytes {
	d := proof.Digest{b}
	return d[:]
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// ask opens a request as the publisher would.
func (d *desktop) ask(id, kind string, digest wire.Bytes) {
	d.t.Helper()
	d.record(d.agent.journal, journal.OpenRequest(journal.Request{
		Pairing: d.id, ID: id, Session: "s", Kind: kind, Bytes: []byte(`{"id":"` + id + `"}`), Digest: proof.Digest(digest),
		Exec: wire.ExecRequest{ID: id, Kind: kind, CallID: "call_" + id, Exact: []byte("{}")}, Ref: make([]byte, 16), Opened: d.now(),
	}))
}
