//go:build e2e

package hostile

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// linking is one linking of a fresh desktop, whose owner sits at the program's prompt, with a surface whose person reads
// what it shows.
type linking struct {
	*world
	owner *lab.Proc
	text  string // the link or code
	open  proof.Open

	digits chan string // what the surface shows
	seen   string      // the same, once it was typed into the desktop
	finish string      // what its person types as the finish code
	joined chan error  // the end at the surface
	leave  func()      // its person gives up
	device *lab.Surface
}

// ShowDigits implements surface.LinkUI.
func (l *linking) ShowDigits(digits, _, _ string) { l.digits <- digits }

// FinishCode implements surface.LinkUI.
func (l *linking) FinishCode(context.Context, int) (string, error) { return l.finish, nil }

// begin starts the session at the desktop.
func (l *linking) begin(name string, code bool) {
	l.t.Helper()
	l.desktop, l.agent = l.newDesktop(name, echo...)
	args, shown := []string{"--state", l.desktop.Dir(), "link", "--no-decide"}, `(https?://\S+/p#1\.\S+)`
	if code {
		args, shown = append(args, "--code"), `Type this code into the device:\s+(\S+)`
	}
	var err error
	l.owner, err = l.Start("desktop-agent", args...)
	check(l.t, err)
	found, err := l.owner.Await(shown, lab.StartTime)
	check(l.t, err)
	l.text = found[1]
	l.device = l.Surface(name)
}

// join lets the surface join by what the desktop showed.
func (l *linking) join() {
	l.digits, l.joined = make(chan string, 1), make(chan error, 1)
	o := l.options(l.device)
	ctx, cancel := context.WithCancel(l.ctx)
	l.leave = cancel
	go func() {
		defer cancel()
		_, err := surface.Link(ctx, o, surface.LinkRequest{Text: l.text, Broker: l.URL(), Label: "device", Scope: "prompt"}, l)
		l.joined <- err
	}()
}

// typeDigits waits for the surface's digits and types them into the desktop, as often as it asks.
func (l *linking) typeDigits(times int) {
	l.t.Helper()
	select {
	case digits := <-l.digits:
		l.seen = digits
		for range times {
			check(l.t, l.owner.Type(digits))
		}
	case err := <-l.joined:
		l.t.Fatalf("the surface ended before it showed digits: %v", err)
	}
}

// notLinked wants the surface's error, and that neither end keeps anything of it.
func (l *linking) notLinked(want string) {
	l.t.Helper()
	err := <-l.joined
	if err == nil || !strings.Contains(err.Error(), want) {
		l.t.Errorf("the surface says %v, wanted %q", err, want)
	}
	kept, err := surface.List(l.device.Dir())
	check(l.t, err)
	if len(kept) > 0 {
		l.t.Errorf("the surface believes that it is linked: %+v", kept)
	}
}

func (l *linking) ownerSees(want string) {
	l.t.Helper()
	_, err := l.owner.Await(want, 30*time.Second)
	check(l.t, err)
	if code := l.owner.Code(); code == 0 {
		l.t.Errorf("the program at the desktop ended with exit 0:\n%s", l.owner.Output())
	}
}

// noSurface wants that the desktop has no surface that could send anything.
func (l *linking) noSurface() {
	l.t.Helper()
	var all []struct {
		ID      string
		Revoked time.Time
	}
	check(l.t, l.desktop.JSON(l.ctx, &all, "surfaces", "list"))
	for _, s := range all {
		if s.Revoked.IsZero() {
			l.t.Errorf("the desktop has the surface %s", s.ID)
		}
	}
}

// swapFrame changes the body of one frame on its way to the desktop.
func swapFrame[T any](name string, f func(*T)) frameHook {
	return func(frame wire.Frame, pass next) (wire.Frame, error) {
		if frame.Type != name {
			return pass(frame)
		}
		var v T
		if err := json.Unmarshal(frame.Body, &v); err != nil {
			return frame, err
		}
		f(&v)
		return pass(frameOf(name, v))
	}
}

// inside changes a linking message inside another one.
func inside[M proof.Message](raw json.RawMessage, f func(*M)) json.RawMessage {
	m, err := proof.ParseMessage[M](raw)
	if err != nil {
		return raw
	}
	f(&m)
	out, err := json.Marshal(m)
	if err != nil {
		return raw
	}
	return out
}

func at(paths ...string) func(*http.Request) bool {
	return func(r *http.Request) bool { return slices.Contains(paths, r.URL.Path) }
}

var linkLies = []struct {
	name  string
	code  bool
	lie   func(*linking) func(*liar)
	play  func(*linking) // what the two people and the liar do after the surface began to join
	says  string         // the surface's error
	owner string         // what the owner is told
	lines []string
}{
	{"link: another desktop's card in the offer", false, func(l *linking) func(*liar) {
		card := l.strangersCard()
		return func(x *liar) {
			x.after = on(at(wire.PathLinkClaim), func(r *wire.LinkClaimReply) {
				r.Offer = inside(r.Offer, func(o *proof.Offer) { o.BundleD = card })
			})
		}
	}, nil, "the mac does not hold", "cancelled at the device", []string{"link.burned refused cancelled"}},
	{"link: the mac taken away", false, func(*linking) func(*liar) {
		return func(x *liar) {
			x.after = on(at(wire.PathLinkClaim), func(r *wire.LinkClaimReply) {
				r.Offer = inside(r.Offer, func(o *proof.Offer) { o.MAC = nil })
			})
		}
	}, nil, "an offer of the other mode", "cancelled at the device", []string{"link.burned refused cancelled"}},
	{"link: another commitment in the claim", false, func(*linking) func(*liar) {
		return func(x *liar) {
			x.toDesk = swapFrame(wire.FrameLinkClaim, func(c *wire.LinkClaim) {
				c.Claim = inside(c.Claim, func(m *proof.Claim) { rand.Read(m.Commit[:]) })
			})
		}
	}, nil, "the mac does not hold", "cancelled at the device", []string{"link.burned refused cancelled"}},
	{"link: other keys of the surface in the reveal", false, func(l *linking) func(*liar) {
		mine := l.strangersSurface()
		return func(x *liar) {
			x.toDesk = swapFrame(wire.FrameLinkReveal, func(r *wire.LinkReveal) {
				r.Reveal = inside(r.Reveal, func(m *proof.Reveal) { m.BundleS = mine })
			})
		}
	}, nil, "", "does not hold together", []string{"link.burned refused bad_reveal"}},
	{"link: linked, it says", false, func(l *linking) func(*liar) {
		return func(x *liar) {
			x.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != wire.PathLinkGrant {
					return false
				}
				raw, err := json.Marshal(proof.GrantMsg{Pid: l.open.Pid, Sealed: make([]byte, 400)})
				check(l.t, err)
				reply(w, wire.LinkGrantReply{State: "done", Grant: raw})
				return true
			}
		}
	}, nil, "not linked", "cancelled at the device", []string{"link.burned refused cancelled"}},
	{"link: claimed a second time", false, func(*linking) func(*liar) { return func(*liar) {} }, func(l *linking) {
		<-l.digits
		claim, err := json.Marshal(proof.Claim{Mode: proof.ModeLink, Commit: proof.Digest{1}})
		check(l.t, err)
		l.tellLink(wire.FrameLinkClaim, wire.LinkClaim{Pid: l.open.Pid[:], Claim: claim}, wire.CodeBadCode)
		l.leave() // the liar does not tell the surface; its person sees no end and gives up
	}, "context canceled", "someone else tried the same link or code", []string{"link.burned refused second_claim"}},
	{"link: claimed as a code", false, func(*linking) func(*liar) {
		return func(x *liar) {
			x.toDesk = swapFrame(wire.FrameLinkClaim, func(c *wire.LinkClaim) {
				c.Claim = inside(c.Claim, func(m *proof.Claim) { m.Mode = proof.ModeCode })
			})
		}
	}, nil, "", "other_mode", []string{"link.burned refused other_mode"}},
	{
		"link: another finish than the surface's", false, func(*linking) func(*liar) {
			return func(x *liar) {
				x.toDesk = swapFrame(wire.FrameLinkFinish, func(f *wire.LinkFinish) {
					f.Finish = inside(f.Finish, func(m *proof.Finish) { m.Sig = flip(m.Sig, 0) })
				})
			}
		}, func(l *linking) { l.typeDigits(1) }, "takes it back", "did not take the grant",
		[]string{"link.burned refused bad_finish", "surface.revoked success link_not_finished"},
	},
	{
		"code: keys swapped on both sides", true, (*linking).middle, func(l *linking) {
			l.finish = "000000" // the desktop shows none
			l.typeDigits(proof.MaxDigitEntries)
		}, "that is not the code that the desktop shows", "the digits were wrong too often",
		[]string{"surface.refused refused wrong_digits", "link.burned refused wrong_digits"},
	},
}

// tellLink sends the desktop a linking frame of the liar's own and wants a refusal.
func (l *linking) tellLink(frame string, body any, code string) {
	l.t.Helper()
	a := &attack{world: l.world}
	a.refusedFrame(tunnel.Control, frame, body, code)
}

func (l *linking) strangersCard() []byte {
	l.t.Helper()
	d, err := seal.NewDesktop(time.Now())
	check(l.t, err)
	return proof.DesktopCard{
		Pairing: d.Pairing(), Dsig: d.Dsig(), Bundle: d.Bundle(), Host: "desk", Policy: "prompts yes", Digits: 6, Versions: proof.OwnVersions(),
	}.Encode()
}

func (l *linking) strangersSurface() []byte {
	l.t.Helper()
	s, err := seal.NewSurface()
	check(l.t, err)
	return proof.SurfaceCard{Ssig: s.Ssig(), Skem: s.Skem(), Label: "device", Scope: proof.ScopePrompt, Versions: proof.OwnVersions()}.Encode()
}

// middle makes the liar a desktop towards the surface and a surface towards the desktop. He knows the code: the broker
// is told it. What he cannot do is make both ends show the same digits.
func (l *linking) middle() func(*liar) {
	now := time.Now()
	mine, err := seal.NewDesktop(now)
	check(l.t, err)
	desk, _, err := mine.OpenLink(seal.LinkConfig{
		Mode: proof.ModeCode, Origin: l.URL(), Page: l.URL(), Host: "desk", Policy: "prompts yes", Highest: proof.ScopePrompt,
	}, now)
	check(l.t, err)
	phone, err := seal.JoinCode(l.text, l.URL(), "device", proof.ScopePrompt, now)
	check(l.t, err)
	return func(x *liar) {
		x.before = func(w http.ResponseWriter, r *http.Request) bool {
			var in struct{ Claim, Reveal json.RawMessage }
			if !strings.HasPrefix(r.URL.Path, "/api/v1/link/") || json.NewDecoder(r.Body).Decode(&in) != nil {
				return false
			}
			switch r.URL.Path {
			case wire.PathLinkClaim:
				claim, err := proof.ParseMessage[proof.Claim](in.Claim)
				check(l.t, err)
				offer, err := desk.Claim(claim.Bare(), now)
				check(l.t, err)
				l.asSurface(phone)
				raw, err := json.Marshal(offer)
				check(l.t, err)
				reply(w, wire.LinkClaimReply{Session: make([]byte, 16), Offer: raw, Expires: now.Add(time.Minute).UnixMilli()})
			case wire.PathLinkReveal:
				reveal, err := proof.ParseMessage[proof.Reveal](in.Reveal)
				check(l.t, err)
				_, err = desk.Reveal(reveal, now)
				check(l.t, err)
				w.WriteHeader(http.StatusNoContent)
			case wire.PathLinkGrant:
				reply(w, l.asDesktop(desk))
			default:
				w.WriteHeader(http.StatusNoContent)
			}
			return true
		}
	}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever asked is gone when it fails
}

// asSurface plays the surface towards the real desktop.
func (l *linking) asSurface(phone *seal.SurfaceLink) {
	claim, err := phone.Claim(time.Now())
	check(l.t, err)
	raw, err := json.Marshal(claim.Bare())
	check(l.t, err)
	var got wire.LinkOffer
	check(l.t, l.liar.tell(l.ctx, tunnel.Control, wire.FrameLinkClaim, wire.LinkClaim{Pid: l.open.Pid[:], Claim: raw, Network: "192.0.2.7"}, &got))
	offer, err := proof.ParseMessage[proof.Offer](got.Offer)
	check(l.t, err)
	reveal, _, err := phone.Offer(offer, time.Now())
	check(l.t, err)
	raw, err = json.Marshal(reveal)
	check(l.t, err)
	check(l.t, l.liar.tell(l.ctx, tunnel.Control, wire.FrameLinkReveal, wire.LinkReveal{Pid: l.open.Pid[:], Reveal: raw}, nil))
}

// asDesktop grants the real surface what is worth nothing, once the owner has typed its digits in vain.
func (l *linking) asDesktop(desk *seal.DesktopLink) wire.LinkGrantReply {
	select {
	case <-l.owner.Done():
	case <-l.ctx.Done():
	}
	linked, err := desk.Digits(l.seen, 1, time.Now())
	check(l.t, err)
	raw, err := json.Marshal(linked.Message)
	check(l.t, err)
	return wire.LinkGrantReply{State: "done", Grant: raw}
}

// TestLiesInALinking: keys that are swapped, repeated, made up or taken away end the session, at both ends, with a line.
func TestLiesInALinking(t *testing.T) {
	w := newBroker(t, "bin", "--limit", "enrol.network=1000", "--limit", "link.network=1000")
	for i, row := range linkLies {
		t.Run(row.name, func(t *testing.T) {
			sub := *w
			sub.t = t
			l := &linking{world: &sub}
			opened := sub.liar.lie(func(x *liar) { x.toBroker = l.seeOpen })
			l.begin("d"+string(rune('a'+i)), row.code)
			opened()
			lie := row.lie(l)
			honest := sub.liar.lie(func(x *liar) { lie(x) })
			defer honest()
			l.join()
			if row.play != nil {
				row.play(l)
			}
			l.notLinked(row.says)
			l.ownerSees(row.owner)
			l.noSurface()
			wantLines(t, l.audit(), row.lines)
		})
	}
}

// seeOpen reads message 1 as it passes.
func (l *linking) seeOpen(f wire.Frame, pass next) (wire.Frame, error) {
	if f.Type == wire.FrameLinkOpen {
		var o wire.LinkOpen
		if err := json.Unmarshal(f.Body, &o); err != nil {
			return f, err
		}
		open, err := proof.ParseMessage[proof.Open](o.Open)
		if err != nil {
			return f, err
		}
		l.open = open
	}
	return pass(f)
}
