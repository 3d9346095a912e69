package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

func TestForwardedAddressesAreBelievedOfProxiesOnly(t *testing.T) {
	s := &Server{cfg: Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32")}}}
	for _, tt := range []struct{ peer, forwarded, want string }{
		{"192.0.2.1:5", "", "192.0.2.1"},
		{"192.0.2.1:5", "198.51.100.9", "192.0.2.1"}, // anyone may write a header
		{"127.0.0.1:5", "", "127.0.0.1"},
		{"127.0.0.1:5", "198.51.100.9", "198.51.100.9"},
		{"127.0.0.1:5", "203.0.113.7, 198.51.100.9, 10.1.1.1", "198.51.100.9"}, // the left end is the client's own word
		{"127.0.0.1:5", "nonsense", "127.0.0.1"},
		{"127.0.0.1:5", "198.51.100.9, nonsense", "127.0.0.1"},
		{"[::ffff:127.0.0.1]:5", "2001:db8::1", "2001:db8::1"},
		{"127.0.0.1:5", strings.Repeat("10.0.0.1,", 50) + "10.0.0.1", "10.0.0.1"},
		{"@", "198.51.100.9", "invalid IP"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = tt.peer
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if got := s.source(r).String(); got != tt.want {
			t.Errorf("%s with %q is %s, want %s", tt.peer, tt.forwarded, got, tt.want)
		}
	}
}

func TestForwardedHostIsBelievedOfProxiesOnly(t *testing.T) {
	s := &Server{cfg: Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	for peer, want := range map[string]string{"10.0.0.1:5": "broker.example.com", "192.0.2.1:5": "inner:8787"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://inner:8787/", nil)
		r.RemoteAddr = peer
		r.Header.Set("X-Forwarded-Host", "broker.example.com")
		if got := s.host(r); got != want {
			t.Errorf("from %s: %s, want %s", peer, got, want)
		}
	}
}

// Every code of the rules has a status, and what is unknown tells nothing.
func TestErrorsAreExplained(t *testing.T) {
	for code := mailbox.NotFound; code <= mailbox.Full; code++ {
		p := explain(&mailbox.Error{Code: code, Message: "it is so"})
		if p.Status == http.StatusInternalServerError || p.Code == "" || p.Title == "" {
			t.Errorf("mailbox code %d: %+v", code, p)
		}
	}
	for _, err := range []*pairing.Error{
		pairing.ErrBadCode, pairing.ErrNotFound, pairing.ErrConflict, pairing.ErrMalformed, pairing.ErrForbidden, pairing.ErrLimited,
	} {
		if p := explain(fmt.Errorf("wrapped: %w", err)); p.Code != err.Code || p.Status >= 500 {
			t.Errorf("%s: %+v", err.Code, p)
		}
	}
	if p := explain(errors.New("secret detail")); p.Status != 500 || p.Code != wire.CodeInternal || strings.Contains(p.Title+p.Hint, "secret") {
		t.Errorf("an unknown error: %+v", p)
	}
	order := explain(&mailbox.Error{Code: mailbox.Order, Message: "x", Seq: 7, Prev: mailbox.Digest{1}})
	if order.ExpectedSeq != 7 || len(order.ExpectedPrev) != 32 || order.ExpectedPrev[0] != 1 {
		t.Errorf("order: %+v", order)
	}
	limited := explain(&mailbox.Error{Code: mailbox.Limited, Message: "x", RetryAfter: 1500 * time.Millisecond})
	if limited.RetryAfter != 2 {
		t.Errorf("Retry-After %d, want it rounded up to 2", limited.RetryAfter)
	}
}

func TestReaderThatStopsIsDropped(t *testing.T) {
	ended := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out, err := startSSE(w)
		if err != nil {
			ended <- err
			return
		}
		if out.stall != stallTime {
			ended <- fmt.Errorf("it may stall for %v", out.stall)
			return
		}
		out.stall = 200 * time.Millisecond
		for err == nil {
			if err = out.event("batch", "", strings.Repeat("x", 1<<20)); err == nil {
				_, err = out.flush()
			}
		}
		ended <- err
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil { // and nothing is ever read
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a reader that stopped is still waited for")
	}
}

func TestSlowReaderGetsAResumableEnd(t *testing.T) {
	feed := NewFeed(nil)
	s := &Server{cfg: Config{Now: time.Now, Feed: feed}}
	ended := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := startSSE(w)
		if err == nil && out.slow != slowTime {
			err = fmt.Errorf("it may be slow for %v", out.slow)
		}
		if err != nil {
			ended <- err
			return
		}
		out.slow = 0 // every reader is slower than that
		st := &stream{s: s, out: out, wake: make(chan struct{}, 1)}
		p := &part{pairing: "p", cursor: 7, mine: map[mailbox.CommandID]bool{}}
		p.caller.token.Expires = time.Now().Add(time.Hour).UnixMilli()
		p.sub = feed.subscribe(p.caller.pairing.ID, p.caller.surface.ID, st.wake)
		st.parts = []*part{p}
		feed.Beat(p.caller.pairing.ID, []byte("beat"))
		ended <- st.run(r.Context())
	}))
	defer srv.Close()
	res, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if want := `event: end` + "\n" + `data: {"pairing":"p","cursor":7,"reason":"slow"}`; !strings.Contains(string(text), want) {
		t.Errorf("the reader got %q", text)
	}
	if feed.Count(proof.PairingID{}) != 0 {
		t.Error("the subscription is still there")
	}
}

func TestPanicIsAProblemAndNotTheEnd(t *testing.T) {
	var said bytes.Buffer
	s := &Server{log: slog.New(slog.NewTextHandler(&said, nil))}
	h := s.recovered(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a secret of the code") }))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if rec.Code != 500 || strings.Contains(rec.Body.String(), "secret") || !strings.Contains(said.String(), "a secret of the code") {
		t.Errorf("%d %s; logged %s", rec.Code, rec.Body, said.String())
	}
}

func FuzzLastEventID(f *testing.F) {
	f.Add("AAAAAAAAAAAAAAAAAAAAAA:1,BBBBBBBBBBBBBBBBBBBBBB:22")
	f.Add(":,")
	f.Add("a:18446744073709551616")
	f.Fuzz(func(t *testing.T, text string) {
		r := &http.Request{Header: http.Header{"Last-Event-Id": {text}}}
		cursors, err := lastEventID(r)
		if err != nil {
			return
		}
		for id, n := range cursors {
			if !strings.Contains(text, id+":") || n > 1<<63 && !strings.Contains(text, fmt.Sprint(n)) {
				t.Errorf("%q gave %q: %d", text, id, n)
			}
		}
	})
}

func FuzzBody(f *testing.F) {
	f.Add([]byte(`{"pairing":"a","token":"b","after":1}`))
	f.Add([]byte(`{"after":-1}`))
	f.Add([]byte("{} x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(raw))
		r.Header.Set("Content-Type", "application/json")
		got, err := read[wire.StreamSubscribe](httptest.NewRecorder(), r, 64)
		if err != nil {
			if p, ok := errors.AsType[*wire.Problem](err); !ok || p.Status >= 500 {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		again, err := json.Marshal(got)
		if err != nil || len(raw) > 64 || !json.Valid(bytes.TrimSpace(raw)) {
			t.Errorf("%q was taken as %s, %v", raw, again, err)
		}
	})
}
