//go:build e2e

package hostile

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

// scene is what a lie to a surface needs: the surface, another one of the same desktop, and what the liar knows of both.
type scene struct {
	*world
	phone, tablet *phone
	stolen        wire.Command // a command of the tablet, with its result
	old           wire.Command // an earlier one of the phone
}

func aboutCommand(r *http.Request) bool { return strings.Contains(r.URL.Path, "/commands") }

func aboutPairing(r *http.Request) bool {
	return r.Method == http.MethodGet && path.Base(path.Dir(r.URL.Path)) == "pairings"
}

func aboutNonce(r *http.Request) bool { return r.URL.Path == wire.PathAuthNonce }

// say1 is one prompt, and its error.
func (s *scene) say1() error {
	_, err := s.phone.Do(s.ctx, proof.Prompt, wire.Prompt{SessionID: s.phone.session, Text: "x"}, nil)
	return err
}

// answerLies are told in answers to calls. Each must end in an error that says so; what was sent may run, once.
var answerLies = []struct {
	name string
	lie  func(*scene) func(*http.Response) error
	want string
	most int // prompts that may run: one that the broker took, once
}{
	{"done, without a result", func(*scene) func(*http.Response) error {
		return on(aboutCommand, func(c *wire.Command) { c.State, c.Result = wire.StateCompleted, nil })
	}, "did not sign for this command", 1},
	{"blocked by policy, without a result", func(*scene) func(*http.Response) error {
		return on(aboutCommand, func(c *wire.Command) { c.State, c.Result = wire.StateBlocked, nil })
	}, "did not sign for this command", 1},
	{"done, by the result of an earlier command", func(s *scene) func(*http.Response) error {
		return on(aboutCommand, func(c *wire.Command) { c.State, c.Result = wire.StateCompleted, s.old.Result })
	}, "did not sign for this command", 1},
	{"done, by the result of another surface", func(s *scene) func(*http.Response) error {
		return on(aboutCommand, func(c *wire.Command) { c.State, c.Result = wire.StateCompleted, s.stolen.Result })
	}, "did not sign for this command", 1},
	{"done, by an altered result", func(s *scene) func(*http.Response) error {
		return on(aboutCommand, func(c *wire.Command) {
			c.State, c.Result = wire.StateCompleted, flip(s.old.Result, len(s.old.Result)-1)
		})
	}, "did not sign for this command", 1},
	{"the answer of another command", func(s *scene) func(*http.Response) error {
		return on(aboutCommand, func(c *wire.Command) { *c = s.old })
	}, "answered for another command", 1},
	{"an altered key of the desktop", func(*scene) func(*http.Response) error {
		return on(aboutPairing, func(p *wire.PairingState) { p.Bundle = flip(p.Bundle, len(p.Bundle)-1) })
	}, "a key that the desktop did not sign", 0},
	{"no key of the desktop", func(*scene) func(*http.Response) error {
		return on(aboutPairing, func(p *wire.PairingState) { p.Bundle = nil })
	}, "a key that the desktop did not sign", 0},
	{"an altered grant", func(*scene) func(*http.Response) error {
		return on(aboutPairing, func(p *wire.PairingState) { p.Grant = flip(p.Grant, len(p.Grant)-1) })
	}, "a grant that the desktop did not sign", 0},
	{"the grant of another surface", func(s *scene) func(*http.Response) error {
		st, err := s.tablet.State(s.ctx)
		check(s.t, err)
		return on(aboutPairing, func(p *wire.PairingState) { p.Grant = st.Grant })
	}, "an older grant than this surface has", 0},
	{"another broker's key", func(*scene) func(*http.Response) error {
		return on(aboutNonce, func(n *wire.Nonce) { n.BrokerKey = flip(n.BrokerKey, 0) })
	}, "not the broker that the surface was linked through", 0},
}

func TestLiesToTheSurface(t *testing.T) {
	s := newScene(t)
	for _, row := range answerLies {
		t.Run(row.name, func(t *testing.T) {
			s := s.in(t)
			before := s.ran(s.tablet)
			lie := row.lie(s)
			honest := s.liar.lie(func(l *liar) { l.after = lie })
			err := s.say1()
			honest()
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, wanted %q", err, row.want)
			}
			s.say(s.phone, "and the truth") // whatever was kept goes out before it
			if ran := s.ran(s.tablet) - before - 1; ran > row.most {
				t.Errorf("%d prompts ran, wanted at most %d", ran, row.most)
			}
		})
	}
	t.Run("ended, it says, while it runs", func(t *testing.T) { s.in(t).falseEnds() })
	t.Run("a false place in the chain", func(t *testing.T) { s.in(t).falseOrder() })
	t.Run("the program says so", func(t *testing.T) { s.in(t).programSays() })
}

func newScene(t *testing.T) *scene {
	w := newWorld(t, "bin", echo...)
	s := &scene{world: w, phone: w.link("phone", false), tablet: w.link("tablet", false)}
	w.begin(s.phone)
	s.tablet.session = s.phone.session
	s.old, s.stolen = w.say(s.phone, "first").Command, w.say(s.tablet, "mine").Command
	return s
}

// in is the scene in a test of its own, with a surface that signs in anew.
func (s *scene) in(t *testing.T) *scene {
	w := *s.world
	w.t = t
	next := *s
	next.world, next.phone = &w, w.again(s.phone)
	return &next
}

// falseEnds: what only the broker says is never shown as the desktop's word, and the desktop's word comes through later.
func (s *scene) falseEnds() {
	for _, state := range []string{wire.StateExpired, wire.StateCancelled, wire.StateFailed, wire.StateOutcomeUnknown} {
		honest := s.liar.lie(func(l *liar) {
			l.after = on(aboutCommand, func(c *wire.Command) { c.State, c.Result = state, nil })
		})
		o, err := s.phone.Do(s.ctx, proof.Prompt, wire.Prompt{SessionID: s.phone.session, Text: state}, nil)
		honest()
		if err != nil || o.Signed || o.State() != state {
			s.t.Errorf("%s: %+v %v", state, o, err)
		}
		s.await("the desktop's word", func() bool {
			later, err := s.phone.Get(s.ctx, o.Command.ID)
			check(s.t, err)
			return later.Signed && later.State() == wire.StateCompleted
		})
	}
}

// falseOrder: a surface follows the broker's word on its chain once, and the desktop or the broker's own truth end it.
func (s *scene) falseOrder() {
	before := s.ran(s.tablet)
	told := 0
	honest := s.liar.lie(func(l *liar) {
		l.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/commands") {
				return false
			}
			told++
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(wire.Problem{
				Status: http.StatusConflict, Code: wire.CodeOrderConflict, Title: "not the next", ExpectedSeq: uint64(told), ExpectedPrev: make([]byte, 32),
			})
			return true
		}
	})
	err := s.say1()
	honest()
	if problemCode(err) != wire.CodeOrderConflict || told != 2 {
		s.t.Errorf("after %d lies: %v", told, err)
	}
	s.say(s.phone, "and the truth")
	if ran := s.ran(s.tablet) - before; ran != 1 {
		s.t.Errorf("%d prompts ran, wanted the true one", ran)
	}
}

// programSays: the program ends with its own exit code and a line for the person.
func (s *scene) programSays() {
	honest := s.liar.lie(func(l *liar) {
		l.after = on(aboutCommand, func(c *wire.Command) { c.State, c.Result = wire.StateCompleted, s.stolen.Result })
	})
	defer honest()
	r, err := s.phone.cli.Run(s.ctx, "prompt", "--no-wait=false", "--session", s.phone.session, "x")
	check(s.t, err)
	if r.Code != 5 || !strings.Contains(r.Stderr, "do not believe it") || strings.Contains(r.Stdout, "mine") {
		s.t.Errorf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// streamLies bend the stream of a surface that watches while another one prompts.
var streamLies = []struct {
	name string
	lie  func(*scene, *record) func(name string, data []byte) [][]byte
	want string // of the error with which the stream is given up and taken up again; "gap": the loss is shown
}{
	{"altered events", func(*scene, *record) func(string, []byte) [][]byte {
		return each(wire.StreamBatch, func(b *wire.StreamEvent) { b.Batch = flip(b.Batch, len(b.Batch)-1) })
	}, "events that the desktop did not sign"},
	{"altered content of events", func(*scene, *record) func(string, []byte) [][]byte {
		return each(wire.StreamBatch, func(b *wire.StreamEvent) { b.Batch = flip(b.Batch, len(b.Batch)/2) })
	}, "events that the desktop did not sign"},
	{"altered beats", func(*scene, *record) func(string, []byte) [][]byte {
		return each(wire.StreamBeat, func(b *wire.Beat) { b.Beat = flip(b.Beat, len(b.Beat)-1) })
	}, "a beat that the desktop did not sign"},
	{"another surface's box", func(s *scene, _ *record) func(string, []byte) [][]byte {
		box := s.boxOf(s.tablet)
		return each(wire.StreamEpoch, func(b *wire.EpochBox) { b.Box = box })
	}, "event keys that the desktop did not sign for this surface"},
	{"an altered box", func(*scene, *record) func(string, []byte) [][]byte {
		return each(wire.StreamEpoch, func(b *wire.EpochBox) { b.Box = flip(b.Box, len(b.Box)-1) })
	}, "event keys that the desktop did not sign for this surface"},
	{"no box", func(*scene, *record) func(string, []byte) [][]byte {
		return only(wire.StreamEpoch, func([]byte) [][]byte { return nil })
	}, "gap"},
	{"events dropped", func(_ *scene, r *record) func(string, []byte) [][]byte {
		return only(wire.StreamBatch, func(d []byte) [][]byte {
			if r.count()%2 == 1 { // the first shows where the surface stands; every other one is lost
				return [][]byte{d}
			}
			return nil
		})
	}, "gap"},
	{"events repeated", func(_ *scene, r *record) func(string, []byte) [][]byte {
		return only(wire.StreamBatch, func(d []byte) [][]byte { return [][]byte{d, d, d} })
	}, ""},
	{"a signed result of another surface", func(s *scene, _ *record) func(string, []byte) [][]byte {
		raw, err := json.Marshal(s.stolen)
		check(s.t, err)
		return only(wire.StreamResult, func([]byte) [][]byte { return [][]byte{raw} })
	}, ""},
}

// only bends the events of one name.
func only(name string, f func([]byte) [][]byte) func(string, []byte) [][]byte {
	return func(n string, data []byte) [][]byte {
		if n != name {
			return [][]byte{data}
		}
		return f(data)
	}
}

// each changes the JSON of the events of one name.
func each[T any](name string, f func(*T)) func(string, []byte) [][]byte {
	return only(name, func(data []byte) [][]byte {
		var v T
		if json.Unmarshal(data, &v) == nil {
			f(&v)
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return nil
		}
		return [][]byte{raw}
	})
}

// record is what a watching surface was told.
type record struct {
	mark string // of the texts of this row; others may still be on their way

	mu      sync.Mutex
	batches int
	texts   []string // whole ones, as they came
	gaps    int
	offline []string
	results int
	present bool
}

func (r *record) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches++
	return r.batches
}

func (r *record) take(u surface.Update) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case u.Gap:
		r.gaps++
	case u.Offline != nil:
		r.offline = append(r.offline, u.Offline.Error())
	case u.Result != nil:
		r.results++
	case u.Presence != nil, u.Beat != nil:
		r.present = true
	case u.Event != nil && u.Event.Type == wire.EventPart && strings.Contains(string(u.Event.Data), r.mark):
		r.texts = append(r.texts, string(u.Event.Data))
	}
	return nil
}

func (r *record) shows(f func(*record) bool) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return f(r)
	}
}

// boxOf is the newest box that the broker gives a surface.
func (s *scene) boxOf(p *phone) wire.Bytes {
	s.t.Helper()
	found := make(chan wire.Bytes, 1)
	honest := s.liar.lie(func(l *liar) {
		l.event = each(wire.StreamEpoch, func(b *wire.EpochBox) {
			select {
			case found <- b.Box:
			default:
			}
		})
	})
	defer honest()
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan error, 1)
	go func() { done <- s.again(p).Watch(ctx, new(uint64), func(surface.Update) error { return nil }) }()
	defer func() { cancel(); check(s.t, <-done) }()
	select {
	case box := <-found:
		return box
	case <-s.ctx.Done():
		s.t.Fatal("no box came")
		return nil
	}
}

func TestLiesInTheStream(t *testing.T) {
	base := newScene(t)
	for _, row := range streamLies {
		t.Run(row.name, func(t *testing.T) {
			s := base.in(t)
			r := &record{mark: row.name}
			lie := row.lie(s, r)
			honest := s.liar.lie(func(l *liar) { l.event = lie })
			defer honest()
			ctx, cancel := context.WithCancel(s.ctx)
			done := make(chan error, 1)
			go func() { done <- s.phone.Watch(ctx, nil, r.take) }()
			defer func() {
				cancel()
				if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}()
			s.awaitLie(r, row.want)
		})
	}
}

// awaitLie prompts from the other surface until the watching one has noticed the lie; without one to notice, until all
// of several prompts have come, each once.
func (s *scene) awaitLie(r *record, want string) {
	s.t.Helper()
	s.await("the stream", r.shows(func(r *record) bool { return r.present || len(r.offline) > 0 }))
	const prompts = 3
	for range prompts {
		s.say(s.tablet, "streamed "+r.mark)
	}
	switch want {
	case "gap":
		s.await("the gap", r.shows(func(r *record) bool { return r.gaps > 0 }))
	case "":
		s.await("the events", r.shows(func(r *record) bool { return len(r.texts) >= prompts }))
		s.say(s.tablet, "last "+r.mark)
		s.await("the last event", r.shows(func(r *record) bool { return strings.Contains(r.texts[len(r.texts)-1], "last") }))
		r.shows(func(r *record) bool {
			if len(r.texts) != prompts+1 || r.results > 0 || r.gaps > 0 || len(r.offline) > 0 {
				s.t.Errorf("%d texts, %d results, %d gaps, %q", len(r.texts), r.results, r.gaps, r.offline)
			}
			return true
		})()
	default:
		s.await("the error "+want, r.shows(func(r *record) bool {
			return len(r.offline) > 0 && strings.Contains(strings.Join(r.offline, "\n"), want)
		}))
		if !r.shows(func(r *record) bool { return len(r.texts) == 0 })() && want != "a beat that the desktop did not sign" {
			s.t.Errorf("events of the lie were shown: %q", r.texts)
		}
	}
}
