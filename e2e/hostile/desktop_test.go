//go:build e2e

package hostile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

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
