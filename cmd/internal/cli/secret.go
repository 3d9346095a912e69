package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	ucli "github.com/urfave/cli/v2"
	"golang.org/x/term"

	"cowork.example.com/broker/internal/redact"
)

// Secret is text that no way of printing shows; see redact.Secret.
type Secret = redact.Secret

// MaxSecret is the most a secret may hold, in bytes, from whatever source.
const MaxSecret = 64 << 10

// SecretArg returns a secret (a link, a code, a token) for a command whose
// only argument says where it comes from: nothing asks at the terminal without
// echo, "-" reads a line of standard input, anything else is a file that only
// its owner may read. The secret itself as argument is refused, since argv is
// in the shell's history and in every process list. what names it: "the link".
func SecretArg(c *ucli.Context, what string) (Secret, error) {
	if err := WantArgs(c, 0, 1); err != nil {
		return "", err
	}
	switch source := c.Args().First(); {
	case source == "-":
		return lineSecret(c, what)
	case source != "":
		return secretFile(c, what, source)
	case IsTerminal(c.App.Reader):
		return promptSecret(c, what)
	}
	return "", usage(what+" is missing, and there is no terminal to ask at", secretHints(c)[1:]...)
}

// secretHints are the three right ways, the terminal first.
func secretHints(c *ucli.Context) []string {
	path := c.Command.HelpName
	return []string{
		"run `" + path + "` and paste it at the prompt, where it is not shown",
		"or pipe it: `" + path + " -` reads standard input",
		"or name a file that only you can read: `" + path + " FILE`",
	}
}

func lineSecret(c *ucli.Context, what string) (Secret, error) {
	line, err := readLine(c.Context, c.App.Reader)
	return nonEmpty(what, line, err)
}

func nonEmpty(what, text string, err error) (Secret, error) {
	text = strings.TrimSpace(text)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", what, err)
	}
	if text == "" {
		return "", usage(what + " is empty")
	}
	return Secret(text), nil
}

// secretFile reads a file. An argument that is no file is most likely the
// secret itself, so no error here repeats the argument.
func secretFile(c *ucli.Context, what, path string) (Secret, error) {
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		hints := append(secretHints(c), "what stood on the command line may be in your shell's history by now; get a new one if others use this machine")
		return "", usage(what+" is not taken as an argument, and there is no file of that name", hints...)
	}
	text, err := ReadSecretFile(path)
	if err != nil {
		return "", err
	}
	return nonEmpty(what, text.Reveal(), nil)
}

// ReadSecretFile reads a regular file that only its owner may read, without
// the white space around its text: for a PathFlag that names a secret. Looser
// permissions are refused.
func ReadSecretFile(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", Fail(Usage, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", usage(path + " is not a regular file")
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return "", usage(fmt.Sprintf("%s can be read by others (mode %04o)", path, info.Mode().Perm()), "chmod 600 "+path)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSecret+1))
	if err != nil {
		return "", err
	}
	if len(data) > MaxSecret {
		return "", usage(fmt.Sprintf("%s is larger than %d bytes", path, MaxSecret))
	}
	return Secret(strings.TrimSpace(string(data))), nil
}

// promptSecret asks on the terminal without echo.
func promptSecret(c *ucli.Context, what string) (Secret, error) {
	fd := int(c.App.Reader.(*os.File).Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(c.App.ErrWriter, "%s (not shown): ", what)
	defer fmt.Fprintln(c.App.ErrWriter)
	text, err := await(c.Context, func() (string, error) {
		b, err := term.ReadPassword(fd)
		return string(b), err
	})
	if c.Context.Err() != nil {
		_ = term.Restore(fd, before) // the reader still sits there with echo off
		return "", c.Context.Err()
	}
	return nonEmpty(what, text, err)
}

// Ask prints a question on standard error and reads one line of standard
// input, which is shown as it is typed: for digits, names and yes or no.
func Ask(c *ucli.Context, question string) (string, error) {
	fmt.Fprint(c.App.ErrWriter, question+" ")
	return readLine(c.Context, c.App.Reader)
}

// Confirm asks a yes or no question at the terminal; only "y" and "yes" are
// yes. Without a terminal it fails and names the flag that answers beforehand.
func Confirm(c *ucli.Context, question, flag string) error {
	if c.Bool(flag) {
		return nil
	}
	if !IsTerminal(c.App.Reader) {
		return usage("this needs a yes, and there is no terminal to ask at", "add --"+flag+" if it is meant")
	}
	answer, err := Ask(c, question+" [y/N]")
	if err != nil {
		return err
	}
	if a := strings.ToLower(answer); a != "y" && a != "yes" {
		return Fail(Refused, errors.New("not confirmed, nothing was done"))
	}
	return nil
}

// readLine reads up to a newline or the end, byte by byte, so that what
// follows stays in r for the next reader.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	return await(ctx, func() (string, error) {
		var line []byte
		var b [1]byte
		for len(line) <= MaxSecret {
			n, err := r.Read(b[:])
			if n == 1 && b[0] == '\n' {
				return strings.TrimSpace(string(line)), nil
			}
			line = append(line, b[:n]...)
			if err == io.EOF && len(line) > 0 {
				return strings.TrimSpace(string(line)), nil
			}
			if err != nil {
				return "", err
			}
		}
		return "", usage(fmt.Sprintf("the line is longer than %d bytes", MaxSecret))
	})
}

// await gives up on a blocked read when ctx ends. The reader stays behind
// until its input moves: a program that was interrupted at a prompt is about
// to end.
func await(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// IsTerminal reports whether v, a reader or writer, is a terminal.
func IsTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
