package tunnel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/yamux"

	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/tunnel/tunneltest"
)

const (
	kindRequest, kindReply, kindError, kindRaw = 1, 2, 3, 4

	headerLen = 20
)

// rawStream opens a stream as a hostile agent and sends it first.
func rawStream(t *testing.T, l *tunnel.Link, first []byte) *yamux.Stream {
	t.Helper()
	y, err := l.RawStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.Write(first); err != nil {
		t.Fatal(err)
	}
	return y
}

// wantReset reads the error frame that resets a stream, and its end.
func wantReset(t *testing.T, y *yamux.Stream, code string) {
	t.Helper()
	got, err := io.ReadAll(y)
	if err != nil {
		t.Errorf("%s: %v", code, err)
	}
	want := tunnel.ErrorFrame(code)
	if !bytes.Equal(got, want) {
		t.Errorf("reset with %q, want %q", got, want)
	}
	_ = y.Close()
}

func TestWrongClassIsReset(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := pair(t)
		for _, c := range []tunnel.Class{tunnel.Command, tunnel.Service} {
			for _, k := range []uint8{kindRequest, kindRaw} {
				id := uint64(1)
				if k == kindRaw {
					id = 0
				}
				wantReset(t, rawStream(t, agent, tunnel.Frame(c, k, id, nil)), tunnel.CodeClass)
			}
		}
		wantReset(t, rawStream(t, broker, tunnel.Frame(tunnel.Events, kindRequest, 1, nil)), tunnel.CodeClass)
		if mustCall(t, agent, tunnel.Control, "alive") != "alive" {
			t.Error("the link did not live on")
		}
	})
}

func TestFifthStreamIsReset(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := pair(t)
		open := make([]*yamux.Stream, tunnel.MaxAgentStreams)
		for i := range open {
			open[i] = rawStream(t, agent, nil)
		}
		synctest.Wait()
		for range 20 {
			wantReset(t, rawStream(t, agent, nil), tunnel.CodeStreams)
		}
		if got := mustCall(t, broker, tunnel.Command, "alive"); got != "alive" {
			t.Errorf("the link did not live on: %q", got)
		}
		for _, y := range open {
			_ = y.Close()
		}
		synctest.Wait()
		if got := mustCall(t, agent, tunnel.Control, "room"); got != "room" {
			t.Errorf("closed streams still count: %q", got)
		}
	})
}

// An agent that never closes what was reset, or pours into it, loses the link; until then it holds no memory.
func TestFloodEndsLink(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := pair(t)
		n := 0
		for ; n < 10000 && agent.Err() == nil; n++ {
			if _, err := agent.RawStream(); err != nil {
				break
			}
			synctest.Wait()
		}
		wantReason(t, broker, tunnel.ReasonFlood, false)
		wantReason(t, agent, tunnel.ReasonFlood, true)
		if n < 60 || n > 100 {
			t.Errorf("the link ended after %d streams", n)
		}
	})
}

func TestPouringEndsLink(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, broker, agent := pair(t)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		y := rawStream(t, agent, tunnel.Frame(tunnel.Command, kindRequest, 1, nil))
		junk := make([]byte, 16<<10)
		sent := 0
		for {
			n, err := y.Write(junk)
			if sent += n; err != nil {
				break
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		wantReason(t, broker, tunnel.ReasonFlood, false)
		if sent < 4<<20 || sent > 6<<20 {
			t.Errorf("the link ended after %d bytes", sent)
		}
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
			t.Errorf("the heap grew by %d KiB", grown>>10)
		}
	})
}

// The cap on all links together holds too.
func TestProcessBudget(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{MaxStreams: 3})
		b1, one := b.Connect("one")
		b2, two := b.Connect("two")
		b1.Serve(tunneltest.Echo)
		b2.Serve(tunneltest.Echo)
		for range 2 {
			rawStream(t, one, nil)
		}
		last := rawStream(t, two, nil)
		synctest.Wait()
		wantReset(t, rawStream(t, two, nil), tunnel.CodeStreams)
		_ = last.Close()
		synctest.Wait()
		if got := mustCall(t, two, tunnel.Control, "room"); got != "room" {
			t.Errorf("got %q", got)
		}
	})
}

// Each fault of a frame resets its stream with the exact code, and the link lives.
func TestFrameFaults(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, _, agent := pair(t)
		ok := tunnel.Frame(tunnel.Control, kindRequest, 1, []byte("hi"))
		bend := func(at int, v byte) []byte {
			b := bytes.Clone(ok)
			b[at] = v
			return b
		}
		over := bytes.Clone(ok)
		binary.BigEndian.PutUint32(over[4:], tunnel.MaxFrame+1)
		for name, c := range map[string]struct {
			send []byte
			code string
		}{
			"version":             {bend(0, 2), tunnel.CodeBadFrame},
			"class 0":             {bend(1, 0), tunnel.CodeBadFrame},
			"class 5":             {bend(1, 5), tunnel.CodeBadFrame},
			"kind 0":              {bend(2, 0), tunnel.CodeBadFrame},
			"kind reply":          {bend(2, kindReply), tunnel.CodeBadFrame},
			"kind 5":              {bend(2, 5), tunnel.CodeBadFrame},
			"code in a request":   {bend(3, 1), tunnel.CodeBadFrame},
			"id 2 first":          {bend(15, 2), tunnel.CodeBadFrame},
			"deadline above most": {bend(16, 1), tunnel.CodeBadFrame},
			"one byte over":       {over, tunnel.CodeTooLarge},
		} {
			y := rawStream(t, agent, c.send)
			if got, _ := io.ReadAll(y); !bytes.Equal(got, tunnel.ErrorFrame(c.code)) {
				t.Errorf("%s: reset with %q", name, got)
			}
			_ = y.Close()
		}
		cut := rawStream(t, agent, ok[:10])
		_ = cut.Close()
		wantReset(t, cut, tunnel.CodeBadFrame)
		y := rawStream(t, agent, append(bytes.Clone(ok), tunnel.Frame(tunnel.Events, kindRequest, 2, nil)...))
		if got, _ := io.ReadAll(y); !bytes.HasSuffix(got, tunnel.ErrorFrame(tunnel.CodeBadFrame)) {
			t.Errorf("another class in the lane: %q", got)
		}
		if mustCall(t, agent, tunnel.Control, "alive") != "alive" {
			t.Error("the link did not live on")
		}
	})
}

// A peer that opens a stream, or begins a frame, and then says nothing is not waited for.
func TestSilentStreamsAreReset(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		_, _, agent := pair(t)
		ok := tunnel.Frame(tunnel.Control, kindRequest, 1, []byte("hi"))
		for name, c := range map[string]struct {
			send []byte
			wait time.Duration
		}{
			"no header":     {nil, 10 * time.Second},
			"half a header": {ok[:7], 30 * time.Second},
			"half a body":   {ok[:headerLen+1], 30 * time.Second},
			"after a frame": {ok, 30 * time.Second},
		} {
			start := time.Now()
			y := rawStream(t, agent, c.send)
			got, _ := io.ReadAll(y)
			if d := time.Since(start); d < c.wait || d > c.wait+time.Second {
				t.Errorf("%s: reset after %v", name, d)
			}
			if !bytes.HasSuffix(got, tunnel.ErrorFrame(tunnel.CodeSilent)) {
				t.Errorf("%s: reset with %q", name, got)
			}
			_ = y.Close()
		}
	})
}

// A peer that answers wrongly ends our lane, and the calls in flight learn that nothing is known.
func TestWrongAnswersEndLane(t *testing.T) {
	for name, answer := range map[string][]byte{
		"wrong id":    tunnel.Frame(tunnel.Control, kindReply, 2, nil),
		"wrong class": tunnel.Frame(tunnel.Command, kindReply, 1, nil),
		"a request":   tunnel.Frame(tunnel.Control, kindRequest, 1, nil),
		"noise":       bytes.Repeat([]byte{0xff}, 64),
		"half":        tunnel.Frame(tunnel.Control, kindReply, 1, []byte("hello"))[:22],
	} {
		t.Run(name, func(t *testing.T) {
			tunneltest.Bubble(t, func(t *testing.T) {
				up := make(chan *tunnel.Link, 1)
				b := tunneltest.NewBroker(t, tunnel.ServerConfig{OnLink: func(l *tunnel.Link) { up <- l }})
				agent := rawAgent(t, b)
				broker := <-up
				go func() {
					y, err := agent.AcceptStream()
					if err != nil {
						return
					}
					_, _ = y.Write(answer)
					_ = y.Close()
				}()
				if _, err := broker.Call(t.Context(), tunnel.Control, []byte("x")); !errors.Is(err, tunnel.ErrLane) {
					t.Errorf("err = %v", err)
				}
				if broker.Err() != nil {
					t.Errorf("the link ended: %v", broker.Err())
				}
			})
		})
	}
}

// Streams that come before Serve wait for it, but not for ever.
func TestServeLate(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{})
		broker, agent := b.Connect("desk")
		time.AfterFunc(3*time.Second, func() { broker.Serve(tunneltest.Echo) })
		if got := mustCall(t, agent, tunnel.Control, "early"); got != "early" {
			t.Errorf("got %q", got)
		}
		_, err := broker.Call(t.Context(), tunnel.Control, nil)
		var ce *tunnel.CallError
		if !errors.As(err, &ce) || ce.Code != tunnel.CodeNoServe {
			t.Errorf("never served: %v", err)
		}
	})
}

// An upgrade that is malformed in a way that only the WebSocket library sees leaves no link.
func TestBadUpgradeAfterAdmission(t *testing.T) {
	tunneltest.Bubble(t, func(t *testing.T) {
		b := tunneltest.NewBroker(t, tunnel.ServerConfig{
			Authenticate: func(*http.Request) (tunnel.Peer, error) { return tunnel.Peer{ID: "desk"}, nil },
			Admit:        func(context.Context, tunnel.Peer) (uint64, error) { return 1, nil },
		})
		h := upgradeHeader()
		h["Connection"] = []string{",,, ,", "Upgrade"}
		h["Sec-Websocket-Key"] = []string{"!"}
		resp, c, _ := rawUpgrade(t, b, h)
		defer c.Close()
		if resp.StatusCode != 400 || b.Count() != 0 {
			t.Errorf("%d", resp.StatusCode)
		}
	})
}
