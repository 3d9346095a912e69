package broker

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// testSurface is a linked surface made of pkg/seal and plain HTTP.
type testSurface struct {
	t     *testing.T
	w     *world
	desk  *testDesk
	keys  *seal.Surface
	grant proof.Grant
	id    string
	chain proof.Chain
	token string
}

// claim is a linking up to the digits, at the surface's end.
type claim struct {
	w       *world
	link    *seal.SurfaceLink
	session wire.Bytes
	digits  string
}

// join claims a session and reveals.
func (w *world) join(text string, mode proof.Mode, scope proof.Scope) *claim {
	w.t.Helper()
	c, body := w.newClaim(text, mode, scope)
	var out wire.LinkClaimReply
	w.ask(http.MethodPost, wire.PathLinkClaim, "", body, &out)
	c.session = out.Session
	offer, err := proof.ParseMessage[proof.Offer](out.Offer)
	if err != nil {
		w.t.Fatal(err)
	}
	reveal, shown, err := c.link.Offer(offer, w.clock.now())
	if err != nil {
		w.t.Fatal(err)
	}
	w.ask(http.MethodPost, wire.PathLinkReveal, "", wire.LinkRevealRequest{Session: c.session, Reveal: mustJSON(w.t, reveal)}, nil)
	c.digits = shown.Digits
	return c
}

func (w *world) newClaim(text string, mode proof.Mode, scope proof.Scope) (*claim, wire.LinkClaimRequest) {
	w.t.Helper()
	join := seal.JoinLink
	if mode == proof.ModeCode {
		join = seal.JoinCode
	}
	link, err := join(text, w.started.PageOrigin, "phone", scope, w.clock.now())
	if err != nil {
		w.t.Fatal(err)
	}
	msg, err := link.Claim(w.clock.now())
	if err != nil {
		w.t.Fatal(err)
	}
	return &claim{w: w, link: link}, wire.LinkClaimRequest{Claim: mustJSON(w.t, msg)}
}

func mustJSON(t *testing.T, v any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// linkSurface links a surface to a connected desktop, digits and all.
func (d *testDesk) linkSurface(mode proof.Mode, scope proof.Scope) *testSurface {
	d.t.Helper()
	w := d.w
	c := w.join(d.openLink(mode, scope), mode, scope)
	linked := d.typeDigits(c.digits)
	var out wire.LinkGrantReply
	w.ask(http.MethodPost, wire.PathLinkGrant+"?wait=10", "", wire.LinkGrantRequest{Session: c.session}, &out)
	if out.State != "done" {
		d.t.Fatalf("the grant is %s", out.State)
	}
	msg, err := proof.ParseMessage[proof.GrantMsg](out.Grant)
	if err != nil {
		d.t.Fatal(err)
	}
	needs, err := c.link.Grant(msg, w.clock.now())
	if err == nil && needs {
		err = c.link.FinishCode(linked.FinishCode, w.clock.now())
	}
	if err != nil {
		d.t.Fatal(err)
	}
	joined, err := c.link.Joined()
	if err != nil {
		d.t.Fatal(err)
	}
	w.ask(http.MethodPost, wire.PathLinkFinish, "", wire.LinkFinishRequest{Session: c.session, Finish: mustJSON(d.t, joined.Finish)}, nil)
	s := &testSurface{t: d.t, w: w, desk: d, keys: joined.Keys, grant: joined.Grant, id: joined.Grant.Surface.String()}
	s.signIn()
	return s
}

// signIn gets a token.
func (s *testSurface) signIn() {
	s.t.Helper()
	var out wire.AuthToken
	s.w.ask(http.MethodPost, wire.PathAuthToken, "", s.auth(), &out)
	s.token = out.Token
}

// auth asks for a nonce and signs it.
func (s *testSurface) auth() wire.AuthTokenRequest {
	s.t.Helper()
	var n wire.Nonce
	s.w.ask(http.MethodPost, wire.PathAuthNonce, "", wire.AuthNonceRequest{Pairing: s.desk.id, Surface: s.id}, &n)
	a := proof.SurfaceAuth{
		Origin: s.w.started.PageOrigin, Broker: s.w.started.Key, Pairing: s.desk.keys.Pairing(), Surface: s.grant.Surface,
		Nonce: n.Nonce, Time: s.w.clock.now().UnixMilli(),
	}
	return wire.AuthTokenRequest{Pairing: s.desk.id, Surface: s.id, Nonce: n.Nonce, Time: a.Time, Signature: a.Sign(s.keys.Signer())}
}

// seal makes the next envelope of the chain, which moves on.
func (s *testSurface) seal(kind proof.Kind, payload any, life time.Duration) []byte {
	s.t.Helper()
	bundle, err := proof.OpenBundle(s.desk.keys.Dsig(), s.desk.keys.Bundle())
	if err != nil {
		s.t.Fatal(err)
	}
	now := s.w.clock.now()
	raw, err := s.keys.SealCommand(bundle, seal.Command{Kind: kind, Payload: mustJSON(s.t, payload), Iat: now, Exp: now.Add(life)}, s.chain)
	if err != nil {
		s.t.Fatal(err)
	}
	env, err := proof.ParseEnvelope(raw)
	if err != nil {
		s.t.Fatal(err)
	}
	s.chain = s.chain.Advance(env.Header, env.Hash())
	return raw
}

func (s *testSurface) commands() string { return at(wire.PathCommands, s.desk.id) }

// prompt posts a prompt and returns its state.
func (s *testSurface) prompt(text, query string) wire.Command {
	s.t.Helper()
	raw := s.seal(proof.Prompt, wire.Prompt{SessionID: "ses_1", Text: text}, time.Hour)
	var out wire.Command
	s.w.ask(http.MethodPost, s.commands()+query, s.token, wire.CommandPost{Sealed: raw}, &out)
	return out
}

func (s *testSurface) get(id, query string) wire.Command {
	s.t.Helper()
	var out wire.Command
	s.w.ask(http.MethodGet, at(wire.PathCommand, s.desk.id, id)+query, s.token, nil, &out)
	return out
}

// open opens a result.
func (s *testSurface) open(c wire.Command) string {
	s.t.Helper()
	h, text, err := s.keys.OpenResult(s.desk.keys.Dsig(), c.Result)
	if err != nil || h.Command != c.ID {
		s.t.Fatalf("the result does not open: %v (%s)", err, h.Command)
	}
	return string(text)
}

func (s *testSurface) subscribe(after *uint64) []wire.StreamSubscribe {
	return []wire.StreamSubscribe{{Pairing: s.desk.id, Token: s.token, After: after}}
}
