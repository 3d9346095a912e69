package surface

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// watcher collects what a Watch brings.
type watcher struct {
	mu      sync.Mutex
	updates []Update
	ended   chan error
	stop    func()
}

func follow(t *testing.T, s *Surface, after *uint64) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{ended: make(chan error, 1), stop: cancel}
	go func() {
		w.ended <- s.Watch(ctx, after, func(u Update) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.updates = append(w.updates, u)
			return nil
		})
	}()
	t.Cleanup(cancel)
	eventually(t, "the stream is open", func() bool { return w.count(func(u Update) bool { return u.Presence != nil }) > 0 })
	return w
}

func (w *watcher) all() []Update {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Update{}, w.updates...)
}

func (w *watcher) count(ok func(Update) bool) int {
	n := 0
	for _, u := range w.all() {
		if ok(u) {
			n++
		}
	}
	return n
}

func isGap(u Update) bool     { return u.Gap }
func isOffline(u Update) bool { return u.Offline != nil }

// texts are the streamed texts in their order.
func (w *watcher) texts() (out []string) {
	for _, u := range w.all() {
		var d wire.TextDelta
		if u.Event != nil && u.Event.Type == wire.EventText && json.Unmarshal(u.Event.Data, &d) == nil {
			out = append(out, d.Text)
		}
	}
	return out
}

func isStream(r *http.Request) bool { return r.URL.Path == wire.PathStreams }

// cutBody ends a stream's body after some bytes.
type cutBody struct {
	io.ReadCloser
	left int
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errCut
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func TestWatchSeesWhatHappens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	seen := follow(t, s, nil)
	o := prompt(t, s, id, "hello there ")
	eventually(t, "the turn ended", func() bool {
		return seen.count(func(u Update) bool { return u.Event != nil && u.Event.Type == wire.EventTurnEnded }) == 1
	})
	if got := seen.texts(); len(got) != 1 || got[0] != "hello there " {
		t.Errorf("texts %q", got)
	}
	eventually(t, "result and beat", func() bool {
		result := seen.count(func(u Update) bool { return u.Result != nil && u.Result.Signed && u.Result.Command.ID == o.Command.ID })
		return result == 1 && seen.count(func(u Update) bool { return u.Beat != nil }) > 0
	})
	for _, u := range seen.all() {
		if u.Event != nil && u.Event.Type == wire.EventTurnStarted && u.Event.Command != o.Hash.String() {
			t.Errorf("the turn is of command %q, want %s", u.Event.Command, o.Hash)
		}
	}
	if n := seen.count(isGap) + seen.count(isOffline); n != 0 {
		t.Errorf("%d gaps and cuts", n)
	}
	seen.stop()
	if err := <-seen.ended; err != nil {
		t.Errorf("Watch ended with %v", err)
	}
}

// Streams are cut after every so many bytes: no event is lost, none comes twice.
func TestWatchResumesAfterCuts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	size := 700
	p.net.set(nil, func(r *http.Request, res *http.Response) error {
		if isStream(r) {
			size += 900
			res.Body = &cutBody{res.Body, size}
		}
		return nil
	})
	seen := follow(t, s, nil)
	const prompts = 6
	for i := range prompts {
		prompt(t, s, id, fmt.Sprintf("number %c \n", 'a'+i))
	}
	eventually(t, "every turn's text", func() bool { return len(seen.texts()) >= prompts })
	seen.stop()
	<-seen.ended
	for i, text := range seen.texts() {
		if want := fmt.Sprintf("number %c \n", 'a'+i); text != want {
			t.Errorf("text %d is %q, want %q", i, text, want)
		}
	}
	if seen.count(isOffline) == 0 || seen.count(isGap) != 0 {
		t.Errorf("%d cuts, %d gaps", seen.count(isOffline), seen.count(isGap))
	}
}

// bendStream passes each event of a stream through f, which returns what comes in its place.
func bendStream(f func(name, data string) []string) func(*http.Request, *http.Response) error {
	return func(r *http.Request, res *http.Response) error {
		if !isStream(r) {
			return nil
		}
		from, to := newSSEReader(res.Body), res.Body
		pr, pw := io.Pipe()
		go func() {
			defer to.Close()
			for {
				ev, err := from.next()
				if err != nil {
					pw.CloseWithError(err)
					return
				}
				for _, data := range f(ev.name, string(ev.data)) {
					if _, err := fmt.Fprintf(pw, "event: %s\ndata: %s\n\n", ev.name, data); err != nil {
						return
					}
				}
			}
		}()
		res.Body = pr
		return nil
	}
}

// What a hostile broker does to the stream is noticed, and shows nothing twice.
func TestHostileStream(t *testing.T) {
	for _, c := range []struct {
		name string
		bend func(n int, data string) []string // of the nth batch
		gaps int
		want int // texts of four prompts
	}{
		{"honest", func(_ int, d string) []string { return []string{d} }, 0, 4},
		{"each batch twice", func(_ int, d string) []string { return []string{d, d} }, 0, 4},
		{"a batch dropped", func(n int, d string) []string {
			if n == 3 {
				return nil
			}
			return []string{d}
		}, 1, 3},
	} {
		w := newWorld(t)
		p := w.place()
		s := w.link(p, "link", "prompt")
		id := session(t, s)
		batches, dropped := 0, false
		p.net.set(nil, bendStream(func(name, data string) []string {
			if name != wire.StreamBatch {
				return []string{data}
			}
			batches++
			out := c.bend(batches, data)
			dropped = dropped || len(out) == 0
			return out
		}))
		seen := follow(t, s, nil)
		var last Outcome
		for i := range 4 {
			last = prompt(t, s, id, fmt.Sprintf("t%c \n", 'a'+i))
		}
		eventually(t, c.name+": the last turn ended", func() bool {
			return seen.count(func(u Update) bool {
				return u.Event != nil && u.Event.Type == wire.EventTurnEnded && u.Event.Command == last.Hash.String()
			}) > 0
		})
		seen.stop()
		<-seen.ended
		if seen.count(isGap) != c.gaps || dropped != (c.gaps > 0) {
			t.Errorf("%s: %d gaps", c.name, seen.count(isGap))
		}
		if got := len(seen.texts()); got < c.want || got > 4 {
			t.Errorf("%s: texts %q", c.name, seen.texts())
		}
	}
}

// A replay of batches of an earlier epoch is no news, and reordered ones are a gap.
func TestOrderOfBatches(t *testing.T) {
	h := func(epoch byte, seq uint64) proof.BatchHeader {
		return proof.BatchHeader{Epoch: proof.EpochID{epoch}, Seq: seq}
	}
	w := &watch{seqs: map[proof.EpochID]uint64{}}
	for i, step := range []struct {
		epoch byte
		seq   uint64
		want  int
	}{
		{1, 7, inOrder},
		{1, 8, inOrder},
		{1, 8, repeated},
		{1, 10, gap},
		{1, 9, repeated},
		{2, 1, inOrder},
		{2, 2, inOrder},
		{1, 8, repeated},
		{1, 10, repeated},
		{3, 2, gap},
		{2, 3, inOrder},
	} {
		if got := w.order(h(step.epoch, step.seq)); got != step.want {
			t.Errorf("step %d %+v: %d", i, step, got)
		}
	}
	for e := range 3 * maxEpochs {
		w.order(h(byte(e), 1))
	}
	if len(w.seqs) > maxEpochs {
		t.Errorf("%d epochs are remembered", len(w.seqs))
	}
}

// Forged events end the stream and are never shown; withheld keys are a gap.
func TestForgedAndWithheld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	forge := bendStream(func(name, data string) []string {
		if name != wire.StreamBatch {
			return []string{data}
		}
		var ev wire.StreamEvent
		if json.Unmarshal([]byte(data), &ev) != nil {
			return nil
		}
		ev.Batch = flip(ev.Batch)
		raw, _ := json.Marshal(ev)
		return []string{string(raw)}
	})
	p.net.set(nil, forge)
	seen := follow(t, s, nil)
	prompt(t, s, id, "forged ")
	eventually(t, "the forgery is told", func() bool {
		return seen.count(func(u Update) bool { return u.Offline != nil && strings.Contains(u.Offline.Error(), "did not sign") }) > 0
	})
	if n := seen.count(func(u Update) bool { return u.Event != nil }); n != 0 {
		t.Errorf("%d forged events were shown", n)
	}
	seen.stop()
	<-seen.ended
	p.net.set(nil, bendStream(func(name, data string) []string {
		if name == wire.StreamEpoch {
			return nil
		}
		return []string{data}
	}))
	fresh, err := Open(t.Context(), p.opts, w.pairing)
	if err != nil {
		t.Fatal(err)
	}
	seen = follow(t, fresh, nil)
	prompt(t, fresh, id, "withheld ")
	eventually(t, "a gap", func() bool { return seen.count(isGap) == 1 })
}

func TestRevokedSurfaceStreamEnds(t *testing.T) {
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	seen := follow(t, s, nil)
	info, err := s.Info()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := w.desk.RevokeSurface(t.Context(), info.Surface); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-seen.ended:
		if !errors.Is(err, ErrEnded) || time.Since(began) > time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	case <-time.After(patience):
		t.Fatal("the stream goes on")
	}
	if _, err := s.Send(t.Context(), proof.Prompt, wire.Prompt{SessionID: id, Text: "no"}); !IsCode(err, wire.CodeUnauthorized) {
		t.Errorf("the next command: %v", err)
	}
	if w.exec.count("no") != 0 {
		t.Error("it ran")
	}
	if err := s.Watch(t.Context(), nil, func(Update) error { return nil }); !IsCode(err, wire.CodeUnauthorized) {
		t.Errorf("watching again: %v", err)
	}
}

// A token lives 15 minutes; its end does not show in the stream.
func TestTokenEndsQuietly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	seen := follow(t, s, nil)
	w.clock.advance(proof.TokenLife + time.Second)
	p.clock.advance(proof.TokenLife + time.Second)
	prompt(t, s, id, "later ")
	eventually(t, "the stream goes on", func() bool { return len(seen.texts()) == 1 })
	if seen.count(isOffline) != 0 {
		t.Errorf("the stream was offline: %+v", seen.all())
	}
}

// Open requests: who decides sees the exact text, answers it, and of two who race one is told.
func TestDecide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.place(), w.place()
	first := w.link(a, "link", "decide")
	second := w.link(b, "code", "decide")
	viewer := w.link(w.place(), "link", "prompt")
	id := session(t, first)
	seen := follow(t, first, nil)
	prompt(t, first, id, "ask r1")
	eventually(t, "the request is published", func() bool {
		return seen.count(func(u Update) bool { return u.Request != nil && u.Request.Full != nil }) == 1
	})
	r, err := second.Request(t.Context(), "r1")
	if err != nil || r.Full == nil || r.Full.Command != "ls <a> && rm 'b' é" {
		t.Fatalf("request %+v %v", r, err)
	}
	blind, err := viewer.Request(t.Context(), "r1")
	if err != nil || blind.Full != nil || !blind.Digest.IsZero() {
		t.Fatalf("who looks on sees %+v %v", blind, err)
	}
	if _, err := viewer.Decide(t.Context(), blind, Answer{Decision: "allow"}, nil); !errors.Is(err, ErrNoText) {
		t.Errorf("and decides: %v", err)
	}
	if _, err := second.Request(t.Context(), "r2"); !errors.Is(err, ErrNoRequest) {
		t.Errorf("an unknown request: %v", err)
	}
	altered := r
	altered.Digest[0] ^= 1
	if o, err := second.Decide(t.Context(), altered, Answer{Decision: "allow"}, nil); err != nil || !o.Signed || o.Body.OK || o.Body.Code == wire.CodeMalformed {
		t.Errorf("an altered approval: %+v %v", o.Body, err)
	}
	var wg sync.WaitGroup
	outcomes := make([]Outcome, 2)
	for i, s := range []*Surface{first, second} {
		wg.Go(func() {
			var err error
			if outcomes[i], err = s.Decide(t.Context(), r, Answer{Decision: "allow"}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if outcomes[0].Body.OK == outcomes[1].Body.OK {
		t.Fatalf("both %+v and %+v", outcomes[0].Body, outcomes[1].Body)
	}
	for _, o := range outcomes {
		if !o.Body.OK && (!o.Signed || o.Body.DecidedBy != "phone") {
			t.Errorf("the slower one is told %+v", o.Body)
		}
	}
	eventually(t, "nothing waits any more", func() bool {
		all, err := second.Requests(t.Context())
		return err == nil && len(all) == 0
	})
	if seen.count(func(u Update) bool { return u.Event != nil && u.Event.Type == wire.EventRequestClosed }) != 1 {
		t.Error("its end was not published once")
	}
}
