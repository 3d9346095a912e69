package opencode

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeClient speaks to a fake of OpenCode's HTTP server: it is for shapes and sizes that
// the real one does not produce on demand.
func fakeClient(t *testing.T, h http.HandlerFunc) *client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c := newClient(s.URL, "pw")
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func TestCall(t *testing.T) {
	c := fakeClient(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "opencode" || password != "pw" || r.URL.Query().Get("directory") != "/a b" || r.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "no", http.StatusTeapot)
			return
		}
		fmt.Fprint(w, `{"id":"ses_1","title":"t","unknown":{"x":[1]},"time":{"created":1795549316859.5}}`)
	})
	var s session
	if _, err := c.call(t.Context(), "POST", "/session", "/a b", nil, map[string]any{}, &s); err != nil {
		t.Fatal(err)
	}
	if s.ID != "ses_1" || s.Title != "t" || s.Time.Created.time().UnixMilli() != 1795549316859 {
		t.Errorf("read %+v", s)
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		status     int
		body, name string
		notFound   bool
	}{
		{404, `{"name":"NotFoundError","data":{"message":"Session not found: /home/x"}}`, "NotFoundError", true},
		{404, `{"_tag":"PermissionNotFoundError","requestID":"per_1","message":"gone"}`, "PermissionNotFoundError", true},
		{400, `{"name":"BadRequest","data":{"message":"m","kind":"Payload"}}`, "BadRequest", false},
		{401, ``, "Unauthorized", false},
		{500, `<html>`, "Internal Server Error", false},
		{404, strings.Repeat("x", maxRefusal+1), "Not Found", true},
		{302, ``, "Found", false},
	} {
		c := fakeClient(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		})
		_, err := c.call(t.Context(), "GET", "/x", "", nil, nil, nil)
		var r *refusal
		if !errors.As(err, &r) || r.Status != tt.status || r.Name != tt.name || notFound(err) != tt.notFound {
			t.Errorf("%d %.40s: %v", tt.status, tt.body, err)
		}
		if strings.Contains(err.Error(), "/home/x") {
			t.Errorf("the error carries local content: %v", err)
		}
	}
}

func TestAnswerLimits(t *testing.T) {
	for _, extra := range []int{0, 1} {
		_, err := readAll(strings.NewReader(strings.Repeat("x", 100+extra)), 100)
		if (err != nil) != (extra > 0) {
			t.Errorf("%d over: %v", extra, err)
		}
	}
	c := fakeClient(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"healthy":tru`) })
	if _, err := c.health(t.Context(), time.Second); err == nil {
		t.Error("half an answer counts as health")
	}
	c = fakeClient(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"healthy":false}`) })
	if _, err := c.health(t.Context(), time.Second); err == nil {
		t.Error("unhealthy counts as health")
	}
}

// TestHang: the socket accepts, the server never answers; health gives up in its time.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipeClient(t, func(net.Conn) {})
		began := time.Now()
		if _, err := c.health(t.Context(), time.Second); err == nil || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		began = time.Now()
		if _, err := c.call(t.Context(), "GET", "/x", "", nil, nil, nil); err == nil || time.Since(began) != callTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// pipeClient speaks to serve over connections in memory, inside a synctest bubble.
func pipeClient(t *testing.T, serve func(net.Conn)) *client {
	c := newClient("http://127.0.0.1:1", "pw")
	c.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		t.Cleanup(func() { far.Close() })
		go func() {
			if _, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
				serve(far)
			}
		}()
		return near, nil
	}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func TestStreamSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipeClient(t, func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
			for range 3 {
				time.Sleep(silence - time.Second)
				io.WriteString(conn, "data: {\"payload\":{\"type\":\"server.heartbeat\",\"properties\":{}}}\n\n")
			}
		})
		began, n := time.Now(), 0
		err := c.stream(t.Context(), func(event) error {
			n++
			time.Sleep(2 * silence) // what we do with an event is not silence
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "silent") || n != 3 {
			t.Errorf("after %d events: %v", n, err)
		}
		if d := time.Since(began); d > 3*(silence-time.Second)+4*2*silence {
			t.Errorf("it took %v", d)
		}
	})
}

func TestReadEvents(t *testing.T) {
	in := ": comment\nevent: x\n" +
		"data: {\"directory\":\"/p\",\"payload\":{\"type\":\"a\",\"properties\":{\"k\":1}}}\n\n" +
		"data: not json\ndata: {}\ndata: {\"payload\":{\"type\":\"sync\",\"properties\":{}}}\n" +
		"data:{\"payload\":{\"type\":\"b\"}}\r\n"
	var got []string
	err := readEvents(strings.NewReader(in), func(e event) error {
		got = append(got, e.Directory+" "+e.Type+" "+string(e.Props))
		return nil
	})
	if want := []string{`/p a {"k":1}`, " b "}; err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("read %q, %v; want %q", got, err, want)
	}
	stop := errors.New("stop")
	if err := readEvents(strings.NewReader(in), func(event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of each gave %v", err)
	}
	line := func(n int) io.Reader {
		head := `data: {"payload":{"type":"x","properties":"`
		return strings.NewReader(head + strings.Repeat("y", n-len(head)-3) + "\"}}\n")
	}
	n := 0
	count := func(event) error { n++; return nil }
	if err := readEvents(line(maxEvent-1), count); err != nil || n != 1 {
		t.Errorf("the largest event: %d, %v", n, err)
	}
	if err := readEvents(line(maxEvent+1), count); !errors.Is(err, errEventTooLarge) || n != 1 {
		t.Errorf("one over: %d, %v", n, err)
	}
}

func FuzzReadEvent(f *testing.F) {
	f.Add([]byte(`{"directory":"/p","payload":{"type":"session.status","properties":{"sessionID":"ses_1","status":{"type":"busy"}}}}`))
	f.Add([]byte(`{"payload":{"type":"permission.asked","properties":{"id":"per_1","sessionID":"ses_1","tool":{}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, ok := readEvent(data)
		if ok && (e.Type == "" || e.Type == "sync") {
			t.Errorf("passed %+v", e)
		}
		if a, ok := readAsked(e.Props); ok && (!sessionID.MatchString(a.SessionID) || a.ID == "") {
			t.Errorf("passed %+v", a)
		}
	})
}

func TestSecretHides(t *testing.T) {
	s := secret("hush")
	if out := fmt.Sprintf("%v %s %q %#v %+v", s, s, s, s, struct{ S secret }{s}); strings.Contains(out, "hush") {
		t.Errorf("printed %s", out)
	}
}
