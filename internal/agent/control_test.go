package agent

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// copyFolder copies the files of a folder.
func copyFolder(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestSecondAgentIsRefused(t *testing.T) {
	d := newDesktop(t)
	d.boot()
	d.ready()
	if _, err := d.make(); !errors.Is(err, ErrRunning) {
		t.Fatalf("%v", err)
	}
	if _, err := d.client().Status(t.Context()); err != nil {
		t.Fatalf("the first one suffered: %v", err)
	}
}

func TestNoAgent(t *testing.T) {
	if _, err := NewClient(t.TempDir()).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("%v", err)
	}
}

func TestControlSocketIsTheOwnersAlone(t *testing.T) {
	d := newDesktop(t)
	if err := os.WriteFile(filepath.Join(d.dir, SocketName), nil, 0o644); err != nil { // left behind by a killed agent
		t.Fatal(err)
	}
	d.boot()
	d.ready()
	info, err := os.Stat(filepath.Join(d.dir, SocketName))
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	s, err := d.client().Status(t.Context())
	if err != nil || len(s.Listens) != 1 || s.Listens[0] != "unix:"+filepath.Join(d.dir, SocketName) {
		t.Fatalf("%+v %v", s, err)
	}
	d.halt()
	if _, err := net.Dial("unix", filepath.Join(d.dir, SocketName)); err == nil {
		t.Fatal("the socket outlives its agent")
	}
}

func TestControlRefusesWhatItDoesNotKnow(t *testing.T) {
	d := newDesktop(t)
	d.boot()
	c := d.ready()
	post := func(path, body string) int {
		res, err := c.http.Post("http://agent"+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := post(pathPolicy, `{"pairing":"","more":1}`); got != http.StatusConflict {
		t.Errorf("unknown field: %d", got)
	}
	fits := `{"pairing":"` + strings.Repeat("x", maxControlBody-len(`{"pairing":""}`)) + `"}`
	refused := &ControlError{}
	if _, err := call[PolicyView](t.Context(), c, pathPolicy, json.RawMessage(fits)); !errors.As(err, &refused) || refused.Code != wire.CodeNotFound {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := call[PolicyView](t.Context(), c, pathPolicy, json.RawMessage(fits[:len(fits)-2]+`x"}`)); !errors.As(err, &refused) || refused.Code != wire.CodeTooLarge {
		t.Errorf("one byte over: %v", err)
	}
	if got := post("/v1/nothing", `{}`); got != http.StatusNotFound {
		t.Errorf("unknown path: %d", got)
	}
}

func TestPolicyOverTheSocket(t *testing.T) {
	d := newDesktop(t)
	d.boot()
	c := d.ready()
	ctx := t.Context()
	v, err := c.SetPolicy(ctx, "", []byte(`{"allowRemotePrompts":true}`))
	if err != nil || v.Version != 2 || v.Policy != (pairing.Policy{AllowRemotePrompts: true}) {
		t.Fatalf("%+v %v", v, err)
	}
	for _, bad := range []string{`{"allowRemotePrompts":true,"root":1}`, `{"remoteApprovals":"always"}`, `[]`, `{`, `true`} {
		if _, err := c.SetPolicy(ctx, "", []byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if again, err := c.Policy(ctx, d.id.String()); err != nil || again != v {
		t.Fatalf("a refused policy changed something: %+v %v", again, err)
	}
	elevated := len(d.linesOf("policy.changed remote_allowed"))
	if _, err := c.SetPolicy(ctx, "", []byte(`{"remoteApprovals":"remote_allowed"}`)); err != nil {
		t.Fatal(err)
	}
	if n := len(d.linesOf("policy.changed remote_allowed")); n != elevated+1 {
		t.Fatalf("elevating left %d lines", n-elevated)
	}
	lines := d.linesOf("policy.changed ")
	if diff := string(lines[len(lines)-1].Diff); !strings.Contains(diff, `"remoteApprovals":["disabled","remote_allowed"]`) {
		t.Fatalf("diff %s", diff)
	}
	d.record(d.agent.journal, journal.SetPolicy(d.id, []byte(`{"history":tru`)))
	if v, err := c.Policy(ctx, ""); err != nil || v.Problem == "" || v.Policy != (pairing.Policy{}) {
		t.Fatalf("a malformed document: %+v %v", v, err)
	}
}

// linesOf returns the lines of a type and reason.
func (d *desktop) linesOf(want string) (found []wire.AuditLine) {
	d.t.Helper()
	entries, err := d.agent.journal.Audit(d.t.Context(), 0, 10000)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		var line wire.AuditLine
		if err := json.Unmarshal(e.Line, &line); err != nil {
			d.t.Fatal(err)
		}
		if line.Type+" "+line.Reason == want {
			found = append(found, line)
		}
	}
	return found
}

func TestAuditTailWaits(t *testing.T) {
	d := newDesktop(t)
	d.boot()
	c := d.ready()
	all, err := c.AuditTail(t.Context(), 0, 100, 0)
	if err != nil || len(all) == 0 || !json.Valid([]byte(all[0].Line)) {
		t.Fatalf("%+v %v", all, err)
	}
	last := all[len(all)-1].Seq
	got := make(chan []AuditView, 1)
	go func() {
		more, _ := c.AuditTail(t.Context(), last, 100, 20)
		got <- more
	}()
	if _, err := c.SetPolicy(t.Context(), "", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	select {
	case more := <-got:
		if len(more) == 0 || more[0].Seq != last+1 {
			t.Fatalf("%+v", more)
		}
	case <-time.After(patience):
		t.Fatal("the tail slept on")
	}
	if none, err := c.AuditTail(t.Context(), last+100, 1, 0); err != nil || len(none) != 0 {
		t.Fatalf("%+v %v", none, err)
	}
}

func TestLinkingOverTheSocket(t *testing.T) {
	d := newDesktop(t)
	d.boot()
	c := d.ready()
	ctx := t.Context()
	ticket, err := c.LinkStart(ctx, "", "link", true)
	if err != nil || ticket.Link == "" {
		t.Fatalf("%+v %v", ticket, err)
	}
	if events, err := c.LinkEvents(ctx, "", 0, 1); err != nil || len(events) != 1 || events[0].Type != LinkWaiting {
		t.Fatalf("%+v %v", events, err)
	}
	if events, err := c.LinkEvents(ctx, "", 1, 0); err != nil || len(events) != 0 {
		t.Fatalf("nothing new: %+v %v", events, err)
	}
	if err := c.LinkDigits(ctx, "", "123456"); err != nil {
		t.Fatal(err)
	}
	if err := c.LinkCancel(ctx, ""); err != nil {
		t.Fatal(err)
	}
	conn := d.broker.connected(t)
	var offer wire.LinkOffer
	if err := conn.send(tunnel.Control, wire.FrameLinkClaim, wire.LinkClaim{Pid: make([]byte, 8), Claim: json.RawMessage(`{}`), Network: "net"}, &offer); err != nil || string(offer.Offer) != `{}` {
		t.Fatalf("%+v %v", offer, err)
	}
	for frame, body := range map[string]any{
		wire.FrameLinkReveal: wire.LinkReveal{Reveal: json.RawMessage(`{}`)}, wire.FrameLinkFinish: wire.LinkFinish{Finish: json.RawMessage(`{}`)},
		wire.FrameLinkLost: wire.LinkEnd{Reason: "expired"}, wire.FrameNotice: wire.Notice{Code: "c", Text: "t"},
	} {
		if err := conn.send(tunnel.Control, frame, body, nil); err != nil {
			t.Errorf("%s: %v", frame, err)
		}
	}
	for _, call := range []string{"start link true", "digits 123456", "cancel", "claim net", "reveal", "finish", "lost expired", "notice notice"} {
		if !d.rec.has(call) {
			t.Errorf("no %q in %q", call, d.rec.calls)
		}
	}
}

func TestRevokeByTheOwner(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	c := d.ready()
	ctx := t.Context()
	list, err := c.Surfaces(ctx, "")
	if err != nil || len(list) != 1 || list[0].Label != "phone" || !list[0].Revoked.IsZero() {
		t.Fatalf("%+v %v", list, err)
	}
	if err := c.RevokeSurface(ctx, p.id.String()); err != nil {
		t.Fatal(err)
	}
	command := d.deliver(d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"}), deliveredRefused)
	if _, body := d.result(p, command); body.Code != "revoked" {
		t.Fatalf("%+v", body)
	}
	for _, id := range []string{p.id.String(), proof.SurfaceID{1}.String(), "junk"} {
		refused := &ControlError{}
		if err := c.RevokeSurface(ctx, id); !errors.As(err, &refused) {
			t.Errorf("%s: %v", id, err)
		}
	}
	d.wantLine("surface.revoked desktop")
	if !d.rec.has("surfaces changed") || !d.rec.has("notice surface.gone") || !d.broker.sawFrame(wire.FrameRevoke) {
		t.Errorf("%q", d.rec.calls)
	}
	if list, _ = c.Surfaces(ctx, d.id.String()); list[0].RevokedBy != "desktop" {
		t.Errorf("%+v", list)
	}
}

func TestRevokeBySurfacesAndTheBroker(t *testing.T) {
	d := newDesktop(t)
	boss, phone, tablet := d.link("boss", proof.ScopeDecide), d.link("phone", proof.ScopePrompt), d.link("tablet", proof.ScopePrompt)
	d.boot()
	revoke := func(by *phoneRef, whom proof.SurfaceID) wire.ResultBody {
		command := d.deliver(d.command(by, proof.RevokeSurface, wire.RevokeSurface{Surface: whom.String()}), deliveredReceived)
		_, body := d.result(by, command)
		return body
	}
	if body := revoke(phone, phone.id); !body.OK { // itself
		t.Fatalf("%+v", body)
	}
	if body := revoke(boss, tablet.id); !body.OK {
		t.Fatalf("%+v", body)
	}
	if body := revoke(boss, tablet.id); !body.OK { // again: no error
		t.Fatalf("%+v", body)
	}
	if body := revoke(boss, proof.SurfaceID{7}); body.Code != wire.ExecNotFound {
		t.Fatalf("%+v", body)
	}
	for _, p := range []*phoneRef{phone, tablet} {
		if s, err := d.agent.journal.Surface(t.Context(), d.id, p.id); err != nil || s.Revoked.IsZero() {
			t.Fatalf("%+v %v", s, err)
		}
	}
	r := wire.Revocation{Surface: boss.id.String(), By: "operator", Time: 1}
	if err := d.broker.connected(t).send(tunnel.Control, wire.FrameRevoked, r, nil); err != nil {
		t.Fatal(err)
	}
	d.deliver(d.command(boss, proof.Status, wire.Status{}), deliveredRefused)
	d.wantLine("surface.revoked operator")
}

type phoneRef = phone

func TestRevocationsOfTheHelloComeFirst(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.broker.reply = func(h wire.Hello) wire.HelloReply {
		return wire.HelloReply{
			Protocol: 1, Time: time.Now().UnixMilli(), BatchSeq: 5,
			Revoked: []wire.Revocation{{Surface: p.id.String(), By: "operator"}, {Surface: "junk"}},
		}
	}
	d.boot()
	d.settled("the publisher", func() bool { return d.rec.has("connected 5") })
	d.rec.mu.Lock()
	defer d.rec.mu.Unlock()
	if d.rec.calls[0] != "surfaces changed" || d.rec.calls[1] != "connected 5" {
		t.Fatalf("%q", d.rec.calls)
	}
}

func TestRevokePairing(t *testing.T) {
	d := newDesktop(t)
	boss, waiting := d.link("boss", proof.ScopeDecide), d.link("phone", proof.ScopePrompt)
	d.boot()
	running := make(chan struct{})
	release := make(chan struct{})
	d.exec.set(func(f *fakeExecutor) {
		f.do = func(wire.ExecCommand) error { close(running); <-release; return nil }
	})
	d.deliver(d.command(waiting, proof.Prompt, wire.Prompt{SessionID: "s", Text: "1"}), deliveredReceived)
	<-running
	second := d.deliver(d.command(waiting, proof.Prompt, wire.Prompt{SessionID: "s", Text: "2"}), deliveredReceived)
	command := d.deliver(d.command(boss, proof.RevokePairing, wire.RevokePairing{}), deliveredReceived)
	if _, body := d.result(boss, command); !body.OK {
		t.Fatalf("%+v", body)
	}
	close(release)
	if _, body := d.result(waiting, second); body.OK || body.Code != reasonRevoked {
		t.Fatalf("%+v", body)
	}
	d.broker.until(t, "the end of the link", func() bool { return d.broker.links[len(d.broker.links)-1].isDone() })
	d.wantLine("pairing.revoked surface")
	if d.exec.total() != 1 {
		t.Fatalf("%v", d.exec.calls)
	}
	row := func() (told bool) {
		p, err := d.agent.journal.Pairing(t.Context(), d.id)
		return err == nil && p.Told
	}
	d.settled("that the broker knows", row)
	d.halt()
	a, err := d.make()
	if err != nil || len(a.list) != 0 {
		t.Fatalf("a revoked pairing was taken up: %v", err)
	}
	a.Close()
}

// A broker that could not be told of the end is told by a later start, and nothing else of the pairing lives.
func TestTheEndIsToldLater(t *testing.T) {
	d := newDesktop(t)
	p := d.link("phone", proof.ScopePrompt)
	d.boot()
	e := d.command(p, proof.Prompt, wire.Prompt{SessionID: "s", Text: "x"})
	d.halt()
	j := d.openJournal()
	d.record(j, journal.RevokePairing(d.id, d.now(), "surface"))
	j.Close()
	d.start()
	d.broker.until(t, "the revocation", func() bool { return slices.Contains(d.broker.seen, wire.FrameRevoke) })
	if err := d.broker.connected(t).send(tunnel.Command, wire.FrameDeliver, wire.Deliver{Command: "cmd_5", Envelope: e}, nil); err == nil {
		t.Fatal("an ended pairing takes commands")
	}
	d.settled("the end of the run", func() bool {
		p, err := d.agent.journal.Pairing(t.Context(), d.id)
		return err == nil && p.Told
	})
}

func TestLongStateFolder(t *testing.T) {
	d := newDesktop(t)
	d.dir = filepath.Join(d.dir, strings.Repeat("x", maxSocketPath))
	a, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "shorter path") {
		t.Fatalf("%v", err)
	}
}
