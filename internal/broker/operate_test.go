package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/certs"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func freshKeys(t *testing.T, w *world) *seal.Desktop {
	t.Helper()
	keys, err := seal.NewDesktop(w.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestLockCutsAndUnlockLetsIn(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	st := w.listen(s.subscribe(nil), "")
	st.next(wire.StreamPresence, nil)
	begin := time.Now()
	w.operate(http.MethodPost, at(wire.PathOpPairingLock, d.id), nil, nil)
	var end wire.StreamGap
	st.next(wire.StreamEnd, &end)
	receive(t, "the end of the link", d.link.Done())
	if took := time.Since(begin); took > time.Second || end.Reason != "locked" {
		t.Errorf("after %v: %+v", took, end)
	}
	w.refused(http.MethodGet, at(wire.PathPairing, d.id), s.token, nil, 403, wire.CodeForbidden)
	_, err := d.dial()
	if refused, ok := errors.AsType[*tunnel.HTTPError](err); !ok || refused.Status != 403 {
		t.Errorf("a locked desktop: %v", err)
	}
	var p wire.OperatorPairing
	eventually(t, "the desktop is offline", func() bool {
		w.operate(http.MethodGet, at(wire.PathOpPairing, d.id), nil, &p)
		return !p.Online
	})
	if p.State != "locked" || p.Reason != "operator" || p.Surfaces != 1 || p.Host != "desk" || !p.Sealed {
		t.Errorf("the pairing is %+v", p)
	}
	w.operate(http.MethodPost, at(wire.PathOpPairingUnlock, d.id), nil, nil)
	d.connect()
	s.prompt("again", "?wait=20")
}

func TestIdentityConflictLocks(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	eventually(t, "the pairing is locked", func() bool {
		if link, err := d.dial(); err == nil {
			d.link = link
		}
		var p wire.OperatorPairing
		w.operate(http.MethodGet, at(wire.PathOpPairing, d.id), nil, &p)
		return p.State == "locked" && p.Reason == "identity_conflict"
	})
	_, err := d.dial()
	if refused, ok := errors.AsType[*tunnel.HTTPError](err); !ok || refused.Body != "identity_conflict" {
		t.Errorf("after the conflict: %v", err)
	}
	w.restart()
	if _, err = d.dial(); err == nil {
		t.Error("a restart forgot the conflict")
	}
	w.operate(http.MethodPost, at(wire.PathOpPairingUnlock, d.id), nil, nil)
	d.connect()
}

func TestOperatorRevokesAPairing(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	w.operate(http.MethodPost, at(wire.PathOpPairingRevoke, d.id), nil, nil)
	if r := body[wire.Revocation](d.told(wire.FrameRevoked)); r.Surface != "" || r.By != "operator" {
		t.Errorf("the desktop was told %+v", r)
	}
	receive(t, "the end of the link", d.link.Done())
	if _, err := d.dial(); err == nil {
		t.Error("a revoked desktop could connect")
	}
	w.operate(http.MethodPost, at(wire.PathOpPairingRevoke, d.id), nil, nil) // twice is once
	for _, path := range []string{wire.PathOpPairing, wire.PathOpSurfaces} {
		got, p := w.exchange(w.op, http.MethodGet, "http://op"+at(path, "AAAAAAAAAAAAAAAAAAAAAA"), "", nil, nil)
		if got != 404 || p.Code != wire.CodeNotFound {
			t.Errorf("an unknown pairing: %d %+v", got, p)
		}
	}
}

func TestAuditTailFollows(t *testing.T) {
	w := start(t, nil)
	var page wire.AuditPage
	w.operate(http.MethodGet, wire.PathOpAudit+"?limit=1", nil, &page)
	if len(page.Lines) != 1 || !strings.Contains(string(page.Lines[0]), `"broker.started"`) {
		t.Fatalf("the first page is %s", page.Lines)
	}
	next := make(chan wire.AuditPage, 1)
	path := fmt.Sprintf("%s?after=%d&wait=20", wire.PathOpAudit, page.Next)
	go func() {
		var p wire.AuditPage
		w.operate(http.MethodGet, path, nil, &p)
		next <- p
	}()
	w.code()
	if p := receive(t, "the next page", next); len(p.Lines) != 1 || !strings.Contains(string(p.Lines[0]), `"code.issued"`) || p.Next != page.Next+1 {
		t.Errorf("the next page is %s", p.Lines)
	}
	for _, q := range []string{"?limit=0", "?limit=1001", "?after=x", "?wait=26"} {
		if got, p := w.exchange(w.op, http.MethodGet, "http://op"+wire.PathOpAudit+q, "", nil, nil); got != 400 || p.Code != wire.CodeMalformed {
			t.Errorf("%s: %d", q, got)
		}
	}
}

func TestAuditHasTheRoadAndNoSecret(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	s.prompt("the text", "?wait=20")
	var page wire.AuditPage
	w.operate(http.MethodGet, wire.PathOpAudit+"?limit=1000", nil, &page)
	all := string(bytes.Join(raws(page.Lines), []byte("\n")))
	for _, typ := range []string{
		"code.issued", "code.redeemed", "pairing.enrolled", "tunnel.connected", "report.applied", "link.opened", "link.claimed",
		"link.revealed", "link.confirmed", "surface.linked", "link.done", "surface.signed_in", "command.queued", "command.leased",
		"command.ended",
	} {
		if !strings.Contains(all, `"`+typ+`"`) {
			t.Errorf("no line %s", typ)
		}
	}
	for _, secret := range []string{"the text", "127.0.0.1", `"phone"`, `"desk"`, s.token} {
		if strings.Contains(all, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	if strings.Contains(w.logs.String(), s.token) || strings.Contains(w.logs.String(), "the text") {
		t.Error("the broker's own log has a secret")
	}
}

func raws(lines []json.RawMessage) [][]byte {
	out := make([][]byte, len(lines))
	for i, l := range lines {
		out[i] = l
	}
	return out
}

func TestLimitsAreShown(t *testing.T) {
	w := start(t, nil)
	var table []struct {
		Name string `json:"name"`
		Max  int    `json:"max"`
	}
	w.operate(http.MethodGet, wire.PathOpLimits, nil, &table)
	seen := map[string]int{}
	for _, r := range table {
		seen[r.Name] = r.Max
	}
	for name, want := range map[string]int{"link.network": 10, "link.wrong.broker": 100, "commands.open": 1000, "body.small": 64 << 10, "link.tries": 5} {
		if seen[name] != want {
			t.Errorf("%s is %d, want %d", name, seen[name], want)
		}
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	gone := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	d.beginEpoch()
	d.publish(proof.ClassRequestOpen, proof.Reference{1}, `["open"]`)
	w.operate(http.MethodPost, at(wire.PathOpSurfaceRevoke, d.id, gone.id), nil, nil)
	d.told(wire.FrameRevoked)
	d.disconnect()
	c := s.prompt("over the restart", "")
	key := w.started.Key
	w.restart()
	if w.started.Key != key || w.started.First {
		t.Error("the broker became another one")
	}
	if got := s.get(c.ID, ""); got.State != wire.StateQueued { // the token is still good, too
		t.Errorf("the command is %s", got.State)
	}
	w.refused(http.MethodGet, at(wire.PathPairing, d.id), gone.token, nil, 401, wire.CodeUnauthorized)
	var open wire.OpenRequests
	w.ask(http.MethodGet, at(wire.PathRequests, d.id), s.token, nil, &open)
	if len(open.Requests) != 1 {
		t.Errorf("%d open requests", len(open.Requests))
	}
	hello := d.connect()
	if len(hello.Revoked) != 1 || hello.Revoked[0].Surface != gone.id {
		t.Errorf("the desktop hears of %+v", hello.Revoked)
	}
	if hello.BatchSeq != 1 || len(hello.BatchEpoch) != 8 {
		t.Errorf("its outbox goes on at %d of %v", hello.BatchSeq, hello.BatchEpoch)
	}
	if got := s.get(c.ID, "?wait=20"); got.State != wire.StateCompleted {
		t.Errorf("the command is %s", got.State)
	}
}

func TestStoppingTellsDesktopsAndStreams(t *testing.T) {
	w := start(t, nil)
	d := w.enrol()
	d.connect()
	s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
	st := w.listen(s.subscribe(nil), "")
	st.next(wire.StreamPresence, nil)
	begin := time.Now()
	w.stop()
	var end wire.StreamGap
	st.next(wire.StreamEnd, &end)
	receive(t, "the end of the link", d.link.Done())
	closed, ok := errors.AsType[*tunnel.CloseError](d.link.Err())
	if end.Reason != "drain" || !ok || closed.Reason != tunnel.ReasonDrain || closed.ComeBackIn != comeBackIn {
		t.Errorf("stream %+v, link %v", end, d.link.Err())
	}
	if took := time.Since(begin); took > drainTime+2*time.Second {
		t.Errorf("stopping took %v", took)
	}
	w.run()
	var page wire.AuditPage
	w.operate(http.MethodGet, wire.PathOpAudit+"?limit=1000", nil, &page)
	all := string(bytes.Join(raws(page.Lines), []byte("\n")))
	if !strings.Contains(all, `"reason":"drain"`) || !strings.Contains(all, `"broker.stopped"`) || strings.Contains(all, "broker_restarted") {
		t.Error("the end was not recorded, or only after the fact")
	}
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	w := start(t, nil)
	if runtime.GOOS == "windows" {
		return // no such modes there
	}
	for _, name := range []string{StoreFile, KeyFile, PepperFile, SocketFile} {
		info, err := os.Stat(filepath.Join(w.dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode().Perm(), err)
		}
	}
	w.stop()
	if _, err := os.Stat(w.started.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket is still there after the end")
	}
	if err := os.Chmod(filepath.Join(w.dir, KeyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), w.cfg)
	if bad, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(bad.Hint, "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
}

func TestKeysOfAnotherSizeAreRefused(t *testing.T) {
	dir := shortDir(t)
	if err := os.WriteFile(filepath.Join(dir, PepperFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadSecrets(dir); err == nil {
		t.Fatal("a pepper of 5 bytes was taken")
	}
}

func TestConfigurationsThatDoNotStart(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for name, tt := range map[string]struct {
		edit func(*Config)
		hint string
	}{
		"open to the network without TLS": {func(c *Config) { c.Listen = []string{"0.0.0.0:0"} }, "--tls-cert"},
		"a name without TLS":              {func(c *Config) { c.Listen = []string{"broker.example.com:443"} }, "--tls-cert"},
		"every address":                   {func(c *Config) { c.Listen = []string{":8787"} }, "--tls-cert"},
		"no port":                         {func(c *Config) { c.Listen = []string{"127.0.0.1"} }, "HOST:PORT"},
		"half a certificate":              {func(c *Config) { c.TLSCert = "x" }, "--tls-key"},
		"no name for links":               {func(c *Config) { c.Listen, c.TrustedProxies = []string{"0.0.0.0:0"}, proxies }, "--page-origin"},
		"an origin with a path":           {func(c *Config) { c.PageOrigin = "https://x.example.com/" }, "https://host"},
		"an allowed origin that is none":  {func(c *Config) { c.AllowedOrigins = []string{"x"} }, "https://host"},
		"metrics for everyone":            {func(c *Config) { c.MetricsAddr = "0.0.0.0:9090" }, "127.0.0.1"},
		"a limit that is none":            {func(c *Config) { c.Limits = map[string]int{"x": 1} }, "limits"},
		"a path too long for a socket":    {func(c *Config) { c.StateDir = "/" + strings.Repeat("x", 100) }, "shorter"},
	} {
		c := Config{StateDir: t.TempDir(), Now: time.Now, Logger: discard(), Listen: []string{"127.0.0.1:0"}}
		c.StateDir = shortDir(t)
		tt.edit(&c)
		err := Run(t.Context(), c)
		if bad, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(bad.Hint, tt.hint) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTwoBrokersOnOneFolder(t *testing.T) {
	w := start(t, nil)
	err := Run(t.Context(), w.cfg)
	if bad, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(bad.Text, "another broker") {
		t.Fatalf("a second broker on the same folder: %v", err)
	}
	w.ask(http.MethodGet, wire.PathHealth, "", nil, nil)
}

func TestTLSServesBothProtocolsAndSaysWhatIsMissing(t *testing.T) {
	dir := shortDir(t)
	if err := certs.Init(dir, []string{"broker.example.com"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	w := start(t, func(c *Config) {
		c.TLSCert, c.TLSKey = filepath.Join(dir, certs.LeafFile), filepath.Join(dir, certs.LeafKey)
	})
	pool, err := certs.ReadPool(filepath.Join(dir, certs.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	plain := &http.Transport{ForceAttemptHTTP2: true}
	plain.TLSClientConfig = tlsFor(pool)
	defer plain.CloseIdleConnections()
	res, err := (&http.Client{Transport: plain}).Get(w.base + wire.PathBroker)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.ProtoMajor != 2 || res.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("protocol %s, HSTS %q", res.Proto, res.Header.Get("Strict-Transport-Security"))
	}
	missing := strings.Join(w.started.Missing, "\n")
	if strings.Contains(missing, "no TLS") || !strings.Contains(missing, "this machine only") {
		t.Errorf("missing: %s", missing)
	}
}

func TestMetricsAreServedOnTheirOwnAddress(t *testing.T) {
	w := start(t, func(c *Config) { c.MetricsAddr = "127.0.0.1:0" })
	for path, want := range map[string]int{"/metrics": 200, "/readyz": 200, wire.PathBroker: 404} {
		res, err := http.Get(w.started.Metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
	w.refused(http.MethodGet, "/metrics", "", nil, 404, wire.CodeNotFound)
}

func TestFirstStartIsSaidOnce(t *testing.T) {
	w := start(t, nil)
	if !w.started.First || len(w.started.Missing) != 3 {
		t.Errorf("first %v, missing %q", w.started.First, w.started.Missing)
	}
	issued, err := w.started.IssueCode(t.Context(), wire.CodeIssue{})
	if err != nil || issued.Text == "" || !strings.HasPrefix(issued.Link, w.started.PageOrigin) {
		t.Errorf("%+v, %v", issued, err)
	}
	w.restart()
	if w.started.First {
		t.Error("the second start is a first one, too")
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	once := func() {
		w := startAlone(t, nil)
		d := w.enrol()
		d.connect()
		s := d.linkSurface(proof.ModeLink, proof.ScopePrompt)
		st := w.listen(s.subscribe(nil), "")
		s.prompt("x", "?wait=20")
		st.next(wire.StreamResult, nil)
		w.stop()
		receive(t, "the end of the link", d.link.Done())
		for range st.events {
		}
	}
	once() // what the libraries keep for good is there now
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	before := runtime.NumGoroutine()
	for range 3 {
		once()
	}
	eventually(t, "as few goroutines as before", func() bool { return runtime.NumGoroutine() <= before })
}
