package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"rsc.io/qr"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/agent"
)

// eventWait is one long poll for what happens to a linking, in seconds.
const eventWait = 20

func linkCommand() *ucli.Command {
	return &ucli.Command{
		Name: "link", Usage: "link a device: shows a QR code or a code to type, then takes the digits that the device shows",
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "code", Usage: "show a code to type instead of a link"},
			&ucli.BoolFlag{Name: "decide", Usage: "the device may also answer approvals: answer the question with yes"},
			&ucli.BoolFlag{Name: "no-decide", Usage: "answer the question with no"},
			&ucli.BoolFlag{Name: "qr", Usage: "draw the QR code even where the output is no terminal"},
			&ucli.BoolFlag{Name: "show-only", Usage: "show the link or code and end; digits cannot be typed, so nothing is linked"},
		},
		Action: link,
	}
}

func link(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	if _, err := cl.Status(c.Context); err != nil { // before a question is asked
		return fail(err)
	}
	decide, err := mayDecide(c)
	if err != nil {
		return err
	}
	mode := "link"
	if c.Bool("code") {
		mode = "code"
	}
	ticket, err := cl.LinkStart(c.Context, c.String("pairing"), mode, decide)
	if err != nil {
		return fail(err)
	}
	if err := show(c, ticket); err != nil {
		return err
	}
	if c.Bool("show-only") {
		return fail(cl.LinkCancel(c.Context, c.String("pairing")))
	}
	l := &linking{c: c, cl: cl}
	if err := l.follow(); err != nil {
		_ = cl.LinkCancel(context.WithoutCancel(c.Context), c.String("pairing")) // it may be over already
		return fail(err)
	}
	return nil
}

// mayDecide is the one question; its default is no.
func mayDecide(c *ucli.Context) (bool, error) {
	if c.Bool("decide") && c.Bool("no-decide") {
		return false, cli.Usagef("say one of --decide and --no-decide")
	}
	if c.Bool("decide") || c.Bool("no-decide") {
		return c.Bool("decide"), nil
	}
	text, err := cli.Ask(c, "May this device also answer approvals? It can then let commands run. [y/N]")
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	text = strings.ToLower(text)
	return text == "y" || text == "yes", nil
}

// show prints what the device needs. It goes to standard output: whoever pipes it on knows what it is.
func show(c *ucli.Context, t agent.LinkTicket) error {
	w := c.App.Writer
	if t.Mode == "code" {
		_, err := fmt.Fprintf(w, "\nType this code into the device:  %s\n(valid for three minutes, once)\n\n", t.Code)
		return err
	}
	if cli.IsTerminal(w) || c.Bool("qr") {
		if err := drawQR(w, t.Link); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\nOpen this link on the device, or give it to `surface link`:\n\n  %s\n\n(valid for three minutes, once)\n\n", t.Link)
	return err
}

// drawQR draws dark on light whatever the terminal's colours are, two modules a character.
func drawQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return err
	}
	const quiet = 2
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("\x1b[30;107m")
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteString([...]string{" ", "▄", "▀", "█"}[2*dark(code, x, y)+dark(code, x, y+1)])
		}
		b.WriteString("\x1b[0m\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}

func dark(code *qr.Code, x, y int) int {
	if x >= 0 && y >= 0 && x < code.Size && y < code.Size && code.Black(x, y) {
		return 1
	}
	return 0
}

// linking follows one session at the terminal.
type linking struct {
	c     *ucli.Context
	cl    *agent.Client
	after int
}

// follow shows what happens until the device is linked, or nothing can come of it any more.
func (l *linking) follow() error {
	for {
		events, err := l.cl.LinkEvents(l.c.Context, l.c.String("pairing"), l.after, eventWait)
		if err != nil {
			return err
		}
		for _, e := range events {
			l.after = e.Seq
			if done, err := l.event(e); done || err != nil {
				return err
			}
		}
	}
}

func (l *linking) event(e agent.LinkEvent) (done bool, err error) {
	w := l.c.App.ErrWriter
	switch e.Type {
	case agent.LinkClaimed:
		_, err = fmt.Fprintf(w, "a device has opened it; the broker says from %s\n", cli.Clean(e.Network))
	case agent.LinkDigits:
		_, err = fmt.Fprintf(w, "it calls itself %q and will be allowed to: %s\n", cli.Clean(e.Label), strings.Join(e.Scopes, ", "))
		if err == nil {
			err = l.digits(e)
		}
	case agent.LinkConfirmed:
		if e.Finish != "" {
			_, err = fmt.Fprintf(l.c.App.Writer, "Type these digits into the device:  %s\n", spaced(e.Finish))
		}
	case agent.LinkDone:
		_, err = fmt.Fprintf(w, "linked %s\n", cli.Clean(e.Label))
		return true, err
	case agent.LinkBurned, agent.LinkExpired, agent.LinkCancelled:
		return true, ended(e)
	}
	return false, err
}

func spaced(digits string) string { return digits[:len(digits)/2] + " " + digits[len(digits)/2:] }

func ended(e agent.LinkEvent) error {
	why := map[string]string{
		"second_claim": "someone else tried the same link or code", "wrong_digits": "the digits were wrong too often",
		"bad_reveal": "what the device sent does not hold together", "bad_finish": "the device did not take the grant",
		"expired": "the three minutes are over", "cancelled": "it was cancelled at the device", "by_owner": "it was cancelled here",
		"broker_unreachable": "the broker could not be reached",
	}[e.Reason]
	if why == "" {
		why = "the session has ended (" + cli.Clean(e.Reason) + ")"
	}
	return cli.Fail(cli.Refused, errors.New("not linked: "+why), "start again with `desktop-agent link`")
}

// digits asks for what the device shows. While it asks it watches the session, so that an end is told at once.
func (l *linking) digits(e agent.LinkEvent) error {
	ctx, stop := context.WithCancelCause(l.c.Context)
	defer stop(nil)
	go l.watch(ctx, stop)
	asking := ucli.NewContext(l.c.App, nil, l.c)
	asking.Context = ctx
	for {
		typed, err := cli.Ask(asking, fmt.Sprintf("Type the %d digits that the device shows:", e.Digits))
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
		err = l.cl.LinkDigits(ctx, l.c.String("pairing"), typed)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return cause // the session ended while the digits were on their way: say why
		}
		refused, ok := errors.AsType[*agent.ControlError](err)
		if !ok || refused.Code != agent.CodeLinkDigits {
			return l.why(err)
		}
		_, _ = fmt.Fprintln(l.c.App.ErrWriter, refused.Message)
	}
}

// why is the end of the session when it has one by now, which says more than the refusal that met it.
func (l *linking) why(refused error) error {
	if refused == nil {
		return nil
	}
	events, err := l.cl.LinkEvents(l.c.Context, l.c.String("pairing"), l.after, 0)
	if err != nil {
		return refused
	}
	for _, e := range events {
		switch e.Type {
		case agent.LinkBurned, agent.LinkExpired, agent.LinkCancelled:
			return ended(e)
		}
	}
	return refused
}

// watch ends the question when the session ends.
func (l *linking) watch(ctx context.Context, stop context.CancelCauseFunc) {
	after := l.after
	for {
		events, err := l.cl.LinkEvents(ctx, l.c.String("pairing"), after, eventWait)
		if err != nil {
			return // the question goes on, and its answer meets the same error
		}
		for _, e := range events {
			after = e.Seq
			switch e.Type {
			case agent.LinkBurned, agent.LinkExpired, agent.LinkCancelled:
				stop(ended(e))
				return
			}
		}
	}
}
