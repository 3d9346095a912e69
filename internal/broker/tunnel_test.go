package broker

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

func TestHelloIsHeldAgainstItsRules(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	link, err := d.dial()
	if err != nil {
		t.Fatal(err)
	}
	d.link = link
	d.mustRefuse(tunnel.Control, wire.FrameBundle, wire.Bundle{}, wire.CodeHelloFirst)
	d.hello = func(h *wire.Hello) { h.ProtocolMin, h.ProtocolMax = 2, 3 }
	d.mustRefuse(tunnel.Control, wire.FrameHello, d.helloFrame(), wire.CodeUnsupported)
	for _, off := range []time.Duration{6 * time.Minute, -6 * time.Minute} {
		d.hello = func(h *wire.Hello) { h.Time += off.Milliseconds() }
		if text := d.mustRefuse(tunnel.Control, wire.FrameHello, d.helloFrame(), wire.CodeClockSkew); strings.Count(text, "UTC") != 2 {
			t.Errorf("the skew does not name both times: %s", text)
		}
	}
	d.hello = nil
	forged := d.helloFrame()
	forged.Time++
	d.mustRefuse(tunnel.Control, wire.FrameHello, forged, wire.CodeMalformed)
	d.must(tunnel.Control, wire.FrameHello, d.helloFrame(), nil)
	d.mustRefuse(tunnel.Control, wire.FrameHello, d.helloFrame(), wire.CodeConflict)
	d.mustRefuse(tunnel.Control, "surprise", wire.Durable{}, wire.CodeUnsupported)
	d.mustRefuse(tunnel.Events, wire.FrameResult, wire.Result{}, wire.CodeUnsupported)
	d.mustRefuse(tunnel.Control, wire.FrameEpoch, wire.Epoch{Epoch: make(wire.Bytes, 7)}, wire.CodeMalformed)
	d.mustRefuse(tunnel.Events, wire.FrameBatch, wire.Batch{Batch: []byte("x")}, wire.CodeMalformed)
	d.mustRefuse(tunnel.Events, wire.FrameBeat, wire.Beat{Pairing: d.id}, wire.CodeMalformed)
}

func TestOnlyNewerBundlesAreTaken(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	old := d.keys.Bundle()
	w.clock.advance(proof.BundleEvery + time.Minute)
	if changed, err := d.keys.Rotate(w.clock.now()); err != nil || !changed {
		t.Fatal(changed, err)
	}
	d.must(tunnel.Control, wire.FrameBundle, wire.Bundle{Bundle: d.keys.Bundle()}, nil)
	d.must(tunnel.Control, wire.FrameBundle, wire.Bundle{Bundle: d.keys.Bundle()}, nil)
	d.mustRefuse(tunnel.Control, wire.FrameBundle, wire.Bundle{Bundle: old}, wire.CodeConflict)
}

func TestDesktopBehindItsOwnBundleStillConnects(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	old := d.keys.Bundle()
	w.clock.advance(proof.BundleEvery + time.Minute)
	if _, err := d.keys.Rotate(w.clock.now()); err != nil {
		t.Fatal(err)
	}
	d.must(tunnel.Control, wire.FrameBundle, wire.Bundle{Bundle: d.keys.Bundle()}, nil)
	d.disconnect()
	d.hello = func(h *wire.Hello) { h.Bundle = old }
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	var p wire.PairingState
	w.ask(http.MethodGet, at(wire.PathPairing, d.id), s.token, nil, &p)
	if !bytes.Equal(p.Bundle, d.keys.Bundle()) {
		t.Error("the older bundle took the place of the newer one")
	}
}

func TestRevocationsThatTheBrokerMissed(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s, kept := d.linkSurface(proof.ModeLink, proof.ScopePrompt), d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.disconnect()
	d.hello = func(h *wire.Hello) { h.Revoked = []string{s.id, "AAAAAAAAAAAAAAAAAAAAAA"} }
	d.connect()
	w.refused(http.MethodGet, at(wire.PathPairing, d.id), s.token, nil, 401, wire.CodeUnauthorized)
	w.ask(http.MethodGet, at(wire.PathPairing, d.id), kept.token, nil, nil)
}

func TestNewestLinkWins(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	ghost := d.link
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.connect()
	receive(t, "the end of the older link", ghost.Done())
	if closed, ok := errors.AsType[*tunnel.CloseError](ghost.Err()); !ok || closed.Reason != tunnel.ReasonReplaced {
		t.Errorf("it ended with %v", ghost.Err())
	}
	if c := s.prompt("to the newer one", "?wait=20"); c.State != wire.StateCompleted || !c.DesktopOnline {
		t.Errorf("the command is %+v", c)
	}
}

func TestTunnelIsRefusedAlikeForUnknownAndForged(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	stranger := &testDesk{t: t, w: w, keys: freshKeys(t, w), broker: w.started.Key}
	stranger.id = stranger.keys.Pairing().String()
	forger := &testDesk{t: t, w: w, keys: stranger.keys, broker: w.started.Key, id: d.id}
	for name, bad := range map[string]*testDesk{"unknown": stranger, "forged": forger} {
		_, err := bad.dial()
		refused, ok := errors.AsType[*tunnel.HTTPError](err)
		if !ok || refused.Status != 401 || refused.Body != "unauthorized" {
			t.Errorf("%s: %v", name, err)
		}
	}
	var page wire.AuditPage
	w.operate(http.MethodGet, wire.PathOpAudit+"?limit=1000", nil, &page)
	all := string(bytes.Join(raws(page.Lines), []byte("\n")))
	for _, reason := range []string{"unknown", "signature"} {
		if !strings.Contains(all, `"type":"tunnel.refused","code":"`+audit.TunnelRefused.Code()+`","outcome":"refused","reason":"`+reason+`"`) {
			t.Errorf("no line says %s", reason)
		}
	}
	h, err := d.header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again := tunnel.DialConfig{
		URL: "ws" + strings.TrimPrefix(w.base, "http") + wire.PathTunnel, Proxy: "direct",
		Header: func(context.Context) (http.Header, error) { return h, nil },
	}
	link, err := tunnel.Dial(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	link.Close("done")
	if _, err := tunnel.Dial(t.Context(), again); err == nil {
		t.Error("a nonce was used twice")
	}
}

// A desktop whose clock is off by less than the protocol allows still gets commands of a short life: surfaces write
// iat and exp by the desktop's clock.
func TestShortLivedCommandsReachADesktopWithAnotherClock(t *testing.T) {
	for _, off := range []time.Duration{-4 * time.Minute, 4 * time.Minute} {
		t.Run(off.String(), func(t *testing.T) {
			w := start(t, nil)
			d := w.enrol()
			d.hello = func(h *wire.Hello) { h.Time += off.Milliseconds() }
			d.connect()
			s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
			w.clock.advance(off) // the surface's estimate of the desktop's time
			raw := s.seal(proof.Abort, wire.Abort{SessionID: "ses_1"}, time.Minute)
			w.clock.advance(-off)
			var c wire.Command
			w.ask(http.MethodPost, s.commands()+"?wait=20", s.token, wire.CommandPost{Sealed: raw}, &c)
			if c.State != wire.StateCompleted {
				t.Errorf("it is %s", c.State)
			}
		})
	}
}
