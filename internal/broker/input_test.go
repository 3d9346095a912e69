package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// calls is every POST with a body, and its bound.
var calls = map[string]int{
	wire.PathEnrol: wire.MaxSmallBody, wire.PathTunnelNonce: wire.MaxSmallBody, wire.PathLinkClaim: wire.MaxSmallBody,
	wire.PathLinkReveal: wire.MaxSmallBody, wire.PathLinkGrant: wire.MaxSmallBody, wire.PathLinkFinish: wire.MaxSmallBody,
	wire.PathLinkCancel: wire.MaxSmallBody, wire.PathAuthNonce: wire.MaxSmallBody, wire.PathAuthToken: wire.MaxSmallBody,
	wire.PathStreams: wire.MaxSmallBody, wire.PathCommands: wire.MaxCommandBody,
}

func TestMalformedBodiesAreRefusedEverywhere(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	for path := range calls {
		full := strings.Replace(path, "{pairing}", d.id, 1)
		for name, body := range map[string]string{
			"nothing": " ", "not JSON": "{", "another type": `"x"`, "a number": "1", "an unknown field": `{"surprise":1}`,
			"two values": `{} {}`, "bad base64": `{"session":"a+b=","sealed":"a+b=","nonce":"a+b=","dsig":"a+b="}`, "null bytes": "\x00",
		} {
			got, p := w.exchange(w.public, http.MethodPost, w.base+full, s.token, []byte(body), nil)
			if p == nil || got != 400 || p.Code != wire.CodeMalformed {
				t.Errorf("%s with %s: %d %+v", path, name, got, p)
			}
		}
	}
}

func TestBodiesAreBoundedToTheByte(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	for path, limit := range calls {
		full := strings.Replace(path, "{pairing}", d.id, 1)
		for size, want := range map[int]int{limit: 400, limit + 1: 413} {
			body := append(bytes.Repeat([]byte(" "), size-1), '1') // white space and one value, of the wrong type
			got, p := w.exchange(w.public, http.MethodPost, w.base+full, s.token, body, nil)
			if p == nil || got != want {
				t.Errorf("%s with %d bytes: %d %+v, want %d", path, size, got, p, want)
			}
		}
	}
}

func TestCallsWithoutBodyTakeNone(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	w.refused(http.MethodPost, at(wire.PathRevokeSelf, d.id), s.token, []byte("x"), 400, wire.CodeMalformed)
	w.ask(http.MethodGet, at(wire.PathPairing, d.id), s.token, nil, nil)
}

func TestBodyMustSayThatItIsJSON(t *testing.T) {
	w := start(t, nil)
	res, err := w.public.Post(w.base+wire.PathTunnelNonce, "text/plain", strings.NewReader(`{"pairing":"AAAAAAAAAAAAAAAAAAAAAA"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if p := decode(t, res, nil); p == nil || p.Code != wire.CodeMalformed {
		t.Errorf("%d %+v", res.StatusCode, p)
	}
}

func TestTokensAreRefused(t *testing.T) {
	w := start(t, nil)
	a, b := w.enrol(), w.enrol()
	a.connect()
	b.connect()
	s, other := a.linkSurface(proof.ModeLink, proof.ScopePrompt), b.linkSurface(proof.ModeLink, proof.ScopePrompt)
	path := at(wire.PathPairing, a.id)
	w.ask(http.MethodGet, path, s.token, nil, nil)
	flipped := []byte(s.token)
	flipped[40] ^= 1
	answers := map[string]bool{}
	for _, token := range []string{"", "x", other.token, string(flipped), s.token + "A", strings.Repeat("A", 5000)} {
		p := w.refused(http.MethodGet, path, token, nil, 401, wire.CodeUnauthorized)
		answers[p.Title+p.Hint] = true
	}
	unknown := w.refused(http.MethodGet, at(wire.PathPairing, "AAAAAAAAAAAAAAAAAAAAAA"), s.token, nil, 401, wire.CodeUnauthorized)
	answers[unknown.Title+unknown.Hint] = true
	w.clock.advance(proof.TokenLife + time.Second)
	expired := w.refused(http.MethodGet, path, s.token, nil, 401, wire.CodeUnauthorized)
	answers[expired.Title+expired.Hint] = true
	if len(answers) != 1 {
		t.Errorf("different answers: %v", answers)
	}
}

func TestSignInIsRefused(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	refuse := func(name string, edit func(*wire.AuthTokenRequest), status int, code string) {
		t.Helper()
		in := s.auth()
		edit(&in)
		got, p := w.exchange(w.public, http.MethodPost, w.base+wire.PathAuthToken, "", in, nil)
		if p == nil || got != status || p.Code != code {
			t.Errorf("%s: %d %+v", name, got, p)
		}
	}
	refuse("flipped signature", func(in *wire.AuthTokenRequest) { in.Signature[0] ^= 1 }, 401, wire.CodeUnauthorized)
	refuse("another nonce", func(in *wire.AuthTokenRequest) { in.Nonce = make(wire.Bytes, 32) }, 401, wire.CodeUnauthorized)
	refuse("unknown surface", func(in *wire.AuthTokenRequest) { in.Surface = "AAAAAAAAAAAAAAAAAAAAAA" }, 401, wire.CodeUnauthorized)
	refuse("no id", func(in *wire.AuthTokenRequest) { in.Pairing = "x" }, 400, wire.CodeMalformed)
	refuse("late", func(*wire.AuthTokenRequest) { w.clock.advance(61 * time.Second) }, 401, wire.CodeUnauthorized)
	used := s.auth()
	w.ask(http.MethodPost, wire.PathAuthToken, "", used, nil)
	w.refused(http.MethodPost, wire.PathAuthToken, "", used, 401, wire.CodeUnauthorized)
	w.clock.advance(time.Hour)
	ahead := s.auth()
	w.clock.advance(-time.Hour) // the nonce is from the future, too: it is the surface's clock and the broker's that differ
	w.refused(http.MethodPost, wire.PathAuthToken, "", ahead, 401, wire.CodeUnauthorized)
}

func TestSurfaceWithAWrongClockIsToldBothTimes(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	in := s.auth()
	a := proof.SurfaceAuth{
		Origin: w.started.PageOrigin, Broker: w.started.Key, Pairing: d.keys.Pairing(), Surface: s.grant.Surface, Nonce: in.Nonce,
		Time: in.Time + (10 * time.Minute).Milliseconds(),
	}
	in.Time, in.Signature = a.Time, a.Sign(s.keys.Signer())
	if p := w.refused(http.MethodPost, wire.PathAuthToken, "", in, 400, wire.CodeClockSkew); strings.Count(p.Title, "UTC") != 2 {
		t.Errorf("it does not name both times: %s", p.Title)
	}
}

func TestEnrolmentIsIdempotentAndCodesAreUsedOnce(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	code := w.code()
	fresh := w.enrol()
	in := d.redeem(code)
	w.refused(http.MethodPost, wire.PathEnrol, "", in, 409, wire.CodeConflict) // this desktop is enrolled already
	var codes []wire.EnrolmentCode
	w.operate(http.MethodGet, wire.PathOpCodes, nil, &codes)
	if len(codes) != 3 || codes[0].State != "used" || codes[0].Pairing != fresh.id || codes[1].State != "open" {
		t.Errorf("codes %+v", codes)
	}
	wrong := in
	wrong.Proof = append(wire.Bytes{}, in.Proof...)
	wrong.Proof[0] ^= 1
	w.refused(http.MethodPost, wire.PathEnrol, "", wrong, 400, wire.CodeMalformed)
	w.operate(http.MethodPost, at(wire.PathOpCodeRevoke, codes[1].ID), nil, nil)
	w.refused(http.MethodPost, wire.PathEnrol, "", in, 403, wire.CodeBadCode)
}

func TestLostEnrolReplyIsRepeated(t *testing.T) {
	w := start(t, nil)
	d := w.enrol() // its code is used; the same bytes once more
	code := w.code()
	other := &testDesk{t: t, w: w, keys: freshKeys(t, w), broker: w.started.Key}
	in := other.redeem(code)
	var first, second wire.EnrolReply
	w.ask(http.MethodPost, wire.PathEnrol, "", in, &first)
	w.ask(http.MethodPost, wire.PathEnrol, "", in, &second)
	if first.Pairing != second.Pairing || first.Pairing == d.id {
		t.Errorf("%s and %s", first.Pairing, second.Pairing)
	}
	thief := &testDesk{t: t, w: w, keys: freshKeys(t, w), broker: w.started.Key}
	w.refused(http.MethodPost, wire.PathEnrol, "", thief.redeem(code), 403, wire.CodeBadCode)
}

func TestEnrolmentIsLimitedPerNetwork(t *testing.T) {
	w := start(t, nil)
	d := &testDesk{t: t, w: w, keys: freshKeys(t, w), broker: w.started.Key}
	in := d.redeem(w.code())
	in.Code = strings.Repeat("B", len(in.Code))
	for range 10 {
		w.exchange(w.public, http.MethodPost, w.base+wire.PathEnrol, "", in, nil)
	}
	w.refused(http.MethodPost, wire.PathEnrol, "", in, 429, wire.CodeLimited)
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	w := start(t, nil)
	for _, call := range []struct{ method, path string }{
		{"GET", "/"},
		{"GET", "/nothing"},
		{"GET", wire.PathEnrol},
		{"DELETE", wire.PathBroker},
		{"GET", wire.PathOpCodes},
		{"GET", "/api/v1/../../etc/passwd"},
		{"POST", wire.PathPage},
	} {
		req, err := http.NewRequestWithContext(t.Context(), call.method, w.base+call.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.public.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		p := decode(t, res, nil)
		res.Body.Close()
		if p == nil || res.StatusCode != 404 || p.Code != wire.CodeNotFound || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %+v", call.method, call.path, res.StatusCode, p)
		}
	}
}

func TestPagesOfStrangersMayNotCall(t *testing.T) {
	w := start(t, func(c *Config) { c.AllowedOrigins = []string{"https://page.example.com"} })
	call := func(method, origin string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, w.base+wire.PathTunnelNonce, strings.NewReader(`{"pairing":"AAAAAAAAAAAAAAAAAAAAAA"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Origin", origin)
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res
	}
	if res := call(http.MethodPost, "https://evil.example.com"); res.StatusCode != 403 || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a stranger's page: %d %v", res.StatusCode, res.Header)
	}
	if res := call(http.MethodPost, "https://page.example.com"); res.StatusCode != 200 || res.Header.Get("Access-Control-Allow-Origin") != "https://page.example.com" {
		t.Errorf("an allowed page: %d %v", res.StatusCode, res.Header)
	}
	if res := call(http.MethodOptions, "https://page.example.com"); res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("its preflight: %d %v", res.StatusCode, res.Header)
	}
	if res := call(http.MethodOptions, "https://evil.example.com"); res.StatusCode < 400 {
		t.Errorf("a stranger's preflight: %d", res.StatusCode)
	}
}

func TestPageChangesNothingAndIsStrict(t *testing.T) {
	w := start(t, nil)
	res, err := w.public.Get(w.base + wire.PathPage)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(text), "surface link") {
		t.Errorf("the page: %q, %v", text, err)
	}
	for name, want := range map[string]string{
		"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestSlowHeadersAreCutOff(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := newEndpoint("http://"+l.Addr().String(), l, http.NotFoundHandler(), discard())
	if e.server.ReadHeaderTimeout != headerTime || e.server.ReadTimeout != readTime || e.server.MaxHeaderBytes != maxHeader {
		t.Fatalf("the server has other bounds: %+v", e.server)
	}
	e.server.ReadHeaderTimeout = 200 * time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- e.serve() }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ") // and then nothing more
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the connection was not closed: %v", err)
	}
	_ = e.server.Close()
	if err := receive(t, "the server's end", ended); err != nil {
		t.Error(err)
	}
}

func TestHeadersAreBounded(t *testing.T) {
	w := start(t, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nX-Big: %s\r\n\r\n", wire.PathBroker, strings.Repeat("a", 2*maxHeader))
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	line, err := io.ReadAll(io.LimitReader(conn, 12))
	if err != nil || string(line) != "HTTP/1.1 431" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestLastEventIDMustBeOurs(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	for _, id := range []string{"x", d.id + ":", d.id + ":-1", strings.Repeat("a", 3000)} {
		raw, err := json.Marshal(s.subscribe(nil))
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.base+wire.PathStreams, bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Last-Event-ID", id)
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if p := decode(t, res, nil); p == nil || p.Code != wire.CodeMalformed {
			t.Errorf("Last-Event-ID %.20q: %d %+v", id, res.StatusCode, p)
		}
		res.Body.Close()
	}
}
