package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	ucli "github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"cowork.example.com/broker/e2e/lab"
)

// openTerminal returns both ends of a new pseudo terminal: what the person
// types into and sees, and what the program has.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, program, err := lab.OpenTerminal()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close(); program.Close() })
	return person, program
}

// atTerminal is a command's context with the terminal as its input.
func atTerminal(ctx context.Context, program *os.File) (*ucli.Context, *bytes.Buffer) {
	var said bytes.Buffer
	app := &ucli.App{Name: "demo", Reader: program, ErrWriter: &said}
	c := ucli.NewContext(app, flag.NewFlagSet("link", flag.ContinueOnError), &ucli.Context{Context: ctx})
	c.Command = &ucli.Command{Name: "link", HelpName: "demo link"}
	return c, &said
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// waitNoEcho returns once the prompt has turned the echo off.
func waitNoEcho(t *testing.T, f *os.File) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); echoes(t, f); {
		if time.Now().After(deadline) {
			t.Fatal("the prompt left the echo on")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSecretIsTypedWithoutEcho(t *testing.T) {
	person, program := openTerminal(t)
	c, said := atTerminal(t.Context(), program)
	got := make(chan Secret, 1)
	go func() {
		secret, err := SecretArg(c, "the link")
		if err != nil {
			t.Error(err)
		}
		got <- secret
	}()
	waitNoEcho(t, program)
	if _, err := person.WriteString("k-secret\n"); err != nil {
		t.Fatal(err)
	}
	if secret := <-got; secret.Reveal() != "k-secret" {
		t.Errorf("read %q", secret.Reveal())
	}
	if want := "the link (not shown): \n"; said.String() != want {
		t.Errorf("prompt %q, want %q", said, want)
	}
	// Had the terminal echoed, its echo would come before this marker.
	if _, err := program.WriteString("marker"); err != nil {
		t.Fatal(err)
	}
	seen := make([]byte, 256)
	n, err := person.Read(seen)
	if err != nil || strings.Contains(string(seen[:n]), "secret") {
		t.Errorf("the terminal shows %q, %v", seen[:n], err)
	}
	if !echoes(t, program) {
		t.Error("the echo stayed off")
	}
}

func TestInterruptAtThePromptRestoresTheEcho(t *testing.T) {
	_, program := openTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	c, _ := atTerminal(ctx, program)
	ended := make(chan error, 1)
	go func() {
		_, err := SecretArg(c, "the link")
		ended <- err
	}()
	waitNoEcho(t, program)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if !echoes(t, program) {
		t.Error("the echo stayed off")
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]Code{"y": OK, "YES": OK, "": Refused, "n": Refused, "yess": Refused} {
		person, program := openTerminal(t)
		c, said := atTerminal(t.Context(), program)
		if _, err := person.WriteString(answer + "\n"); err != nil {
			t.Fatal(err)
		}
		if got := codeOf(t.Context(), Confirm(c, "wipe?", "yes")); got != want {
			t.Errorf("answer %q: code %d, want %d", answer, got, want)
		}
		if said.String() != "wipe? [y/N] " {
			t.Errorf("asked %q", said)
		}
	}
}
