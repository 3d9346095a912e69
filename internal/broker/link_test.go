package broker

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

func TestSecondClaimBurnsAndTheOwnerIsTold(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	text := d.openLink(proof.ModeLink, proof.ScopePrompt)
	c := w.join(text, proof.ModeLink, proof.ScopePrompt)
	_, second := w.newClaim(text, proof.ModeLink, proof.ScopePrompt)
	w.refused(http.MethodPost, wire.PathLinkClaim, "", second, 403, wire.CodeBadCode)
	if end := body[wire.LinkEnd](d.told(wire.FrameLinkLost)); end.Reason != "second_claim" {
		t.Errorf("the owner was told %+v", end)
	}
	var out wire.LinkGrantReply
	w.ask(http.MethodPost, wire.PathLinkGrant+"?wait=5", "", wire.LinkGrantRequest{Session: c.session}, &out)
	if out.State != "burned" || out.Grant != nil {
		t.Errorf("the claimer hears %+v", out)
	}
}

func TestUnknownUsedBurnedAndExpiredGiveOneAnswer(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	answers := map[string]string{}
	claim := func(name, text string) {
		_, body := w.newClaim(text, proof.ModeLink, proof.ScopePrompt)
		p := w.refused(http.MethodPost, wire.PathLinkClaim, "", body, 403, wire.CodeBadCode)
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		answers[string(raw)] = name
	}
	claim("unknown", seal.FormatLink(w.started.PageOrigin, proof.LinkID{1}, seal.NewLinkSecret()))
	used := d.openLink(proof.ModeLink, proof.ScopePrompt)
	w.join(used, proof.ModeLink, proof.ScopePrompt)
	claim("second", used)
	d.told(wire.FrameLinkLost)
	claim("burned", used)
	expired := d.openLink(proof.ModeLink, proof.ScopePrompt)
	w.clock.advance(proof.LinkLife + time.Second)
	claim("expired", expired)
	if len(answers) != 1 {
		t.Errorf("different answers: %v", answers)
	}
}

func TestSessionExpiresAtBothEnds(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	c := w.join(d.openLink(proof.ModeLink, proof.ScopePrompt), proof.ModeLink, proof.ScopePrompt)
	w.clock.advance(proof.LinkLife + time.Second)
	if end := body[wire.LinkEnd](d.told(wire.FrameLinkLost)); end.Reason != "expired" {
		t.Errorf("the desktop was told %+v", end)
	}
	var out wire.LinkGrantReply
	w.ask(http.MethodPost, wire.PathLinkGrant, "", wire.LinkGrantRequest{Session: c.session}, &out)
	if out.State != "expired" {
		t.Errorf("the surface hears %s", out.State)
	}
	d.openLink(proof.ModeLink, proof.ScopePrompt) // and another one can begin
}

func TestSurfaceCancels(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	c := w.join(d.openLink(proof.ModeCode, proof.ScopePrompt), proof.ModeCode, proof.ScopePrompt)
	w.ask(http.MethodPost, wire.PathLinkCancel, "", wire.LinkGrantRequest{Session: c.session}, nil)
	if end := body[wire.LinkEnd](d.told(wire.FrameLinkLost)); end.Reason != "cancelled" {
		t.Errorf("the desktop was told %+v", end)
	}
	w.refused(http.MethodPost, wire.PathLinkCancel, "", wire.LinkGrantRequest{Session: c.session}, 409, wire.CodeConflict)
	w.refused(http.MethodPost, wire.PathLinkGrant, "", wire.LinkGrantRequest{Session: make(wire.Bytes, 16)}, 404, wire.CodeNotFound)
}

func TestGrantThatWasNotTakenIsRevoked(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	c := w.join(d.openLink(proof.ModeLink, proof.ScopePrompt), proof.ModeLink, proof.ScopePrompt)
	d.typeDigits(c.digits)
	w.clock.advance(proof.LinkLife + time.Second)
	d.told(wire.FrameLinkLost)
	var surfaces []wire.OperatorSurface
	w.operate(http.MethodGet, at(wire.PathOpSurfaces, d.id), nil, &surfaces)
	if len(surfaces) != 1 || surfaces[0].State != "revoked" {
		t.Errorf("surfaces: %+v", surfaces)
	}
}

func TestDesktopBurnsASession(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	c := w.join(d.openLink(proof.ModeLink, proof.ScopePrompt), proof.ModeLink, proof.ScopePrompt)
	pid := d.session.Pid()
	d.must(tunnel.Control, wire.FrameLinkEnd, wire.LinkEnd{Pid: pid[:], Reason: "burned"}, nil)
	var out wire.LinkGrantReply
	w.ask(http.MethodPost, wire.PathLinkGrant+"?wait=5", "", wire.LinkGrantRequest{Session: c.session}, &out)
	if out.State != "burned" {
		t.Errorf("the surface hears %s", out.State)
	}
}

func TestLinkingNeedsTheDesktop(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	text := d.openLink(proof.ModeLink, proof.ScopePrompt)
	d.disconnect()
	_, body := w.newClaim(text, proof.ModeLink, proof.ScopePrompt)
	w.refused(http.MethodPost, wire.PathLinkClaim, "", body, 503, wire.CodeAsleep)
}

func TestClaimsAreLimitedPerNetwork(t *testing.T) {
	w := start(t, nil)
	for range 10 {
		w.refused(http.MethodPost, wire.PathLinkClaim, "", w.unknownLink(), 403, wire.CodeBadCode)
	}
	p := w.refused(http.MethodPost, wire.PathLinkClaim, "", w.unknownLink(), 429, wire.CodeLimited)
	if p.RetryAfter < 1 || p.RetryAfter > 6 {
		t.Errorf("Retry-After: %+v", p)
	}
}

func (w *world) unknownLink() wire.LinkClaimRequest {
	_, body := w.newClaim(seal.FormatLink(w.started.PageOrigin, proof.LinkID{1}, seal.NewLinkSecret()), proof.ModeLink, proof.ScopePrompt)
	return body
}

func TestTypedCodesPauseAndLinksGoOn(t *testing.T) {
	w := start(t, func(c *Config) { c.Limits = map[string]int{string(limits.Claim): 1 << 20} })
	d := w.enrol()
	d.connect()
	for range 130 { // 100, and what the minute gives back meanwhile
		w.refused(http.MethodPost, wire.PathLinkClaim, "", w.unknownLink(), 403, wire.CodeBadCode)
	}
	_, right := w.newClaim(d.openLink(proof.ModeCode, proof.ScopePrompt), proof.ModeCode, proof.ScopePrompt)
	w.refused(http.MethodPost, wire.PathLinkClaim, "", right, 429, wire.CodeLimited)
	pid := d.session.Pid()
	d.must(tunnel.Control, wire.FrameLinkEnd, wire.LinkEnd{Pid: pid[:], Reason: "cancelled"}, nil)
	d.linkSurface(proof.ModeLink, proof.ScopePrompt)
}

func TestFiveWrongCodesBurnTheSession(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	text := d.openLink(proof.ModeCode, proof.ScopePrompt)
	nameplate, letters, err := seal.ParseCode(text)
	if err != nil {
		t.Fatal(err)
	}
	wrong := []byte(letters)
	wrong[0] = proof.Alphabet[(strings.IndexByte(proof.Alphabet, wrong[0])+1)%len(proof.Alphabet)]
	for range proof.MaxCodeTries {
		_, body := w.newClaim(seal.FormatCode(nameplate, proof.Letters(wrong)), proof.ModeCode, proof.ScopePrompt)
		w.refused(http.MethodPost, wire.PathLinkClaim, "", body, 403, wire.CodeBadCode)
	}
	if end := body[wire.LinkEnd](d.told(wire.FrameLinkLost)); end.Reason != "tries" {
		t.Errorf("the owner was told %+v", end)
	}
	_, right := w.newClaim(text, proof.ModeCode, proof.ScopePrompt)
	w.refused(http.MethodPost, wire.PathLinkClaim, "", right, 403, wire.CodeBadCode)
}
