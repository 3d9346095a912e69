package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	ucli "github.com/urfave/cli/v2"
)

func TestExitCodes(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	plain := errors.New("x")
	for _, tc := range []struct {
		ctx  context.Context
		err  error
		want Code
	}{
		{t.Context(), nil, OK},
		{t.Context(), plain, Failed},
		{t.Context(), context.Canceled, Failed},
		{cancelled, fmt.Errorf("w: %w", context.Canceled), Interrupted},
		{cancelled, plain, Failed},
		{cancelled, Fail(Unknown, context.Canceled), Unknown},
		{t.Context(), Usagef("bad %d", 1), Usage},
		{t.Context(), fmt.Errorf("w: %w", Fail(Refused, plain)), Refused},
		{t.Context(), &net.OpError{Op: "dial", Err: plain}, NotReachable},
		{t.Context(), &net.OpError{Op: "read", Err: plain}, Failed},
		{t.Context(), ucli.Exit("x", 4), Refused},
	} {
		if got := codeOf(tc.ctx, tc.err); got != tc.want {
			t.Errorf("codeOf(%v) = %d, want %d", tc.err, got, tc.want)
		}
	}
	if Fail(Refused, nil) != nil {
		t.Error("Fail made an error of nil")
	}
	for _, code := range []Code{OK, Failed, Usage, NotReachable, Refused, Unknown, Interrupted} {
		if !strings.Contains(CodeTable(), fmt.Sprintf("   %-4d ", code)) {
			t.Errorf("code %d is not in the table", code)
		}
	}
}

func TestSignalEndsACommand(t *testing.T) {
	var stdout, stderr bytes.Buffer
	app := &ucli.App{Name: "demo", Commands: []*ucli.Command{
		{Name: "wait", Action: func(c *ucli.Context) error {
			self, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = self.Signal(syscall.SIGTERM)
			}
			if err != nil {
				return err
			}
			<-c.Context.Done()
			return c.Context.Err()
		}},
	}}
	if code := Main(app, []string{"demo", "wait"}, strings.NewReader(""), &stdout, &stderr); code != int(Interrupted) {
		t.Errorf("code %d, want %d", code, Interrupted)
	}
	if got, want := stderr.String(), "error: interrupted\n"; got != want {
		t.Errorf("stderr %q, want %q", got, want)
	}
}

func TestAskGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := readLine(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLineLimit(t *testing.T) {
	for _, tc := range []struct {
		size int
		ok   bool
	}{{MaxSecret, true}, {MaxSecret + 1, false}} {
		_, err := readLine(t.Context(), strings.NewReader(strings.Repeat("x", tc.size)+"\n"))
		if (err == nil) != tc.ok {
			t.Errorf("a line of %d bytes: %v", tc.size, err)
		}
	}
}

func TestFileLimits(t *testing.T) {
	write := func(size int) string {
		path := t.TempDir() + "/f"
		if err := os.WriteFile(path, []byte("#"+strings.Repeat("x", size-1)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := ReadSecretFile(write(MaxSecret)); err != nil {
		t.Error(err)
	}
	if _, err := ReadSecretFile(write(MaxSecret + 1)); err == nil {
		t.Error("a secret one byte over the limit was read")
	}
	if _, err := readConfig(write(MaxConfig), nil); err != nil {
		t.Error(err)
	}
	if _, err := readConfig(write(MaxConfig+1), nil); err == nil {
		t.Error("a configuration file one byte over the limit was read")
	}
	if _, err := ReadSecretFile(t.TempDir()); err == nil {
		t.Error("a folder was read")
	}
}

func TestProgress(t *testing.T) {
	story := func(terminal bool) string {
		var out bytes.Buffer
		p := startProgress(&out, terminal, "connecting")
		time.Sleep(1900 * time.Millisecond)
		if out.Len() > 0 {
			t.Errorf("said something before two seconds: %q", out.String())
		}
		p.Far(3, 10, "files")
		time.Sleep(200 * time.Millisecond)
		p.Phase("waiting for\nthe desktop")
		time.Sleep(1050 * time.Millisecond)
		p.Stop()
		p.Stop()
		return out.String()
	}
	synctest.Test(t, func(t *testing.T) {
		want := "connecting, 3 of 10 files, 2 s\nwaiting for the desktop, 2 s\n"
		if diff := cmp.Diff(want, story(false)); diff != "" {
			t.Error(diff)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		got := story(true)
		if !strings.HasPrefix(got, "\rconnecting, 3 of 10 files, 2 s\x1b[K") || !strings.HasSuffix(got, "the desktop, 3 s\x1b[K\r\x1b[K") {
			t.Errorf("terminal line %q", got)
		}
		if strings.Contains(got, "\n") {
			t.Errorf("more than one line: %q", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := startProgress(&out, true, "quick")
		time.Sleep(progressAfter - time.Nanosecond)
		p.Stop()
		if out.Len() > 0 {
			t.Errorf("quick work said %q", out.String())
		}
	})
}
