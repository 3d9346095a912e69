package surface

import (
	"errors"
	"os"
	"testing"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

func TestLinkPromptResult(t *testing.T) {
	for _, c := range []struct {
		mode, scope string
		scopes      int
	}{{"link", "prompt", 2}, {"code", "prompt", 2}, {"link", "decide", 3}, {"code", "decide", 3}, {"link", "observe", 1}} {
		t.Run(c.mode+" "+c.scope, func(t *testing.T) {
			w := newWorld(t)
			p := w.place()
			s := w.link(p, c.mode, c.scope)
			info, err := s.Info()
			if err != nil || info.Host != "desk" || info.Label != "phone" || len(info.Scopes) != c.scopes || info.Pairing != w.pairing {
				t.Fatalf("linked as %+v, %v", info, err)
			}
			all, err := List(p.opts.Dir)
			if err != nil || len(all) != 1 || all[0].Surface != info.Surface {
				t.Fatalf("list %+v, %v", all, err)
			}
			if c.scope == "observe" {
				_, err := s.Do(t.Context(), proof.CreateSession, wire.CreateSession{}, nil)
				if !IsCode(err, wire.CodeForbidden) {
					t.Fatalf("an observer made a session: %v", err)
				}
				return
			}
			id := session(t, s)
			again, err := Open(t.Context(), p.opts, w.pairing) // another process, later
			if err != nil {
				t.Fatal(err)
			}
			o := prompt(t, again, id, "hello")
			if o.Body.TurnID == "" || w.exec.count("hello") != 1 {
				t.Fatalf("outcome %+v, ran %d times", o.Body, w.exec.count("hello"))
			}
			got, err := s.Get(t.Context(), o.Command.ID)
			if err != nil || !got.Signed || got.Body.TurnID != o.Body.TurnID {
				t.Fatalf("asked again: %+v %v", got, err)
			}
		})
	}
}

func TestForgetLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	if err := s.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(p.opts.Dir); err != nil || len(left) != 0 {
		t.Errorf("the folder has %v, %v", left, err)
	}
	if n := len(p.opts.Secrets.(*memory).values); n != 0 {
		t.Errorf("%d secrets are left", n)
	}
	if _, err := Open(t.Context(), p.opts, w.pairing); !errors.Is(err, ErrNotLinked) {
		t.Errorf("opened: %v", err)
	}
	if err := s.Forget(t.Context()); err != nil {
		t.Errorf("forgetting twice: %v", err)
	}
}

// A command that has not started can be taken back; of one whose outcome nobody knows a person decides.
func TestCancelAndResolve(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	w.stopAgent()
	sent, err := s.Prompt(t.Context(), wire.Prompt{SessionID: id, Text: "never"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Cancel(t.Context(), sent.Command.ID)
	if err != nil || c.State != wire.StateCancelled {
		t.Fatalf("cancelled: %+v %v", c, err)
	}
	if o, err := s.Wait(t.Context(), sent, nil); err != nil || !o.Done() || o.Signed {
		t.Errorf("its end: %+v %v", o, err)
	}
	for _, resolve := range []func() error{
		func() error { _, err := s.ItRan(t.Context(), sent.Command.ID); return err },
		func() error { _, err := s.SendAgain(t.Context(), sent.Command.ID); return err },
	} {
		if err := resolve(); !IsCode(err, wire.CodeConflict) {
			t.Errorf("a cancelled command was resolved: %v", err)
		}
	}
	w.runAgent()
	prompt(t, s, session(t, s), "and on") // the refused envelope left no hole
	if w.exec.count("never") != 0 {
		t.Error("it ran")
	}
}

func TestRevokeSelf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.link(w.place(), "link", "prompt")
	if err := s.RevokeSelf(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the desktop knows", func() bool {
		all, err := w.desk.Surfaces(t.Context(), w.pairing)
		return err == nil && len(all) == 1 && !all[0].Revoked.IsZero()
	})
}

// Each kind by its own method, with what it answers.
func TestKinds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, other := w.link(w.place(), "link", "decide"), w.link(w.place(), "link", "prompt")
	o, err := s.CreateSession(t.Context(), wire.CreateSession{Title: "kinds"}, nil)
	if err != nil || !o.Body.OK {
		t.Fatalf("%+v %v", o, err)
	}
	id := o.Body.Session.ID
	prompt(t, s, id, "hello")
	if o, err = s.Status(t.Context(), nil); err != nil || len(o.Body.Sessions) != 1 || o.Body.Sessions[0].Title != "kinds" {
		t.Errorf("status %+v %v", o.Body, err)
	}
	if o, err = s.History(t.Context(), wire.History{SessionID: id}, nil); err != nil || len(o.Body.Messages) != 2 {
		t.Errorf("history %+v %v", o.Body, err)
	}
	if o, err = s.Abort(t.Context(), wire.Abort{SessionID: id, MessageID: "msg_x"}, nil); err != nil || o.Body.OK || !o.Signed {
		t.Errorf("abort of nothing: %+v %v", o.Body, err)
	}
	info, err := other.Info()
	if err != nil {
		t.Fatal(err)
	}
	if o, err = s.RevokeSurface(t.Context(), info.Surface, nil); err != nil || !o.Body.OK {
		t.Errorf("revoke another: %+v %v", o.Body, err)
	}
	if _, err = other.Status(t.Context(), nil); !IsCode(err, wire.CodeUnauthorized) {
		t.Errorf("the other goes on: %v", err)
	}
	if o, err = s.RevokePairing(t.Context(), nil); err != nil && !IsCode(err, wire.CodeUnauthorized) || err == nil && !o.Body.OK {
		t.Errorf("revoke the pairing: %+v %v", o.Body, err)
	}
}
