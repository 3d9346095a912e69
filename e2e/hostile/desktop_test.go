//go:build e2e

package hostile

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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

var desktopAttacks = []struct {
	name  string
	do    func(*attack)
	ran   int      // prompts of it that run: genuine ones, once
	lines []string // "type outcome reason" which the desktop's log must have for it
}{
	{"noise for an envelope", func(a *attack) {
		d := a.hold("x")
		for _, bad := range [][]byte{nil, []byte("noise"), bytes.Repeat([]byte{7}, 4000), d.Envelope[:len(d.Envelope)-1], append(slices.Clone(d.Envelope), 0)} {
			a.deliver(under(d, bad), "refused")
		}
		a.deliver(d, "received")
	}, 1, []string{"command.refused refused malformed"}},
	{"every part altered", func(a *attack) {
		d := a.hold("x")
		for _, at := range []int{50, 58, 66, 70, 100, proof.HeaderSize, proof.HeaderSize + 40, len(d.Envelope) - 1} { // seq, iat, exp, prev, commit, enc, ct, sig
			a.deliver(under(d, flip(d.Envelope, at)), "refused")
		}
		a.deliver(d, "received")
	}, 1, []string{"command.refused refused bad_signature"}},
	{"altered under its own id", func(a *attack) {
		d := a.hold("x")
		bad := d
		bad.Envelope = flip(d.Envelope, len(d.Envelope)-1)
		a.deliver(bad, "refused")
		a.deliver(d, "duplicate")
	}, 0, []string{"command.refused refused bad_signature", "command.refused refused stopped"}},
	{"signed by a stranger in the surface's name", func(a *attack) {
		d := a.hold("x")
		e := a.parse(d)
		sealed := append(slices.Clone(e.Enc()), e.Ciphertext()...)
		a.deliver(under(d, proof.SignEnvelope(e.HeaderBytes(), sealed, a.stranger().Signer())), "refused")
		a.deliver(d, "received")
	}, 1, []string{"command.refused refused bad_signature"}},
	{"a prompt of a surface that was never linked", func(a *attack) {
		d := a.hold("x")
		payload, err := json.Marshal(wire.Prompt{SessionID: a.phone.session, Text: "forged"})
		check(a.t, err)
		now := time.Now()
		forged, err := a.stranger().SealCommand(a.bundle(), seal.Command{Kind: proof.Prompt, Payload: payload, Iat: now, Exp: now.Add(time.Hour)}, proof.Chain{})
		check(a.t, err)
		a.deliver(under(d, forged), "refused")
		a.deliver(d, "received")
	}, 1, []string{"command.refused refused unknown_surface"}},
	{"for another pairing", func(a *attack) {
		d := a.hold("x")
		a.deliver(under(d, flip(d.Envelope, 3)), "refused")
		a.deliver(d, "received")
	}, 1, []string{"command.refused refused unknown_surface"}},
	{"repeated under its own and other ids", func(a *attack) {
		d := a.hold("x")
		a.deliver(d, "received")
		for range 3 {
			a.deliver(d, "duplicate")
			a.deliver(under(d, d.Envelope), "duplicate")
		}
	}, 1, nil},
	{"repeated after its end, and after a newer one", func(a *attack) {
		d := a.hold("x")
		a.deliver(d, "received")
		a.honest()
		a.say(a.phone, "newer")
		a.deliver(d, "duplicate")
		a.deliver(under(d, d.Envelope), "duplicate")
	}, 2, nil},
	{"one under the id of another", func(a *attack) {
		first, second := a.hold("x"), a.hold("y")
		swapped := first
		swapped.Command = second.Command
		a.deliver(first, "received")
		a.deliver(swapped, "duplicate")
		a.deliver(second, "refused")
		a.recut() // and the honest broker takes the desktop back
	}, 1, []string{"command.refused refused command_id_reused"}},
	{"two envelopes under one id", func(a *attack) {
		first, second := a.hold("x"), a.hold("y")
		a.deliver(first, "received")
		both := second
		both.Command = first.Command
		a.deliver(both, "refused")
		a.recut()
	}, 1, []string{"command.refused refused command_id_reused"}},
	{"reordered", func(a *attack) {
		first, second := a.hold("x"), a.hold("y")
		a.deliver(second, "refused")
		a.deliver(first, "refused")
	}, 0, []string{"command.gap refused out_of_order", "command.refused refused out_of_order"}},
	{"dropped", func(a *attack) {
		a.hold("x")
		a.deliver(a.hold("y"), "refused")
	}, 0, []string{"command.gap refused out_of_order"}},
	{"delayed past its end, the stop withheld", func(a *attack) {
		late := a.options(a.phone.cli)
		late.Now = func() time.Time { return time.Now().Add(2*time.Second - proof.Status.Life()) }
		s, err := surface.Open(a.ctx, late, a.phone.info.Pairing)
		check(a.t, err)
		d := a.holdAny(s, proof.Status, wire.Status{})
		exp := time.UnixMilli(a.parse(d).Header.Exp)
		a.await("its end", func() bool { return time.Now().After(exp) })
		a.deliver(d, "refused")
	}, 0, []string{"command.refused refused expired"}},
	{"stopped by a lie, delivered later", func(a *attack) {
		d := a.hold("x")
		a.stop(d.Command, wire.StateCancelled, "tombstone")
		a.deliver(d, "duplicate")
		a.deliver(under(d, d.Envelope), "duplicate")
	}, 0, []string{"command.stop_answered success cancelled", "command.refused refused stopped"}},
	{"stopped when it had run", func(a *attack) {
		d := a.hold("x")
		a.deliver(d, "received")
		a.awaitEnd(d.Command)
		a.stop(d.Command, wire.StateExpired, "started")
	}, 1, []string{"command.stop_answered refused started"}},
	{"claimed to have ended, delivered later", func(a *attack) {
		d := a.hold("x")
		a.skip(d, nil, "received")
		a.deliver(d, "refused")
		a.deliver(under(d, d.Envelope), "refused")
	}, 0, []string{"command.skipped success cancelled"}},
	{"claimed to have ended when it had run", func(a *attack) {
		d := a.hold("x")
		a.deliver(d, "received")
		a.awaitEnd(d.Command)
		a.skip(d, nil, "duplicate")
	}, 1, nil},
	{"claimed to have ended, signature altered", func(a *attack) {
		d := a.hold("x")
		a.skip(d, func(k *wire.Skip) { k.Signature = flip(k.Signature, 0) }, "refused")
		a.skip(d, func(k *wire.Skip) { k.Header = flip(k.Header, 19) }, "refused")
		a.skip(d, func(k *wire.Skip) { k.Header = k.Header[1:] }, "refused")
		a.deliver(d, "received")
	}, 1, []string{"command.skipped refused bad_signature", "command.skipped refused unknown_surface", "command.skipped refused malformed"}},
	{"claimed to have ended under a false hash", func(a *attack) {
		d := a.hold("x")
		a.skip(d, func(k *wire.Skip) { k.Envelope = flip(k.Envelope, 0); k.Command = under(d, nil).Command }, "received")
		a.deliver(d, "refused")
	}, 0, []string{"command.skipped success cancelled", "command.refused refused out_of_order"}},
	{"a later end claimed to hide a drop", func(a *attack) {
		a.hold("x")
		a.skip(a.hold("y"), nil, "refused")
		a.deliver(a.hold("z"), "refused")
	}, 0, []string{"command.gap refused gap", "command.gap refused out_of_order"}},
	{"of a surface that the owner revoked", func(a *attack) {
		guest := a.link(fmt.Sprintf("guest-%d", time.Now().UnixNano()), false)
		guest.session = a.phone.session
		d := a.holdOf(guest, "x")
		_, err := a.desktop.Must(a.ctx, "surfaces", "revoke", "--yes", "--", guest.info.Surface)
		check(a.t, err)
		a.deliver(d, "refused")
	}, 0, []string{"surface.revoked success desktop", "command.refused refused revoked"}},
	{"frames that no broker sends", func(a *attack) {
		d := a.hold("x")
		a.refusedFrame(tunnel.Control, "execute", d, wire.CodeUnsupported)
		a.refusedFrame(tunnel.Control, wire.FrameDeliver, d, wire.CodeUnsupported)
		a.refusedFrame(tunnel.Command, wire.FrameStop, wire.Stop{}, wire.CodeUnsupported)
		a.refusedFrame(tunnel.Command, wire.FrameDeliver, map[string]any{"command": d.Command, "run": true}, wire.CodeMalformed)
		a.refusedFrame(tunnel.Command, wire.FrameDeliver, "deliver", wire.CodeMalformed)
		a.refusedFrame(tunnel.Control, wire.FrameHello, wire.Hello{}, wire.CodeUnsupported)
		a.deliver(d, "received")
	}, 1, nil},
	{"ids and numbers that fit nowhere", func(a *attack) {
		d := a.hold("x")
		for _, id := range []string{"", strings.Repeat("a", 5000), "../../etc/passwd", "a\nb"} {
			bad := under(d, []byte("noise"))
			bad.Command = id
			a.deliver(bad, "refused")
		}
		a.deliver(d, "received")
		a.recut() // and the honest broker takes the desktop back
	}, 1, []string{"command.refused refused malformed"}},
	{"a place in the mailbox beyond every number", func(a *attack) {
		d := a.hold("x")
		d.Sequence = math.MaxUint64
		a.refusedFrame(tunnel.Command, wire.FrameDeliver, d, wire.CodeMalformed)
		d.Sequence = proof.MaxNumber + 1
		a.refusedFrame(tunnel.Command, wire.FrameDeliver, d, wire.CodeMalformed)
		d.Sequence = proof.MaxNumber >> 1
		a.deliver(d, "received")
		a.recut()
	}, 1, nil},
	{"results taken and thrown away, the link cut", func(a *attack) {
		d := a.hold("x")
		a.liar.lie(func(l *liar) {
			l.toBroker = func(f wire.Frame, pass next) (wire.Frame, error) {
				if f.Type == wire.FrameResult {
					return frameOf("", wire.Durable{}), nil
				}
				return pass(f)
			}
		})
		a.deliver(d, "received")
		a.awaitEnd(d.Command)
		a.recut()
		a.deliver(d, "duplicate")
	}, 1, nil},
	{"a false clock", func(a *attack) {
		a.liar.lie(func(l *liar) {
			l.toBroker = func(f wire.Frame, pass next) (wire.Frame, error) {
				reply, err := pass(f)
				if err != nil || f.Type != wire.FrameHello {
					return reply, err
				}
				var h wire.HelloReply
				if err := json.Unmarshal(reply.Body, &h); err != nil {
					return reply, err
				}
				h.Time += time.Hour.Milliseconds()
				return frameOf("", h), nil
			}
		})
		a.recut()
		a.deliver(a.hold("x"), "refused")
		a.honest()
		a.recut()
	}, 0, []string{"command.refused refused clock_skew"}},
	{"a protocol that was not offered", func(a *attack) {
		a.liar.lie(func(l *liar) {
			l.toBroker = func(f wire.Frame, pass next) (wire.Frame, error) {
				if f.Type == wire.FrameHello {
					return frameOf("", wire.HelloReply{Protocol: 0}), nil
				}
				return pass(f)
			}
		})
		a.liar.cut()
		a.await("the reason in its status", func() bool {
			check(a.t, syscall.Kill(a.agent.PID(), syscall.SIGHUP)) // it need not wait before it dials again
			s, err := a.desktop.Status(a.ctx)
			check(a.t, err)
			return strings.Contains(fmt.Sprintf("%+v", s.Pairings[0]), "which was not offered")
		})
		a.honest()
		a.recut()
	}, 0, nil},
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

// TestLiesToTheDesktop: whatever the broker does with commands, the desktop executes what a linked surface sent, once,
// in its order and time, and writes the line that the protocol names for everything else.
func TestLiesToTheDesktop(t *testing.T) {
	w := newWorld(t, "bin", echo...)
	p := w.link("phone", false)
	w.begin(p)
	for _, row := range desktopAttacks {
		ok := t.Run(row.name, func(t *testing.T) {
			sub := *w
			sub.t = t
			a := &attack{world: &sub, phone: p}
			defer a.honest() // also when the row fails
			before, seen := a.ran(p), len(a.audit())
			row.do(a)
			a.honest()
			a.settle()
			if ran := a.ran(p) - before - 1; ran != row.ran {
				t.Errorf("%d prompts ran, wanted %d", ran, row.ran)
			}
			wantLines(t, a.audit()[seen:], row.lines)
		})
		if !ok && w.ctx.Err() != nil {
			t.Fatal("no time is left")
		}
	}
	select {
	case <-w.agent.Done():
		t.Error("the agent has ended")
	default:
	}
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
