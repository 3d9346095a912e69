//go:build e2e

package e2e

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/e2e/lab"
)

// TestLocalConfirmation: with the policy local_confirmation an answer from a device waits at the desktop for a person,
// who sees exactly what would be answered.
func TestLocalConfirmation(t *testing.T) {
	ctx, l := newLab(t, "bin")
	w := start(ctx, t, l, withModel(t, l)...)
	phone := w.link(ctx, t, "phone", true)
	_, err := w.desktop.Must(ctx, "policy", "set", "remoteApprovals=local_confirmation")
	check(t, err)
	for _, answer := range []struct {
		command, want string
		code          int
	}{{"allow", "confirmed-here", 0}, {"deny", "", 4}} {
		t.Run(answer.command, func(t *testing.T) {
			turn, err := phone.Start("prompt", "run: echo confirmed-here")
			check(t, err)
			r := request(ctx, t, phone)
			approve, err := phone.Start("approve", r.ID)
			check(t, err)
			_, err = approve.Await("waits for its owner's yes there", 20*time.Second)
			check(t, err)
			var pending []struct{ ID, Request string }
			check(t, w.desktop.JSON(ctx, &pending, "pending"))
			if len(pending) != 1 || !strings.Contains(pending[0].Request, "echo confirmed-here") {
				t.Fatalf("pending: %+v", pending)
			}
			_, err = w.desktop.Must(ctx, answer.command, pending[0].ID)
			check(t, err)
			if code := approve.Code(); code != answer.code {
				t.Errorf("the approval ended with exit %d:\n%s", code, approve.Output())
			}
			if answer.command == "deny" { // the request itself still waits; it is the runtime's
				_, err = w.desktop.Must(ctx, "policy", "set", "--yes", "remoteApprovals=remote_allowed")
				check(t, err)
				must(ctx, t, phone, "deny", r.ID)
			}
			turn.Code()
			if !strings.Contains(turn.Output(), answer.want) {
				t.Errorf("the turn: %s", turn.Output())
			}
		})
	}
}

// TestRestoredDesktop: an older copy of the state folder locks the pairing until its owner runs recover; devices then
// go on by themselves (pairing-protocol.md section 6).
func TestRestoredDesktop(t *testing.T) {
	ctx, l := newLab(t, "bin")
	w := start(ctx, t, l, echo...)
	phone := w.link(ctx, t, "phone", false)
	prompt(ctx, t, phone, "one")
	check(t, w.agent.Stop(20*time.Second))
	backup := w.desktop.Dir() + ".backup"
	copyFile(t, filepath.Join(w.desktop.Dir(), "journal.db"), backup)

	var err error
	w.agent, err = w.desktop.Start(ctx)
	check(t, err)
	prompt(ctx, t, phone, "two")
	check(t, w.agent.Stop(20*time.Second))
	for _, name := range []string{"journal.db", "journal.db-wal", "journal.db-shm"} {
		if err := os.Remove(filepath.Join(w.desktop.Dir(), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	copyFile(t, backup, filepath.Join(w.desktop.Dir(), "journal.db"))
	w.agent, err = w.desktop.StartOnly()
	check(t, err)
	_, err = w.agent.Await("journal_changed", lab.StartTime)
	check(t, err)
	sent := run(ctx, t, phone, "prompt", "--no-wait", "--session", "ses_none", "while locked")
	if sent.Code != 0 || !strings.Contains(sent.Stderr, "asleep or off") {
		t.Errorf("exit %d: %s", sent.Code, sent.Stderr)
	}
	_, err = w.desktop.Must(ctx, "recover", "--yes")
	check(t, err)
	check(t, w.desktop.AwaitOnline(ctx, w.agent))
	if a := prompt(ctx, t, phone, "three"); a.Text != "three" {
		t.Errorf("%+v", a)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	check(t, err)
	check(t, os.WriteFile(to, raw, 0o600))
}

// TestBrokerKeepsNoSecret: what a person types, the code's letters, the link's secret and the prompts are nowhere in the
// broker's state folder, nor in what it prints (invariant 5).
func TestBrokerKeepsNoSecret(t *testing.T) {
	ctx, l := newLab(t, "bin")
	var err error
	w := &world{Lab: l}
	w.broker, err = l.StartBroker("--log-level", "debug")
	check(t, err)
	code, err := l.Code(ctx)
	check(t, err)
	w.desktop, err = l.Desktop("desk", append(echo, "--log-level", "debug")...)
	check(t, err)
	_, err = l.Must(ctx, code+"\n", "desktop-agent", "--state", w.desktop.Dir(), "enrol", "--broker", l.URL(), "--host", "desk", "-")
	check(t, err)
	w.agent, err = w.desktop.Start(ctx)
	check(t, err)
	phone := w.Surface("phone")
	desk, _, err := phone.LinkAloud(ctx, w.desktop, false)
	check(t, err)
	link := desk[strings.Index(desk, "/p#1.")+len("/p#1."):]
	link, _, _ = strings.Cut(link, "\n")
	_, secret, ok := strings.Cut(link, ".")
	if !ok || len(secret) < 20 {
		t.Fatalf("no link in %s", desk)
	}
	prompt(ctx, t, phone, "the fox is in the henhouse")
	letters := strings.ReplaceAll(code, "-", "")
	for _, secret := range []string{secret, code, letters[:12], letters[4:12], "fox is in the henhouse"} {
		found, err := exec.CommandContext(ctx, "grep", "-rlaF", secret, w.BrokerDir()).Output()
		if len(found) > 0 || err == nil {
			t.Errorf("%q is in the broker's files %s", secret, found)
		}
		for _, p := range []*lab.Proc{w.broker, w.agent} {
			if strings.Contains(p.Output(), secret) {
				t.Errorf("%s prints %q", p.Name, secret)
			}
		}
	}
	if found, err := exec.CommandContext(ctx, "grep", "-rlaF", "command.queued", w.BrokerDir()).Output(); err != nil || len(found) == 0 {
		t.Fatalf("the search finds nothing at all: %v", err)
	}
}

// TestTLS: a broker with the certificate that `broker certs init` made, an agent and a surface that trust its authority,
// and a certificate that is renewed while it runs.
func TestTLS(t *testing.T) {
	ctx, l := newLab(t, "bin")
	certs := filepath.Join(l.Dir, "certs")
	_, err := l.Must(ctx, "", "broker", "--state", l.BrokerDir(), "certs", "init", "--dir", certs, "localhost", "127.0.0.1")
	check(t, err)
	names, err := filepath.Glob(filepath.Join(certs, "*"))
	check(t, err)
	var ca, cert, key string
	for _, n := range names {
		switch base := filepath.Base(n); {
		case strings.Contains(base, "ca") && strings.HasSuffix(base, "pem") && !strings.Contains(base, "key"):
			ca = n
		case strings.Contains(base, "key") && !strings.Contains(base, "ca"):
			key = n
		case !strings.Contains(base, "ca") && strings.HasSuffix(base, "pem"):
			cert = n
		}
	}
	_, err = l.StartBroker("--tls-cert", cert, "--tls-key", key, "--page-origin", "https://"+l.Addr)
	check(t, err)
	code, err := l.Code(ctx)
	check(t, err)
	d, err := l.Desktop("desk", append(echo, "--ca", ca)...)
	check(t, err)
	url := "https://" + l.Addr
	untrusted, err := l.Run(ctx, code+"\n", "desktop-agent", "--state", d.Dir(), "enrol", "--broker", url, "-")
	check(t, err)
	if untrusted.Code == 0 || !strings.Contains(untrusted.Stderr, "certificate") {
		t.Fatalf("an unknown authority was taken: %+v", untrusted)
	}
	_, err = l.Must(ctx, code+"\n", "desktop-agent", "--state", d.Dir(), "enrol", "--broker", url, "--ca", ca, "-")
	check(t, err)
	_, err = d.Start(ctx)
	check(t, err)
	l.Env = append(l.Env, "SURFACE_CA="+ca)
	phone := l.Surface("phone")
	check(t, phone.Link(ctx, d, false))
	if a := prompt(ctx, t, phone, "over TLS"); a.Text != "over TLS" {
		t.Errorf("%+v", a)
	}
	_, err = l.Must(ctx, "", "broker", "--state", l.BrokerDir(), "certs", "init", "--dir", certs, "localhost", "127.0.0.1")
	check(t, err)
	if a := prompt(ctx, t, phone, "with a renewed certificate"); a.Text != "with a renewed certificate" {
		t.Errorf("%+v", a)
	}
	refused := brokerRun(t, l, "--state", l.BrokerDir()+"2", "serve", "--listen", "0.0.0.0:0")
	if refused.Code != 2 || !strings.Contains(refused.Stderr, "--trusted-proxies") {
		t.Errorf("a bind without TLS: exit %d, %s", refused.Code, refused.Stderr)
	}
}

func brokerRun(t *testing.T, l *lab.Lab, args ...string) lab.Result {
	t.Helper()
	r, err := l.Run(t.Context(), "", "broker", args...)
	check(t, err)
	return r
}
