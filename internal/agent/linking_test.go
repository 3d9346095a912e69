package agent

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// inBubble gives a test its own time.
func inBubble(t *testing.T, f func(t *testing.T, h *half)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHalf(t)
		defer func() { h.close() }()
		f(t, h)
	})
}

// start begins a session that must begin.
func (h *half) start(l *linker, mode string, decide bool) LinkTicket {
	h.t.Helper()
	ticket, err := l.Start(context.Background(), mode, decide)
	if err != nil {
		h.t.Fatal(err)
	}
	return ticket
}

func TestLinkingToItsEnd(t *testing.T) {
	for _, c := range []struct {
		mode   string
		decide bool
		asks   proof.Scope
		gets   int // scopes
	}{
		{"link", false, proof.ScopePrompt, 2},
		{"code", false, proof.ScopePrompt, 2},
		{"link", true, proof.ScopeDecide, 3},
		{"code", true, proof.ScopeDecide, 3},
		{"link", false, proof.ScopeDecide, 2},
		{"link", true, proof.ScopeObserve, 1},
	} {
		inBubble(t, func(t *testing.T, h *half) {
			l := h.linker()
			ticket := h.start(l, c.mode, c.decide)
			a := h.join(ticket, c.asks)
			if err := h.claimed(l, a); err != nil {
				t.Fatal(err)
			}
			if got, want := len(a.shown.Digits), map[bool]int{true: 8, false: 6}[c.decide]; got != want {
				t.Errorf("%+v: %d digits, want %d", c, got, want)
			}
			before := h.policy()
			if err := l.Digits(t.Context(), a.shown.Digits[:3]+" "+a.shown.Digits[3:]); err != nil {
				t.Fatal(err)
			}
			if needs := h.granted(a); needs != (c.mode == "code") {
				t.Errorf("%+v: a finish code is wanted: %v", c, needs)
			}
			h.finishCode(l, a)
			if err := h.finished(l, a); err != nil {
				t.Fatal(err)
			}
			if err := h.finished(l, a); err != nil {
				t.Errorf("the same finish again: %v", err)
			}
			h.wantSession(l, "done", "")
			all := h.surfaces()
			if len(all) != 1 || len(all[0].Scopes.Names()) != c.gets || all[0].Label != "phone" || !all[0].Linked(time.Now()) {
				t.Fatalf("%+v: linked %+v", c, all)
			}
			h.checkPolicy(before, c.gets == 3)
		})
	}
}

// finishCode types what the desktop's owner was shown into the surface.
func (h *half) finishCode(l *linker, _ *joiner) {
	h.t.Helper()
	events, err := l.Events(context.Background(), 0)
	if err != nil {
		h.t.Fatal(err)
	}
	last := events[len(events)-1]
	if last.Type != LinkConfirmed {
		h.t.Fatalf("the owner was told %+v", events)
	}
	if (last.Finish != "") != (newestOf(l).Mode == "code") {
		h.t.Errorf("the finish code is %q", last.Finish)
	}
	if last.Finish == "" {
		return
	}
	if err := h.lastAsked.link.FinishCode(last.Finish, time.Now()); err != nil {
		h.t.Fatal(err)
	}
}

// A yes to the question opens the policy, with a line of its own; nothing else does.
func (h *half) checkPolicy(before pairing.Policy, decide bool) {
	h.t.Helper()
	after, lines := h.policy(), h.lines()
	if !decide {
		if after != before || slices.Contains(lines, "policy.changed remote_allowed") {
			h.t.Errorf("the policy became %+v", after)
		}
		return
	}
	if after.RemoteApprovals != pairing.RemoteAllowed || after.RemoteQuestions != pairing.RemoteAllowed {
		h.t.Errorf("the policy is %+v", after)
	}
	if !slices.Contains(lines, "policy.changed remote_allowed") || !slices.Contains(lines, "surface.linked") {
		h.t.Errorf("the lines are %q", lines)
	}
}

func TestWrongDigitsThreeTimes(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		l := h.linker()
		a := h.join(h.start(l, "link", false), proof.ScopePrompt)
		wantControl(t, l.Digits(t.Context(), "123456"), codeLinkNone) // before there are any
		if err := h.claimed(l, a); err != nil {
			t.Fatal(err)
		}
		for i, left := range []string{"2", "1"} {
			err := l.Digits(t.Context(), "x")
			wantControl(t, err, CodeLinkDigits)
			if !strings.HasSuffix(err.Error(), left) {
				t.Errorf("entry %d: %v", i, err)
			}
		}
		wantControl(t, l.Digits(t.Context(), ""), codeLinkBurned)
		wantControl(t, l.Digits(t.Context(), a.shown.Digits), codeLinkNone)
		h.wantSession(l, "burned", "wrong_digits")
		h.wantLines("surface.refused wrong_digits", "surface.refused wrong_digits", "link.burned wrong_digits")
		if n := len(h.surfaces()); n != 0 {
			t.Errorf("%d surfaces are linked", n)
		}
		var end wire.LinkEnd
		if all := h.broker.of(wire.FrameLinkEnd); len(all) != 1 || json.Unmarshal(all[0], &end) != nil || end.Reason != "burned" {
			t.Errorf("the broker was told %s", all)
		}
		_, err := l.Start(t.Context(), "link", false)
		wantControl(t, err, codeLinkCooldown)
		time.Sleep(linkCooldown)
		h.start(l, "link", false)
	})
}

func TestSecondClaimBurns(t *testing.T) {
	for _, valid := range []bool{true, false} {
		inBubble(t, func(t *testing.T, h *half) {
			l := h.linker()
			ticket := h.start(l, "link", false)
			a, other := h.join(ticket, proof.ScopePrompt), h.join(ticket, proof.ScopePrompt)
			if !valid {
				other.claim.Commit[0] ^= 1
			}
			if err := h.claimed(l, a); err != nil {
				t.Fatal(err)
			}
			if err := h.claimed(l, other); !errors.Is(err, errNoLink) {
				t.Errorf("a second claim got %v", err)
			}
			h.wantSession(l, "burned", "second_claim")
			h.wantLines("link.burned second_claim")
			wantControl(t, l.Digits(t.Context(), a.shown.Digits), codeLinkNone)
			events, _ := l.Events(t.Context(), 0)
			if last := events[len(events)-1]; last.Type != LinkBurned || last.Reason != "second_claim" {
				t.Errorf("the owner is told %+v", last)
			}
		})
	}
}

func TestOtherModeBurns(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		l := h.linker()
		ticket := h.start(l, "code", false)
		a := h.join(ticket, proof.ScopePrompt)
		a.claim.Mode = proof.ModeLink
		if err := h.claimed(l, a); err == nil {
			t.Error("the other mode was taken")
		}
		if l.live.State() == proof.LinkOpen {
			return // the message has not the form of the other mode: nothing came of it
		}
		h.wantSession(l, "burned", "other_mode")
	})
}

func TestRevealThatDoesNotHold(t *testing.T) {
	for name, bend := range map[string]func(*proof.Reveal){
		"commitment": func(r *proof.Reveal) { r.NonceS[0] ^= 1 },
		"signature":  func(r *proof.Reveal) { r.Sig[0] ^= 1 },
		"mac":        func(r *proof.Reveal) { r.MAC[0] ^= 1 },
		"card":       func(r *proof.Reveal) { r.BundleS[20] ^= 1 },
	} {
		inBubble(t, func(t *testing.T, h *half) {
			l := h.linker()
			a := h.join(h.start(l, "link", false), proof.ScopePrompt)
			offer, err := l.HandleClaim(t.Context(), wire.LinkClaim{Pid: pidOf(l), Claim: message(t, a.claim)})
			if err != nil {
				t.Fatal(err)
			}
			o, err := proof.ParseMessage[proof.Offer](offer.Offer)
			if err != nil {
				t.Fatal(err)
			}
			reveal, _, err := a.link.Offer(o, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			bend(&reveal)
			if err := l.HandleReveal(t.Context(), wire.LinkReveal{Pid: pidOf(l), Reveal: message(t, reveal)}); !errors.Is(err, errNoLink) {
				t.Errorf("%s: %v", name, err)
			}
			h.wantSession(l, "burned", "bad_reveal")
		})
	}
}

// A session ends after 180 s wherever it stands, and what it granted is taken back.
func TestLinkingExpires(t *testing.T) {
	for _, stage := range []string{"open", "claimed", "confirmed"} {
		for _, byTimer := range []bool{true, false} {
			inBubble(t, func(t *testing.T, h *half) {
				l := h.linker()
				a := h.join(h.start(l, "link", false), proof.ScopePrompt)
				if stage != "open" {
					if err := h.claimed(l, a); err != nil {
						t.Fatal(err)
					}
				}
				if stage == "confirmed" {
					if err := l.Digits(t.Context(), a.shown.Digits); err != nil {
						t.Fatal(err)
					}
				}
				first := newestOf(l)
				if byTimer {
					time.Sleep(proof.LinkLife)
					synctest.Wait()
				} else { // the owner is faster than the timer
					l.timer.Stop()
					time.Sleep(proof.LinkLife)
					h.start(l, "link", false)
				}
				h.wantSession(&linker{row: first}, "expired", "expired")
				for _, s := range h.surfaces() {
					if s.Revoked.IsZero() {
						t.Errorf("%s, by timer %v: the surface stays linked", stage, byTimer)
					}
				}
				if got := len(h.broker.of(wire.FrameRevoke)); got != len(h.surfaces()) {
					t.Errorf("%s: the broker was told of %d revocations", stage, got)
				}
				if n := slices.Index(h.lines(), "link.expired expired"); n < 0 {
					t.Errorf("%s: lines %q", stage, h.lines())
				}
			})
		}
	}
}

// A clock that is set back while a session lives only makes it live until the clock has caught up.
func TestClockSetBackWhileLinking(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		var back atomic.Int64
		h.deps.now = func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
		l := h.linker()
		h.start(l, "link", false)
		back.Store(int64(time.Minute))
		time.Sleep(proof.LinkLife)
		synctest.Wait()
		if l.live.State().Final() {
			t.Error("it ended before its time")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		h.wantSession(l, "expired", "expired")
	})
}

func TestCancelAndLost(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		l := h.linker()
		wantControl(t, l.Cancel(t.Context()), codeLinkNone)
		h.start(l, "link", false)
		_, err := l.Start(t.Context(), "code", false)
		wantControl(t, err, codeLinkLive)
		if err := l.Cancel(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.wantSession(l, "cancelled", "by_owner")
		wantControl(t, l.Cancel(t.Context()), codeLinkNone)
		a := h.join(h.start(l, "link", false), proof.ScopePrompt) // a cancel is no failure: no pause
		if err := h.claimed(l, a); err != nil {
			t.Fatal(err)
		}
		if err := l.Digits(t.Context(), a.shown.Digits); err != nil {
			t.Fatal(err)
		}
		if err := l.HandleLost(t.Context(), wire.LinkEnd{Pid: pidOf(l), Reason: "made up\x1b"}); err != nil {
			t.Fatal(err)
		}
		h.wantSession(l, "burned", "ended_by_broker")
		if s := h.surfaces(); len(s) != 1 || s[0].Revoked.IsZero() {
			t.Errorf("the surface of a lost session: %+v", s)
		}
		if err := l.HandleLost(t.Context(), wire.LinkEnd{Pid: make([]byte, 8), Reason: "burned"}); err != nil {
			t.Errorf("an unknown session: %v", err)
		}
	})
}

// What the broker does not take is taken back: the desktop cannot know whether it arrived.
func TestBrokerUnreachableAtGrant(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		h.broker.on(wire.FrameLinkGrant, func(json.RawMessage) (any, error) { return nil, errors.New("cut") })
		l := h.linker()
		a := h.join(h.start(l, "link", true), proof.ScopeDecide)
		if err := h.claimed(l, a); err != nil {
			t.Fatal(err)
		}
		wantControl(t, l.Digits(t.Context(), a.shown.Digits), codeLinkOffline)
		h.wantSession(l, "cancelled", "broker_unreachable")
		if s := h.surfaces(); len(s) != 1 || s[0].Revoked.IsZero() {
			t.Errorf("the surface is %+v", s)
		}
	})
}

func TestOpenFails(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		l := h.linker()
		h.broker.off = true
		for range proof.MaxLinksPerDay + 1 {
			_, err := l.Start(t.Context(), "link", false)
			wantControl(t, err, codeLinkOffline)
		}
		h.broker.off = false
		h.broker.on(wire.FrameLinkOpen, func(json.RawMessage) (any, error) { return nil, errors.New("cut") })
		_, err := l.Start(t.Context(), "link", false)
		wantControl(t, err, codeLinkOffline)
		h.wantSession(l, "cancelled", "broker_unreachable")
		_, err = l.Start(t.Context(), "smoke", false)
		wantControl(t, err, wire.CodeMalformed)
	})
}

// A broker that gives something else than a nameplate does not reach the owner's terminal.
func TestNameplateIsChecked(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		l := h.linker()
		for _, plate := range []string{"", "1", "123", "\x1b[2J", "4a"} {
			h.broker.on(wire.FrameLinkOpen, func(json.RawMessage) (any, error) { return wire.LinkOpened{Nameplate: plate}, nil })
			if ticket, err := l.Start(t.Context(), "code", false); err == nil {
				t.Errorf("nameplate %q gave %q", plate, ticket.Code)
				_ = l.Cancel(t.Context())
			}
		}
	})
}

func TestTenADay(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		l := h.linker()
		for range proof.MaxLinksPerDay {
			h.start(l, "link", false)
			if err := l.Cancel(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		_, err := l.Start(t.Context(), "link", false)
		wantControl(t, err, codeLinkCap)
		l = h.reopen()
		_, err = l.Start(t.Context(), "link", false)
		wantControl(t, err, codeLinkCap)
		time.Sleep(linkDay)
		h.start(l, "link", false)
	})
}

// The agent dies after each step: nothing of the session works any more, and no surface stays linked.
func TestRestartBetweenSteps(t *testing.T) {
	for steps := range 4 {
		inBubble(t, func(t *testing.T, h *half) {
			l := h.linker()
			ticket := h.start(l, "link", true)
			row, a := newestOf(l), h.join(ticket, proof.ScopeDecide)
			var digits string
			if steps == 1 {
				if _, err := l.HandleClaim(t.Context(), wire.LinkClaim{Pid: row.Pid[:], Claim: message(t, a.claim)}); err != nil {
					t.Fatal(err)
				}
			}
			if steps >= 2 {
				if err := h.claimed(l, a); err != nil {
					t.Fatal(err)
				}
				digits = a.shown.Digits
			}
			if steps >= 3 {
				if err := l.Digits(t.Context(), digits); err != nil {
					t.Fatal(err)
				}
			}
			l.timer.Stop()
			next := h.reopen()
			h.wantSession(&linker{row: row}, "cancelled", "agent_restarted")
			wantControl(t, next.Digits(t.Context(), digits), codeLinkNone)
			if err := h.claimed(&linker{deps: next.deps, row: row}, a); err == nil {
				t.Error("a claim of the dead session was taken")
			}
			if steps == 3 {
				h.granted(a)
				joined, err := a.link.Joined()
				if err != nil {
					t.Fatal(err)
				}
				if err := next.HandleFinish(t.Context(), wire.LinkFinish{Pid: row.Pid[:], Finish: message(t, joined.Finish)}); err == nil {
					t.Error("its finish was taken")
				}
				if s := h.surfaces(); len(s) != 1 || s[0].Revoked.IsZero() {
					t.Errorf("the surface that did not finish is %+v", s)
				}
			}
			h.start(next, "link", false)
		})
	}
}

// What cannot be journalled does not happen, and the next session can begin.
func TestStepThatIsNotRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		l := h.linker()
		a := h.join(h.start(l, "link", false), proof.ScopePrompt)
		if err := h.claimed(l, a); err != nil {
			t.Fatal(err)
		}
		other := newestOf(l)
		other.State = "burned"
		h.record(journal.MoveLink(other, newestOf(l).State)) // so that the next move finds the row elsewhere
		if err := l.Digits(t.Context(), a.shown.Digits); !errors.Is(err, journal.ErrState) {
			t.Errorf("digits: %v", err)
		}
		if len(h.surfaces()) != 0 || len(h.broker.of(wire.FrameLinkGrant)) != 0 {
			t.Error("a surface was linked off the record")
		}
		h.start(l, "link", false)
	})
}

func TestLinkMessagesThatAreNone(t *testing.T) {
	inBubble(t, func(t *testing.T, h *half) {
		l := h.linker()
		ctx := t.Context()
		if _, err := l.HandleClaim(ctx, wire.LinkClaim{Pid: make([]byte, 8), Claim: []byte(`{}`)}); !errors.Is(err, errNoLink) {
			t.Errorf("no session: %v", err)
		}
		h.start(l, "link", false)
		pid := pidOf(l)
		_, err := l.HandleClaim(ctx, wire.LinkClaim{Pid: pid, Claim: []byte(`{"x":1}`)})
		for what, err := range map[string]error{
			"claim":  err,
			"reveal": l.HandleReveal(ctx, wire.LinkReveal{Pid: pid, Reveal: []byte(`[]`)}),
			"finish": l.HandleFinish(ctx, wire.LinkFinish{Pid: pid, Finish: []byte(`null`)}),
		} {
			if err == nil || errors.Is(err, seal.ErrBurned) {
				t.Errorf("%s: %v", what, err)
			}
		}
		h.wantSession(l, "open", "")
	})
}
