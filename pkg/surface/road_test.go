package surface

import (
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
	if _, err := Open(t.Context(), p.opts, w.pairing); err != ErrNotLinked {
		t.Errorf("opened: %v", err)
	}
	if err := s.Forget(t.Context()); err != nil {
		t.Errorf("forgetting twice: %v", err)
	}
}
