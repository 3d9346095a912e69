package surface

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

func isPost(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/commands") }

// cutReplies lets the next n posts through and loses their answers.
func (b *bent) cutReplies(n int) {
	b.set(nil, func(r *http.Request, _ *http.Response) error {
		if isPost(r) && n > 0 {
			n--
			return errCut
		}
		return nil
	})
}

// refusePosts answers posts with a problem without asking the broker.
func (b *bent) refusePosts(status int, code string) {
	b.set(func(r *http.Request, _ []byte) (*http.Response, error) {
		if !isPost(r) {
			return nil, nil
		}
		return &http.Response{
			StatusCode: status, Header: http.Header{"Content-Type": {"application/problem+json"}}, Request: r,
			Body: io.NopCloser(strings.NewReader(`{"code":"` + code + `","title":"no"}`)),
		}, nil
	}, nil)
}

func TestCutReplyPostsTheSameBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	p.net.posts = nil
	p.net.cutReplies(2)
	prompt(t, s, id, "once")
	if n := len(p.net.posts); n != 3 || !bytes.Equal(p.net.posts[0], p.net.posts[1]) || !bytes.Equal(p.net.posts[0], p.net.posts[2]) {
		t.Errorf("%d posts, not three times the same bytes", n)
	}
	if n := w.exec.count("once"); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

// A program that ended before the broker's answer came leaves the envelope to the next one.
func TestLeftoverIsPostedFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	for _, arrived := range []bool{true, false} {
		text := map[bool]string{true: "arrived", false: "lost"}[arrived]
		if arrived {
			p.net.cutReplies(100)
		} else {
			p.net.set(func(r *http.Request, _ []byte) (*http.Response, error) {
				if isPost(r) {
					return nil, errCut
				}
				return nil, nil
			}, nil)
		}
		_, err := s.Send(t.Context(), proof.Prompt, wire.Prompt{SessionID: id, Text: text})
		if !errors.Is(err, ErrKept) || !errors.Is(err, ErrUnreachable) {
			t.Fatalf("%s: %v", text, err)
		}
		p.net.set(nil, nil)
		again, err := Open(t.Context(), p.opts, w.pairing)
		if err != nil {
			t.Fatal(err)
		}
		prompt(t, again, id, "after "+text)
		eventually(t, text+" ran", func() bool { return w.exec.count(text) == 1 })
	}
}

// What the broker refuses leaves no hole in the chain, whether the refusal comes at once or to a repeated post.
func TestRefusalLeavesNoHole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	for _, c := range []struct {
		status int
		code   string
		kept   bool // after a cut post
	}{
		{400, wire.CodeMalformed, false},
		{403, wire.CodeForbidden, false},
		{413, wire.CodeTooLarge, false},
		{429, wire.CodeLimited, true},
		{503, wire.CodeInternal, true},
	} {
		p.net.refusePosts(c.status, c.code)
		_, err := s.Send(t.Context(), proof.Prompt, wire.Prompt{SessionID: id, Text: "refused"})
		if !IsCode(err, c.code) || errors.Is(err, ErrKept) != (c.status >= 500) {
			t.Errorf("%s: %v", c.code, err)
		}
		if c.status >= 500 {
			continue // the 5xx one stays for the next round, which is none
		}
		p.net.set(nil, nil)
		prompt(t, s, id, "after "+c.code)
	}
	p.net.set(nil, nil)
	prompt(t, s, id, "at last")
	if n := w.exec.count("refused"); n != 1 {
		t.Errorf("refused prompts ran %d times: only the one that a 503 answered was kept", n)
	}
	p.net.set(func(r *http.Request, _ []byte) (*http.Response, error) {
		if isPost(r) {
			return nil, errCut
		}
		return nil, nil
	}, nil)
	if _, err := s.Send(t.Context(), proof.Prompt, wire.Prompt{SessionID: id, Text: "gone"}); !errors.Is(err, ErrKept) {
		t.Fatal(err)
	}
	p.net.refusePosts(429, wire.CodeLimited)
	if _, err := s.Send(t.Context(), proof.Status, wire.Status{}); !errors.Is(err, ErrKept) || !IsCode(err, wire.CodeLimited) {
		t.Errorf("a limit says nothing about an earlier post: %v", err)
	}
	refusals := 0
	p.net.set(func(r *http.Request, _ []byte) (*http.Response, error) {
		if !isPost(r) || refusals > 0 {
			return nil, nil
		}
		refusals++
		return &http.Response{StatusCode: 400, Request: r, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"code":"malformed","title":"no"}`))}, nil
	}, nil)
	prompt(t, s, id, "the chain goes on")
	if refusals != 1 || w.exec.count("gone") != 0 {
		t.Errorf("%d refusals, and what was refused ran %d times", refusals, w.exec.count("gone"))
	}
}

// An envelope that expired before it arrived is given up, and its place in the chain is free again.
func TestExpiredLeftover(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	p.net.set(func(r *http.Request, _ []byte) (*http.Response, error) {
		if isPost(r) {
			return nil, errCut
		}
		return nil, nil
	}, nil)
	if _, err := s.Send(t.Context(), proof.Status, wire.Status{}); !errors.Is(err, ErrKept) {
		t.Fatal(err)
	}
	p.net.set(nil, nil)
	w.clock.advance(proof.Status.Life() + time.Minute)
	p.clock.advance(proof.Status.Life() + time.Minute)
	if o, err := s.Do(t.Context(), proof.Status, wire.Status{}, nil); err != nil || !o.Body.OK {
		t.Fatalf("%+v %v", o, err)
	}
}

func TestRestoredFolderGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	path := folder(p.opts.Dir).path(s.pairing)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	prompt(t, s, id, "one")
	prompt(t, s, id, "two")
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	restored, err := Open(t.Context(), p.opts, w.pairing)
	if err != nil {
		t.Fatal(err)
	}
	prompt(t, restored, id, "three")
	prompt(t, restored, id, "four")
	for _, text := range []string{"one", "two", "three", "four"} {
		if n := w.exec.count(text); n != 1 {
			t.Errorf("%s ran %d times", text, n)
		}
	}
}

// A broker that lies about the chain gets a refusal of the desktop, and nothing runs.
func TestLieAboutTheChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	lies := 0
	p.net.set(func(r *http.Request, _ []byte) (*http.Response, error) {
		if !isPost(r) {
			return nil, nil
		}
		lies++
		body := `{"code":"order_conflict","title":"no","expected_seq":900,"expected_prev":"` + wire.Bytes(make([]byte, 32)).String() + `"}`
		return &http.Response{StatusCode: 409, Header: http.Header{}, Request: r, Body: io.NopCloser(strings.NewReader(body))}, nil
	}, nil)
	_, err := s.Send(t.Context(), proof.Prompt, wire.Prompt{SessionID: id, Text: "never"})
	if !IsCode(err, wire.CodeOrderConflict) || lies != 2 {
		t.Errorf("%d lies, %v", lies, err)
	}
	p.net.set(nil, nil)
	eventually(t, "the chain is found again", func() bool {
		o, err := s.Do(t.Context(), proof.Prompt, wire.Prompt{SessionID: id, Text: "yes"}, nil)
		return err == nil && o.Body.OK
	})
	if w.exec.count("never") != 0 {
		t.Error("it ran")
	}
}

func TestTwoProcessesSendAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	id := session(t, s)
	const each = 8
	var wg sync.WaitGroup
	for range 2 {
		one, err := Open(t.Context(), p.opts, w.pairing)
		if err != nil {
			t.Fatal(err)
		}
		for range each {
			wg.Go(func() {
				o, err := one.Do(t.Context(), proof.Prompt, wire.Prompt{SessionID: id, Text: "both"}, nil)
				if err != nil || !o.Body.OK {
					t.Errorf("%+v %v", o.Body, err)
				}
			})
		}
	}
	wg.Wait()
	if n := w.exec.count("both"); n != 2*each {
		t.Errorf("%d of %d ran", n, 2*each)
	}
}

func TestLockEndsWithItsContext(t *testing.T) {
	path := t.TempDir() + "/x.lock"
	unlock, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, path); !errors.Is(err, errBusy) {
		t.Errorf("taken twice: %v", err)
	}
	unlock()
	again, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// Clocks that are off by ten minutes, at linking and moved afterwards: the desktop's time counts.
func TestClockOffByTenMinutes(t *testing.T) {
	for _, off := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		w := newWorld(t)
		p := w.place()
		p.clock.advance(off)
		s := w.link(p, "link", "prompt")
		id := session(t, s)
		prompt(t, s, id, "off from the start")
		p.clock.advance(-2 * off)
		again, err := Open(t.Context(), p.opts, w.pairing)
		if err != nil {
			t.Fatal(err)
		}
		prompt(t, again, id, "moved")
		if w.exec.count("moved") != 1 {
			t.Errorf("off by %s: ran %d times", off, w.exec.count("moved"))
		}
	}
}

// The broker's word on the time is a hint only: if it is wrong, the desktop refuses and its signed time is used.
func TestBrokerLiesAboutTheTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.place()
	s := w.link(p, "link", "prompt")
	p.net.set(nil, func(r *http.Request, res *http.Response) error {
		if r.Method == http.MethodGet && strings.Count(r.URL.Path, "/") == 4 && res.StatusCode == http.StatusOK {
			return edit(res, func(st *wire.PairingState) { st.Time -= time.Hour.Milliseconds() })
		}
		return nil
	})
	o, err := s.Do(t.Context(), proof.Status, wire.Status{}, nil)
	if err == nil && o.Body.OK {
		t.Error("an hour in the past went unnoticed")
	}
	p.net.set(nil, nil)
	if o, err = s.Do(t.Context(), proof.Status, wire.Status{}, nil); err != nil || !o.Body.OK {
		t.Errorf("with an honest broker: %+v %v", o.Body, err)
	}
}

func TestLongPromptsDoNotFillTheProfile(t *testing.T) {
	p := &profile{}
	const long = 1 << 20
	for i := range 8 {
		p.keepSent(sent{Hash: proof.Digest{byte(i), 1}, Payload: make([]byte, long)})
	}
	kept := 0
	for i, item := range p.Sent {
		if (item.Payload != nil) != (i >= len(p.Sent)-maxResend/long) {
			t.Errorf("payload %d of %d is kept: %v", i, len(p.Sent), item.Payload != nil)
		}
		kept += len(item.Payload)
	}
	if kept != maxResend {
		t.Errorf("%d bytes are kept", kept)
	}
	for i := range maxSent {
		p.keepSent(sent{Hash: proof.Digest{byte(i), 2}})
	}
	p.keepSent(sent{Hash: proof.Digest{5, 2}, Command: "known"})
	if len(p.Sent) != maxSent || p.Sent[0].Hash != (proof.Digest{0, 2}) {
		t.Errorf("%d commands are remembered", len(p.Sent))
	}
	if got, ok := p.find("known"); !ok || got.Hash[0] != 5 {
		t.Errorf("found %+v", got)
	}
}
