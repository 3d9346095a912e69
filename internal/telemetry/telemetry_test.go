package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"cowork.example.com/broker/internal/redact"
	"cowork.example.com/broker/pkg/wire"
)

// token is a secret type that knows nothing of slog.
type token struct{ text string }

func (t token) Reveal() string { return t.text }

// config is what somebody logs as a whole.
type config struct {
	Name string
	Key  redact.Secret
	URL  string
}

func TestLogHoldsNoSecret(t *testing.T) {
	for _, format := range []LogFormat{LogText, LogJSON} {
		var out bytes.Buffer
		log, err := NewLogger(&out, format, slog.LevelInfo)
		if err != nil {
			t.Fatal(err)
		}
		secret := redact.Secret("hunter2")
		log.With("bound", secret).WithGroup("g").Info("login with password=hunter2 failed",
			"secret", secret, "pointer", &secret, "token", token{"hunter2"}, "pointer2", &token{"hunter2"},
			"config", config{"n", secret, "https://u:hunter2@h.example"}, "configs", []config{{"n", secret, ""}}, "map", map[string]redact.Secret{"a": secret},
			"error", fmt.Errorf("dial: %w", errors.New("postgres://u:hunter2@db/x refused")), "bytes", []byte("hunter2"),
			slog.Group("inner", "secret", secret, "url", "https://u:hunter2@h.example/"))
		log.Debug("not shown")
		text := out.String()
		for _, form := range []string{"hunter2", "68756e746572", "aHVudGVyMg"} {
			if strings.Contains(text, form) {
				t.Errorf("%s shows a secret as %s: %s", format, form, text)
			}
		}
		if n := strings.Count(text, redact.Mark); n < 12 {
			t.Errorf("%s: %d marks: %s", format, n, text)
		}
		if strings.Contains(text, "not shown") || strings.Count(text, "\n") != 1 {
			t.Errorf("%s: more than one line: %s", format, text)
		}
	}
}

func TestLogKeepsWhatIsNoSecret(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, LogAuto, slog.LevelDebug) // a buffer is no terminal
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("desktop connected", "pairing", "pr_1", "tokens", 512, "error", io.EOF, "nothing", nil, "ok", true)
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "time")
	want := map[string]any{"level": "DEBUG", "msg": "desktop connected", "pairing": "pr_1", "tokens": 512.0, "error": "EOF", "nothing": nil, "ok": true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLogSettings(t *testing.T) {
	if _, err := NewLogger(io.Discard, "xml", slog.LevelInfo); err == nil {
		t.Error("an unknown format was taken")
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error("an unknown level was taken")
	}
	if l, err := ParseLevel("warn"); err != nil || l != slog.LevelWarn {
		t.Errorf("warn is %v, %v", l, err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if isTerminal(null) || isTerminal(io.Discard) {
		t.Error("that is no terminal")
	}
}

func TestBuildFrom(t *testing.T) {
	info := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-11-24T00:00:00Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	got := buildFrom(info)
	want := Build{
		Version: "v1.2.3", Commit: "abc", Time: "2026-11-24T00:00:00Z", Modified: true,
		Go: got.Go, Platform: got.Platform, ProtocolMin: wire.ProtocolMin, ProtocolMax: wire.ProtocolMax,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, info := range []*debug.BuildInfo{nil, {Main: debug.Module{Version: "(devel)"}}} {
		if b := buildFrom(info); b.Version != "devel" || b.Go == "" || b.ProtocolMax == 0 {
			t.Errorf("%+v", b)
		}
	}
	if b := BuildInfo(); !strings.HasPrefix(b.Go, "go1.") || !strings.Contains(b.Platform, "/") {
		t.Errorf("%+v", b)
	}
}

// ask makes a request to the admin listener with a Host of its own.
func ask(t *testing.T, server *httptest.Server, method, path, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAdminHandler(t *testing.T) {
	b := Build{Version: "v9", Commit: "abc", Go: "go1", ProtocolMin: 1, ProtocolMax: 2}
	reg := NewRegistry(b)
	commands := prometheus.NewCounter(prometheus.CounterOpts{Name: "commands_total", Help: "Commands."})
	reg.MustRegister(commands)
	commands.Add(3)
	ready := errors.New("the store is not open")
	server := httptest.NewServer(AdminHandler(reg, b, func(context.Context) error { return ready }))
	defer server.Close()
	for _, tc := range []struct {
		method, path, host string
		status             int
		holds              string
	}{
		{"GET", "/metrics", "", 200, "commands_total 3"},
		{"GET", "/metrics", "", 200, `build_info{commit="abc",go="go1",protocol_max="2",protocol_min="1",version="v9"} 1`},
		{"GET", "/metrics", "", 200, "go_goroutines"},
		{"GET", "/livez", "", 200, "ok"},
		{"GET", "/readyz", "", 503, "the store is not open"},
		{"GET", "/version", "", 200, `"protocolMax":2`},
		{"GET", "/debug/pprof/goroutine?debug=1", "", 200, "goroutine profile"},
		{"GET", "/livez", "localhost:9", 200, "ok"},
		{"GET", "/livez", "[::1]", 200, "ok"},
		{"GET", "/metrics", "evil.example.com", 403, "as localhost"},
		{"GET", "/metrics", "127.0.0.1.evil.example.com:80", 403, "as localhost"},
		{"POST", "/metrics", "", 405, ""},
		{"GET", "/debug/pprof/cmdline", "", 404, "Unknown profile"},
		{"GET", "/", "", 404, ""},
	} {
		status, body := ask(t, server, tc.method, tc.path, tc.host)
		if status != tc.status || !strings.Contains(body, tc.holds) {
			t.Errorf("%s %s (%s): %d %.200s", tc.method, tc.path, tc.host, status, body)
		}
	}
	ready = nil
	if status, _ := ask(t, server, "GET", "/readyz", ""); status != 200 {
		t.Errorf("ready: %d", status)
	}
}

func TestRegistriesAreApart(t *testing.T) {
	NewRegistry(Build{})
	NewRegistry(Build{}) // a global registry would panic here
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "build_info" {
			t.Error("build_info is in the global registry")
		}
	}
}
