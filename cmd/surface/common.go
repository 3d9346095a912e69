package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

// options says where this program keeps its surfaces.
func options(c *ucli.Context) (surface.Options, error) {
	dir, err := cli.StateDir(c, program)
	if err != nil {
		return surface.Options{}, err
	}
	if err := cli.MakeDir(dir); err != nil {
		return surface.Options{}, err
	}
	secrets, err := openSecrets(c, dir)
	if err != nil {
		return surface.Options{}, err
	}
	client, err := httpClient(c)
	if err != nil {
		return surface.Options{}, err
	}
	return surface.Options{Dir: dir, Secrets: secrets, HTTP: client, Now: telemetry.Now}, nil
}

// open opens the surface of the desktop that --desktop names, or of the only one.
func open(c *ucli.Context) (*surface.Surface, error) {
	o, err := options(c)
	if err != nil {
		return nil, err
	}
	all, err := surface.List(o.Dir)
	if err != nil {
		return nil, err
	}
	info, err := choose(all, c.String("desktop"))
	if err != nil {
		return nil, err
	}
	return surface.Open(c.Context, o, info.Pairing)
}

// choose finds a desktop by its host name or the beginning of its pairing.
func choose(all []surface.Info, want string) (surface.Info, error) {
	if len(all) == 0 {
		return surface.Info{}, cli.Fail(cli.Refused, surface.ErrNotLinked, "run `desktop-agent link` at the desktop, then `surface link` here")
	}
	var found []surface.Info
	for _, i := range all {
		if want == "" || i.Host == want || strings.HasPrefix(i.Pairing, want) {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return surface.Info{}, cli.Fail(cli.Usage, fmt.Errorf("no linked desktop is called %s", cli.Clean(want)), "`surface status` lists them")
	}
	return surface.Info{}, cli.Fail(cli.Usage, errors.New("several desktops are linked"), "name one with --desktop HOST", "`surface status` lists them")
}

// fail gives an error of the library its exit code and a hint.
func fail(err error) error {
	var exit *cli.Exit
	p, isProblem := errors.AsType[*wire.Problem](err)
	switch {
	case err == nil, errors.As(err, &exit), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, surface.ErrKept):
		return cli.Fail(cli.Unknown, err, "do not send it again; any other command, `surface sessions` say, posts the kept one first")
	case errors.Is(err, surface.ErrUnreachable):
		return cli.Fail(cli.NotReachable, err)
	case errors.Is(err, surface.ErrAsleep):
		return cli.Fail(cli.NotReachable, err)
	case errors.Is(err, surface.ErrNotLinked):
		return cli.Fail(cli.Refused, err, "run `desktop-agent link` at the desktop, then `surface link` here")
	case errors.Is(err, surface.ErrUnsignedResult):
		return cli.Fail(cli.Unknown, err, "look at the desktop itself, and tell who runs the broker")
	case isProblem:
		return problem(p)
	}
	return cli.Fail(cli.Failed, err)
}

func problem(p *wire.Problem) error {
	var hints []string
	if p.Hint != "" {
		hints = append(hints, cli.Clean(p.Hint))
	}
	if p.RetryAfter > 0 {
		hints = append(hints, fmt.Sprintf("try again in %d s", p.RetryAfter))
	}
	code := cli.Refused
	switch {
	case p.Status == http.StatusUnauthorized:
		hints = append(hints, "this surface may have been revoked; link it again at the desktop")
	case p.Status >= http.StatusInternalServerError:
		code = cli.NotReachable
	case p.Code == wire.CodeLimited:
		code = cli.NotReachable
	case p.Code == wire.CodeMalformed, p.Code == wire.CodeTooLarge:
		code = cli.Failed
	}
	return cli.Fail(code, errors.New(cli.Clean(p.Title)), hints...)
}

// codeDeniedHere is the desktop's reason when its owner said no to what waited there.
const codeDeniedHere = "denied_locally"

// ended turns a command's end into an exit code.
func ended(o surface.Outcome) error {
	text := cli.Clean(o.Body.Message)
	switch {
	case !o.Signed:
		text = strings.TrimSpace("the broker says that the command ended as " + o.State() + " " + cli.Clean(o.Command.Reason))
	case text == "":
		text = "the command ended as " + o.State()
	}
	switch o.State() {
	case wire.StateCompleted:
		return nil
	case wire.StateBlocked, wire.StateCancelled:
		return cli.Fail(cli.Refused, errors.New(text))
	case wire.StateOutcomeUnknown:
		return cli.Fail(cli.Unknown, fmt.Errorf("it is not known whether %s ran", o.Command.ID),
			"look at the desktop or at `surface history`, then decide:",
			"surface resolve "+o.Command.ID+" --it-ran", "surface resolve "+o.Command.ID+" --send-again")
	case wire.StateExpired:
		return cli.Fail(cli.Failed, errors.New("it expired before the desktop could run it; it did not run"))
	}
	if o.Body.Code == codeDeniedHere {
		return cli.Fail(cli.Refused, errors.New(text))
	}
	if o.Body.DecidedBy != "" {
		return cli.Fail(cli.Refused, errors.New("already decided by "+cli.Clean(o.Body.DecidedBy)))
	}
	return cli.Fail(cli.Failed, errors.New(text))
}

// words say how far a command is.
var words = map[string]string{
	wire.StateQueued: "at the broker", wire.StateLeased: "at the broker", wire.StateAccepted: "on the desktop",
	wire.StateWaitingLocal: "on the desktop: waits for its owner's yes there", wire.StateCompleted: "done",
}

// steps tells a person how far a command is (sent, at the broker, on the desktop, done): at a terminal in one line with
// the time it takes, elsewhere in one line a step. stop takes the terminal's line away; call it before anything else is
// printed.
func steps(w io.Writer) (tell func(surface.Outcome), stop func()) {
	var p *cli.Progress
	stop = func() {}
	if cli.IsTerminal(w) {
		p = cli.StartProgress(w, "sent")
		stop = p.Stop
	}
	last := ""
	return func(o surface.Outcome) {
		word, ok := words[o.State()]
		if !ok {
			word = strings.ReplaceAll(o.State(), "_", " ")
		}
		if !o.Done() && !o.Command.DesktopOnline {
			word = asleep(o.Command)
		}
		if word == last {
			return
		}
		last = word
		if p != nil && !o.Done() {
			p.Phase(word)
			return
		}
		stop()
		_, _ = fmt.Fprintln(w, word)
	}, stop
}

// asleep says what becomes of a command while its desktop is away.
func asleep(c wire.Command) string {
	now := telemetry.Now()
	since := "it was never seen"
	if c.DesktopSince > 0 {
		since = "since " + cli.Relative(now, time.UnixMilli(c.DesktopSince))
	}
	return fmt.Sprintf("the desktop is asleep or off (%s); this will run when it is back, until %s",
		since, time.UnixMilli(c.Expires).Local().Format("Jan 2 15:04"))
}
