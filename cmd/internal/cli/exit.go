package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/internal/redact"
)

// Code is the exit status of a program. The values are public: scripts depend
// on them, and CodeTable prints them into help and docs.
type Code int

// The exit codes.
const (
	OK           Code = 0   // it worked
	Failed       Code = 1   // it was tried and failed
	Usage        Code = 2   // wrong flag, argument or setting; nothing was tried
	NotReachable Code = 3   // broker, desktop or agent does not answer
	Refused      Code = 4   // not allowed, by policy, scope or revocation
	Unknown      Code = 5   // it may or may not have happened: ask before repeating
	Interrupted  Code = 130 // ended by a signal
)

var codeTable = []struct {
	code Code
	text string
}{
	{OK, "it worked"},
	{Failed, "it was tried and failed"},
	{Usage, "wrong flag, argument or setting; nothing was tried"},
	{NotReachable, "the broker, the desktop or the agent does not answer"},
	{Refused, "refused: not allowed, revoked or not linked"},
	{Unknown, "outcome not known: it may have happened, look before you repeat"},
	{Interrupted, "interrupted"},
}

// CodeTable returns the documented exit codes, one indented line each.
func CodeTable() string {
	var b strings.Builder
	for _, row := range codeTable {
		fmt.Fprintf(&b, "   %-4d %s\n", row.code, row.text)
	}
	return b.String()
}

// Exit is an error that knows its exit code and what the person may do next.
type Exit struct {
	Code  Code
	Err   error
	Hints []string // one line each, printed after the error
}

// Error returns the text of Err.
func (e *Exit) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Exit) Unwrap() error { return e.Err }

// Fail returns err with an exit code and hints; nil stays nil.
func Fail(code Code, err error, hints ...string) error {
	if err == nil {
		return nil
	}
	return &Exit{Code: code, Err: err, Hints: hints}
}

// Usagef returns an error of wrong use. Attach hints with Fail when there is
// something to do about it.
func Usagef(format string, a ...any) error {
	return &Exit{Code: Usage, Err: fmt.Errorf(format, a...)}
}

// usage is Fail(Usage, ...) with the text first, for the many refusals here.
func usage(text string, hints ...string) error {
	return &Exit{Code: Usage, Err: errors.New(text), Hints: hints}
}

// codeOf says how a program ends with err. An error without a code of its own
// is Failed, unless a signal or a refused connection explains it.
func codeOf(ctx context.Context, err error) Code {
	if err == nil {
		return OK
	}
	if exit, ok := errors.AsType[*Exit](err); ok {
		return exit.Code
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return Interrupted
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return NotReachable
	}
	if coder, ok := errors.AsType[ucli.ExitCoder](err); ok {
		return Code(coder.ExitCode())
	}
	return Failed
}

// report prints err as one line and its hints, and returns the exit code.
func report(ctx context.Context, err error, stderr io.Writer) int {
	code := codeOf(ctx, err)
	switch {
	case code == OK:
		return int(OK)
	case code == Interrupted:
		fmt.Fprintln(stderr, "error: interrupted")
	default:
		fmt.Fprintln(stderr, "error: "+oneLine(err.Error()))
	}
	if exit, ok := errors.AsType[*Exit](err); ok {
		for _, hint := range exit.Hints {
			fmt.Fprintln(stderr, "hint: "+oneLine(hint))
		}
	}
	return int(code)
}

// oneLine is text for standard error: a secret that an error of some library
// repeats, a URL with a password say, stays out of the terminal and its log.
func oneLine(text string) string { return Clean(redact.Secrets(text)) }
