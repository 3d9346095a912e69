package broker

import (
	"net/http"
	"strings"
	"testing"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

func TestPromptRunsAndItsResultComesBack(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	c := s.prompt("hello", "?wait=20")
	if c.State != wire.StateCompleted || !c.DesktopOnline {
		t.Fatalf("the command is %s, desktop online %v", c.State, c.DesktopOnline)
	}
	if got := s.open(c); !strings.Contains(got, "hello") {
		t.Errorf("the result says %q", got)
	}
	if again := s.get(c.ID, ""); again.State != c.State || again.Sequence != 1 {
		t.Errorf("asked again it is %+v", again)
	}
}

func TestLinkByTypedCode(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeCode, proof.ScopeDecide)
	var p wire.PairingState
	w.ask(http.MethodGet, at(wire.PathPairing, d.id), s.token, nil, &p)
	if !p.Online || p.Locked || len(p.Kinds) != len(proof.Kinds()) || len(p.Grant) == 0 || p.Executor != "echo" {
		t.Errorf("the pairing is %+v", p)
	}
	if _, err := proof.OpenBundle(d.keys.Dsig(), p.Bundle); err != nil {
		t.Error(err)
	}
}
