//go:build e2e

package hostile

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// attack is one lie that is told to a desktop.
type attack struct {
	*world
	phone *phone

	mu    sync.Mutex
	taken []wire.Deliver // deliveries that the liar kept to himself
	stops int            // stop wishes that he kept to himself
}

// keep makes the liar keep every delivery and stop, and answer for the desktop.
func (a *attack) keep() {
	a.liar.lie(func(l *liar) {
		l.toDesk = func(f wire.Frame, pass next) (wire.Frame, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			switch f.Type {
			case wire.FrameDeliver:
				var d wire.Deliver
				if err := json.Unmarshal(f.Body, &d); err != nil {
					return f, err
				}
				a.taken = append(a.taken, d)
				return frameOf("", wire.Delivered{State: "received"}), nil
			case wire.FrameStop:
				var s wire.Stop
				if err := json.Unmarshal(f.Body, &s); err != nil {
					return f, err
				}
				a.stops++
				return frameOf("", wire.Stopped{Command: s.Command, Answer: "started"}), nil
			}
			return pass(f)
		}
	})
}

// hold has a surface send a prompt which reaches the liar and no further.
func (a *attack) hold(text string) wire.Deliver { return a.holdOf(a.phone, text) }

func (a *attack) holdOf(p *phone, text string) wire.Deliver {
	a.t.Helper()
	return a.holdAny(p.Surface, proof.Prompt, wire.Prompt{SessionID: p.session, Text: text})
}

func (a *attack) holdAny(s *surface.Surface, kind proof.Kind, payload any) wire.Deliver {
	a.t.Helper()
	a.keep()
	sent, err := s.Send(a.ctx, kind, payload)
	check(a.t, err)
	var found wire.Deliver
	a.await("the delivery to keep", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		i := slices.IndexFunc(a.taken, func(d wire.Deliver) bool { return d.Command == sent.Command.ID })
		if i >= 0 {
			found = a.taken[i]
		}
		return i >= 0
	})
	return found
}

// deliver gives the desktop a delivery and wants a certain answer.
func (a *attack) deliver(d wire.Deliver, want string) {
	a.t.Helper()
	var got wire.Delivered
	check(a.t, a.liar.tell(a.ctx, tunnel.Command, wire.FrameDeliver, d, &got))
	if got.State != want {
		a.t.Errorf("the desktop answers a delivery with %q, wanted %q", got.State, want)
	}
}

func (a *attack) stop(command, why, want string) {
	a.t.Helper()
	var got wire.Stopped
	check(a.t, a.liar.tell(a.ctx, tunnel.Control, wire.FrameStop, wire.Stop{Command: command, Why: why}, &got))
	if got.Answer != want {
		a.t.Errorf("the desktop answers a stop with %q, wanted %q", got.Answer, want)
	}
}

// skip claims that a command ended at the broker.
func (a *attack) skip(d wire.Deliver, bend func(*wire.Skip), want string) {
	a.t.Helper()
	e := a.parse(d)
	hash, body := e.Hash(), e.BodyHash()
	k := wire.Skip{
		Command: d.Command, Header: e.HeaderBytes(), Envelope: hash[:], BodyHash: body[:], Signature: e.Signature(), State: wire.StateCancelled,
	}
	if bend != nil {
		bend(&k)
	}
	var got wire.Delivered
	check(a.t, a.liar.tell(a.ctx, tunnel.Command, wire.FrameSkip, k, &got))
	if got.State != want {
		a.t.Errorf("the desktop answers a skip with %q, wanted %q", got.State, want)
	}
}

func (a *attack) parse(d wire.Deliver) proof.Envelope {
	a.t.Helper()
	e, err := proof.ParseEnvelope(d.Envelope)
	check(a.t, err)
	return e
}

// under gives a delivery another id, with which the broker lies about what it is.
func under(d wire.Deliver, envelope []byte) wire.Deliver {
	return wire.Deliver{Command: "cmd_" + rand.Text(), Sequence: d.Sequence, Token: d.Token, Envelope: envelope}
}

func flip(b []byte, at int) []byte {
	out := slices.Clone(b)
	out[at] ^= 1
	return out
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// stranger makes keys that no desktop granted anything.
func (a *attack) stranger() *seal.Surface {
	a.t.Helper()
	s, err := seal.NewSurface()
	check(a.t, err)
	return s
}

// bundle is the desktop's newest key, which everyone may know.
func (a *attack) bundle() proof.Bundle {
	a.t.Helper()
	raw, err := os.ReadFile(filepath.Join(a.phone.cli.Dir(), a.phone.info.Pairing+".json"))
	check(a.t, err)
	var profile struct{ Dsig proof.SigKey }
	check(a.t, json.Unmarshal(raw, &profile))
	st, err := a.phone.State(a.ctx)
	check(a.t, err)
	b, err := proof.OpenBundle(profile.Dsig, st.Bundle)
	check(a.t, err)
	return b
}

// refusedFrame sends a frame that no broker sends, and wants the code of its refusal.
func (a *attack) refusedFrame(class tunnel.Class, name string, body any, code string) {
	a.t.Helper()
	err := a.liar.tell(a.ctx, class, name, body, nil)
	refused, ok := errors.AsType[*tunnel.CallError](err)
	if !ok || refused.Code != code {
		a.t.Errorf("%s: %v, wanted the code %s", name, err, code)
	}
}

// honest ends the lie of a row.
func (a *attack) honest() { a.liar.lie(func(*liar) {})() }

// online waits until the desktop's link counts.
func (a *attack) online() {
	a.t.Helper()
	check(a.t, a.desktop.AwaitOnline(a.ctx, a.agent))
}

// recut cuts the link and waits for the next one; nobody waits for the desktop's patience with its broker.
func (a *attack) recut() {
	a.t.Helper()
	a.liar.mu.Lock()
	old := a.liar.desk
	a.liar.mu.Unlock()
	a.liar.cut()
	a.await("another link", func() bool {
		check(a.t, syscall.Kill(a.agent.PID(), syscall.SIGHUP))
		a.liar.mu.Lock()
		defer a.liar.mu.Unlock()
		return a.liar.desk != old
	})
	a.online()
}

// awaitEnd waits until the desktop has ended a command.
func (a *attack) awaitEnd(command string) {
	a.t.Helper()
	a.await("the end of the command", func() bool {
		return slices.ContainsFunc(a.audit(), func(l wire.AuditLine) bool { return l.Type == "command.ended" && l.Target.ID == command })
	})
}

// settle sends prompts until one runs: a lie may cost the surface a refusal, and no more.
func (a *attack) settle() {
	a.t.Helper()
	for range 3 {
		o, err := a.phone.Do(a.ctx, proof.Prompt, wire.Prompt{SessionID: a.phone.session, Text: "honest again"}, nil)
		check(a.t, err)
		if o.State() == wire.StateCompleted && o.Signed {
			return
		}
		if o.Body.Code != "out_of_order" {
			a.t.Fatalf("an honest prompt ended as %s %q", o.State(), o.Body.Code)
		}
	}
	a.t.Fatal("three honest prompts were refused after the lie")
}

func wantLines(t *testing.T, lines []wire.AuditLine, want []string) {
	t.Helper()
	var have []string
	for _, l := range lines {
		have = append(have, l.Type+" "+l.Outcome+" "+l.Reason)
	}
	for _, line := range want {
		if !slices.Contains(have, line) {
			t.Errorf("the desktop's log has no %q; it has:\n%s", line, strings.Join(have, "\n"))
		}
	}
}
