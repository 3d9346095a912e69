//go:build e2e

package hostile

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// raised are limits under which a test may try more than an outsider.
var raised = []string{"--limit", "enrol.network=1000", "--limit", "link.network=1000"}

// brokerSays runs a command of the operator.
func (w *world) brokerSays(args ...string) string {
	w.t.Helper()
	out, err := w.Must(w.ctx, "", "broker", append([]string{"--state", w.BrokerDir()}, args...)...)
	check(w.t, err)
	return out
}

// unchanged wants that f changes nothing: the listings stay as they are, and no line tells of a success.
func (w *world) unchanged(f func()) {
	w.t.Helper()
	listings := func() string {
		out := w.brokerSays("pairings", "list", "--json")
		if w.desktop != nil {
			out += w.brokerSays("surfaces", "list", w.pairing(), "--json")
		}
		return out
	}
	lines := func() []wire.AuditLine { return parseLines(w.t, w.brokerSays("audit", "tail", "--json")) }
	before, seen := listings(), len(lines())
	f()
	if after := listings(); after != before {
		w.t.Errorf("the listings have changed:\n%s\n%s", before, after)
	}
	for _, l := range lines()[seen:] {
		if l.Outcome == "success" && l.Type != "audit.read" {
			w.t.Errorf("the broker's log tells of a success: %+v", l)
		}
	}
}

func (w *world) pairing() string {
	w.t.Helper()
	s, err := w.desktop.Status(w.ctx)
	check(w.t, err)
	return s.Pairings[0].ID
}

// TestCodes: whatever is wrong with an enrolment code, the answer is the same.
func TestCodes(t *testing.T) {
	w := newBroker(t, "bin", raised...)
	issue := func(args ...string) (id, text string) {
		var c struct{ ID, Text string }
		check(t, json.Unmarshal([]byte(w.brokerSays(append([]string{"codes", "issue", "--json"}, args...)...)), &c))
		return c.ID, c.Text
	}
	tries := 0
	enrol := func(code string) lab.Result {
		tries++
		dir := filepath.Join(w.Dir, fmt.Sprintf("try-%d", tries))
		r, err := w.Run(w.ctx, code+"\n", "desktop-agent", "--state", dir, "enrol", "--broker", w.URL(), "--host", "desk", "-")
		check(t, err)
		return r
	}
	_, used := issue()
	if r := enrol(used); r.Code != 0 {
		t.Fatalf("a good code was refused: %s", r.Stderr)
	}
	revoked, revokedText := issue()
	w.brokerSays("codes", "revoke", revoked)
	_, short := issue("--ttl", "1s")
	issued := time.Now()
	_, burned := issue()
	for range 5 {
		enrol(otherLetter(burned, 12))
	}
	_, open := issue()
	w.await("the end of the short code", func() bool { return time.Since(issued) > 1100*time.Millisecond })
	answers := map[string]lab.Result{}
	w.unchanged(func() {
		for name, code := range map[string]string{
			"used": used, "revoked": revokedText, "expired": short, "burned": burned, "wrong": otherLetter(open, 12), "unknown": otherLetter(open, 0),
		} {
			answers[name] = enrol(code)
		}
	})
	for name, r := range answers {
		if r.Code != 4 || r.Stderr != answers["used"].Stderr || strings.Count(r.Stderr, "error:") != 1 {
			t.Errorf("%s: exit %d\n%s", name, r.Code, r.Stderr)
		}
	}
	if r := enrol(open); r.Code != 0 {
		t.Errorf("the open code is spent by a wrong try: %s", r.Stderr)
	}
}

// otherLetter changes one letter of a code to its neighbour in the alphabet.
func otherLetter(code string, at int) string {
	i := strings.IndexByte(proof.Alphabet, code[at])
	return code[:at] + string(proof.Alphabet[(i+1)%len(proof.Alphabet)]) + code[at+1:]
}

// TestWrongDigits: three wrong entries burn a session, at both ends.
func TestWrongDigits(t *testing.T) {
	w := newBroker(t, "bin", raised...)
	l := &linking{world: w}
	l.begin("desk", false)
	l.join()
	right := <-l.digits
	for i := range proof.MaxDigitEntries {
		check(t, l.owner.Type(fmt.Sprintf("%06d", (atoi(t, right)+1+i)%1_000_000)))
	}
	l.ownerSees("the digits were wrong too often")
	l.notLinked("not linked")
	l.noSurface()
	wantLines(t, l.audit(), []string{"surface.refused refused wrong_digits", "link.burned refused wrong_digits"})
}

func atoi(t *testing.T, s string) (n int) {
	t.Helper()
	_, err := fmt.Sscanf(s, "%d", &n)
	check(t, err)
	return n
}

// TestLinks: a link that was used, cancelled or never made is refused in the same words, and nothing changes.
func TestLinks(t *testing.T) {
	w := newBroker(t, "bin", raised...)
	used := &linking{world: w}
	used.begin("used", false)
	used.join()
	used.typeDigits(1)
	check(t, <-used.joined)
	if code := used.owner.Code(); code != 0 {
		t.Fatalf("exit %d: %s", code, used.owner.Output())
	}
	ended := &linking{world: w}
	ended.begin("ended", false)
	check(t, ended.owner.Stop(20*time.Second))
	w.await("the end of the session", func() bool {
		for _, l := range ended.audit() {
			if l.Type == "link.cancelled" {
				return true
			}
		}
		return false
	})
	answers := map[string]string{}
	w.unchanged(func() {
		for name, text := range map[string]string{
			"used": used.text, "ended": ended.text, "unknown": seal.FormatLink(w.URL(), proof.LinkID{1, 2, 3}, seal.NewLinkSecret()),
			"code": "07-BCDF-GHJK",
		} {
			r, err := w.Run(w.ctx, text+"\n", "surface", "--state", filepath.Join(w.Dir, "s-"+name), "link", "--broker", w.URL(), "--label", "late", "-")
			check(t, err)
			if r.Code == 0 {
				t.Errorf("%s: linked", name)
			}
			answers[name] = r.Stderr
		}
	})
	for name, text := range answers {
		if text != answers["unknown"] {
			t.Errorf("%s is answered with\n%s, an unknown one with\n%s", name, text, answers["unknown"])
		}
	}
}

// client speaks to the broker as anyone can.
type client struct {
	*world
	token string
}

// signIn gets the surface's token, as its program does.
func (w *world) signIn(p *phone) *client {
	w.t.Helper()
	c := &client{world: w}
	var info wire.BrokerInfo
	c.post(http.MethodGet, wire.PathBroker, nil, http.StatusOK, &info)
	var nonce wire.Nonce
	who := wire.AuthNonceRequest{Pairing: p.info.Pairing, Surface: p.info.Surface}
	c.post(http.MethodPost, wire.PathAuthNonce, who, http.StatusOK, &nonce)
	surface, err := proof.ParseSurfaceID(p.info.Surface)
	check(w.t, err)
	auth := proof.SurfaceAuth{
		Origin: w.URL(), Broker: proof.SigKey(info.Key), Pairing: p.pairing, Surface: surface, Nonce: nonce.Nonce, Time: nonce.Time,
	}
	var token wire.AuthToken
	c.post(http.MethodPost, wire.PathAuthToken, wire.AuthTokenRequest{
		Pairing: who.Pairing, Surface: who.Surface, Nonce: nonce.Nonce, Time: nonce.Time, Signature: auth.Sign(p.keys.Signer()),
	}, http.StatusOK, &token)
	c.token = token.Token
	return c
}

func (c *client) post(method, path string, in any, status int, out any) {
	c.t.Helper()
	raw, err := json.Marshal(in)
	check(c.t, err)
	got, body := c.send(method, path, "application/json", raw)
	if got != status || json.Unmarshal(body, out) != nil {
		c.t.Fatalf("%s: %d %s", path, got, body)
	}
}

func (c *client) send(method, path, kind string, body []byte) (int, []byte) {
	c.t.Helper()
	if method == http.MethodGet {
		body = nil
	}
	req, err := http.NewRequestWithContext(c.ctx, method, "http://"+c.liar.real+path, bytes.NewReader(body))
	check(c.t, err)
	req.Header.Set("Content-Type", kind)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := http.DefaultClient.Do(req)
	check(c.t, err)
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	check(c.t, err)
	return res.StatusCode, raw
}

// refuses wants a problem of one code, and in few words.
func (c *client) refuses(what, method, path, kind string, body []byte, code string) {
	c.t.Helper()
	status, raw := c.send(method, path, kind, body)
	var p wire.Problem
	if json.Unmarshal(raw, &p) != nil || p.Code != code || p.Status != status || status < 400 || status >= 500 || p.Title == "" || len(raw) > 600 {
		c.t.Errorf("%s: %d %.300s, wanted %s", what, status, raw, code)
	}
}

// TestBodies: bodies that are too long, of another shape, or no JSON get one short error each and change nothing.
func TestBodies(t *testing.T) {
	w := newWorld(t, "bin", echo...)
	p := w.link("phone", false)
	c := w.signIn(p)
	of := func(path string) string { return strings.ReplaceAll(path, "{pairing}", p.info.Pairing) }
	small := []string{
		wire.PathEnrol, wire.PathTunnelNonce, wire.PathLinkClaim, wire.PathLinkReveal, wire.PathLinkGrant, wire.PathLinkFinish, wire.PathLinkCancel,
		wire.PathAuthNonce, wire.PathAuthToken, wire.PathStreams,
	}
	w.unchanged(func() {
		for _, path := range small {
			c.refuses(path+" one byte over", http.MethodPost, path, "application/json", filled(wire.MaxSmallBody+1), wire.CodeTooLarge)
			c.refuses(path+" at the limit", http.MethodPost, path, "application/json", filled(wire.MaxSmallBody), wire.CodeMalformed)
		}
		c.refuses("a command one byte over", http.MethodPost, of(wire.PathCommands), "application/json", filled(wire.MaxCommandBody+1), wire.CodeTooLarge)
		c.refuses("a command at the limit", http.MethodPost, of(wire.PathCommands), "application/json", filled(wire.MaxCommandBody), wire.CodeMalformed)
		for _, path := range append(small, of(wire.PathCommands)) {
			for what, body := range map[string]string{
				"nothing": "", "half": `{"sealed":`, "no object": `7`, "an unknown field": `{"run":true}`, "two values": `{}{}`,
				"deep": strings.Repeat("[", 30_000), "text": "hello",
			} {
				c.refuses(path+" "+what, http.MethodPost, path, "application/json", []byte(body), wire.CodeMalformed)
			}
			c.refuses(path+" as a form", http.MethodPost, path, "application/x-www-form-urlencoded", []byte("{}"), wire.CodeMalformed)
		}
		c.refuses("wait of 26 s", http.MethodPost, of(wire.PathCommands)+"?wait=26", "application/json", []byte("{}"), wire.CodeMalformed)
		c.refuses("no such path", http.MethodPost, "/api/v1/execute", "application/json", []byte("{}"), wire.CodeNotFound)
		c.refuses("an envelope one byte over", http.MethodPost, of(wire.PathCommands), "application/json", sealed(make([]byte, wire.MaxEnvelopeBytes+1)), wire.CodeTooLarge)
	})
	if o := w.say1(p); o != nil {
		t.Errorf("after all that the surface is refused: %v", o)
	}
}

func (w *world) say1(p *phone) error {
	w.begin(p)
	s := scene{world: w, phone: p}
	return s.say1()
}

// filled is a body of n bytes whose JSON ends only with its last one.
func filled(n int) []byte { return []byte(`{"x":"` + strings.Repeat("a", n-8) + `"}`) }

func sealed(envelope []byte) []byte {
	return []byte(`{"sealed":"` + wire.Bytes(envelope).String() + `"}`)
}

// TestNegativeVectors posts everything that the shared vectors refuse to a real broker; and a kind that does not exist.
func TestNegativeVectors(t *testing.T) {
	w := newWorld(t, "bin", echo...)
	p := w.link("phone", false)
	c := w.signIn(p)
	raw, err := os.ReadFile("../../pkg/seal/testdata/vectors/v1/negative.json")
	check(t, err)
	var vectors struct {
		Cases []struct{ Name, Object, Data, Text string }
	}
	check(t, json.Unmarshal(raw, &vectors))
	if len(vectors.Cases) < 10 {
		t.Fatalf("only %d vectors", len(vectors.Cases))
	}
	commands := strings.ReplaceAll(wire.PathCommands, "{pairing}", p.info.Pairing)
	posted := map[string]int{}
	bundle := (&attack{world: w, phone: p}).bundle()
	w.unchanged(func() {
		for _, v := range vectors.Cases {
			data, err := hex.DecodeString(v.Data)
			check(t, err)
			body := sealed(data)
			path := commands
			if v.Object == "claim" {
				path, body = wire.PathLinkClaim, []byte(`{"claim":`+v.Text+`}`)
			}
			status, answer := c.send(http.MethodPost, path, "application/json", body)
			var problem wire.Problem
			if status < 400 || status >= 500 || json.Unmarshal(answer, &problem) != nil || problem.Code == "" || problem.Code == wire.CodeLimited {
				t.Errorf("%s: %d %s", v.Name, status, answer)
			}
			posted[v.Object]++
		}
		e, err := p.keys.SealCommand(bundle, seal.Command{Kind: proof.Status, Payload: []byte("{}"), Iat: time.Now(), Exp: time.Now().Add(time.Minute)}, proof.Chain{})
		check(t, err)
		header := append([]byte{}, e[:proof.HeaderSize]...)
		header[2] = 99 // signed by the surface all the same
		unknown := proof.SignEnvelope(header, e[proof.HeaderSize:len(e)-64], p.keys.Signer())
		status, answer := c.send(http.MethodPost, commands, "application/json", sealed(unknown))
		if status != http.StatusBadRequest || !strings.Contains(string(answer), "malformed") && !strings.Contains(string(answer), "unsupported") {
			t.Errorf("an unknown kind: %d %s", status, answer)
		}
	})
	if posted["envelope"] < 10 || posted["claim"] == 0 {
		t.Errorf("posted %v", posted)
	}
}

// TestSlowLoris: a connection that sends its head byte by byte is cut, and a body that never ends is too.
func TestSlowLoris(t *testing.T) {
	w := newBroker(t, "bin")
	c, err := net.Dial("tcp", w.liar.real)
	check(t, err)
	defer func() { _ = c.Close() }()
	began := time.Now()
	go func() {
		for _, b := range []byte("GET /api/v1/broker HTTP/1.1\r\nHost: x\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaa") {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			<-time.After(200 * time.Millisecond) // the pace of the attack; a write fails when it is over
		}
	}()
	check(t, c.SetReadDeadline(time.Now().Add(25*time.Second)))
	_, err = io.Copy(io.Discard, c)
	if took := time.Since(began); err != nil && strings.Contains(err.Error(), "timeout") || took > 20*time.Second {
		t.Errorf("a slow head holds its connection: %v after %s", err, took)
	}
}

// TestStreamFlood: a desktop, or whoever has its keys, that opens streams without end loses its link and nothing else.
func TestStreamFlood(t *testing.T) {
	w := newWorld(t, "bin", echo...)
	up := make(chan *tunnel.Link, 1)
	w.liar.mu.Lock()
	w.liar.onUp = func(l *tunnel.Link) { up <- l }
	w.liar.mu.Unlock()
	w.liar.cut()
	link := <-up
	for range 10 * tunnel.MaxAgentStreams {
		if _, err := link.Open(w.ctx, tunnel.Events); err != nil {
			break
		}
	}
	refused := 0
	for range 2000 { // and a client without our caps, frame by frame, on its one lane
		if _, err := link.Call(w.ctx, tunnel.Control, []byte(`{"type":"run"}`)); err != nil {
			refused++
		}
	}
	if refused != 2000 {
		t.Errorf("%d of 2000 frames that no broker takes were refused", refused)
	}
	link.Close("done")
	check(t, w.desktop.AwaitOnline(w.ctx, w.agent))
	p := w.link("phone", false)
	if err := w.say1(p); err != nil {
		t.Error(err)
	}
	select {
	case <-w.broker.Done():
		t.Error("the broker has ended")
	default:
	}
}

// TestCopiedDesktop: a copy of a desktop's folder that runs beside it takes its link, the other takes it back when its
// owner says so, and after three such exchanges the pairing is locked at the broker: nothing is delivered to either.
func TestCopiedDesktop(t *testing.T) {
	w := newHonest(t)
	p := w.link("phone", false)
	check(t, w.say1(p))
	check(t, w.agent.Stop(20*time.Second))
	copied, err := w.Desktop("copy", echo...)
	check(t, err)
	check(t, os.CopyFS(copied.Dir(), os.DirFS(w.desktop.Dir())))
	check(t, chmodAll(copied.Dir()))
	w.agent, err = w.desktop.Start(w.ctx)
	check(t, err)
	twin, err := copied.StartOnly()
	check(t, err)
	_, err = twin.Await("connected", lab.StartTime)
	check(t, err)
	turns := 0
	w.await("the conflict", func() bool {
		turns++
		check(t, syscall.Kill([]int{twin.PID(), w.agent.PID()}[turns/25%2], syscall.SIGHUP)) // each owner in turn
		return strings.Contains(twin.Output()+w.agent.Output(), "403 identity_conflict")
	})
	if log := w.brokerSays("audit", "tail", "--json"); !strings.Contains(log, `"type":"pairing.locked"`) || !strings.Contains(log, `"reason":"identity_conflict"`) {
		t.Error("the broker's log has no line about the lock")
	}
	r, err := p.cli.Run(w.ctx, "prompt", "--session", p.session, "to whom?")
	check(t, err)
	if r.Code != 4 {
		t.Errorf("a surface of a locked pairing is told: exit %d, %s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// newHonest is a world without a liar.
func newHonest(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	l, err := lab.New(filepath.Join("..", "..", "bin"))
	check(t, err)
	w := &world{Lab: l, t: t, ctx: ctx}
	t.Cleanup(func() { check(t, l.Close()) })
	w.broker, err = l.StartBroker()
	check(t, err)
	w.desktop, w.agent = w.newDesktop("desk", echo...)
	return w
}

// chmodAll makes what CopyFS wrote as private as it was.
func chmodAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
}
