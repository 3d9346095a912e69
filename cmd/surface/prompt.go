package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

func promptCommand() *ucli.Command {
	return &ucli.Command{
		Name: "prompt", Usage: "send a task and show what comes of it", ArgsUsage: "TEXT|-",
		Description: "Sends TEXT, or standard input (-), into a new session or the one that --session names, and shows the\n" +
			"answer until the turn ends. An approval that is asked meanwhile is named; answer it from another terminal.",
		Flags: []ucli.Flag{
			cli.JSONFlag(),
			&ucli.StringFlag{Name: "session", Usage: "go on in this session `ID`"},
			&ucli.StringFlag{Name: "project", Usage: "start in the project of this `NAME`"},
			&ucli.StringFlag{Name: "title", Usage: "title of a new session"},
			&ucli.StringFlag{Name: "agent", Usage: "let this `AGENT` of the runtime answer"},
			&ucli.StringFlag{Name: "variant", Usage: "model variant"},
			&ucli.BoolFlag{Name: "no-follow", Usage: "return once the desktop has taken it"},
			&ucli.BoolFlag{Name: "no-wait", Usage: "return once the broker has taken it"},
		},
		Action: prompt,
	}
}

// answer is what `prompt --json` prints.
type answer struct {
	Command string `json:"command"`
	State   string `json:"state"`
	Session string `json:"session,omitempty"`
	Turn    string `json:"turn,omitempty"`
	Outcome string `json:"outcome,omitempty"`
	Text    string `json:"text,omitempty"`
	Online  bool   `json:"desktop_online"`
	Until   int64  `json:"expires"` // Unix ms
}

func prompt(c *ucli.Context) error {
	text, err := promptText(c)
	if err != nil {
		return err
	}
	s, err := open(c)
	if err != nil {
		return fail(err)
	}
	session, err := sessionFor(c, s)
	if err != nil {
		return fail(err)
	}
	st, err := s.State(c.Context)
	if err != nil {
		return fail(err)
	}
	tell, stop := steps(c.App.ErrWriter)
	defer stop()
	payload := wire.Prompt{SessionID: session, Text: text, Agent: c.String("agent"), Variant: c.String("variant")}
	sent, err := s.Prompt(c.Context, payload)
	if err != nil {
		return fail(err)
	}
	a := answer{Command: sent.Command.ID, State: sent.Command.State, Session: session, Online: sent.Command.DesktopOnline, Until: sent.Command.Expires}
	if c.Bool("no-wait") {
		stop()
		if !sent.Command.DesktopOnline {
			_, _ = fmt.Fprintln(c.App.ErrWriter, asleep(sent.Command))
		}
		return printAnswer(c, a)
	}
	o, err := s.Wait(c.Context, sent, tell)
	if err != nil {
		return fail(err)
	}
	a.State, a.Turn = o.State(), o.Body.TurnID
	if err := ended(o); err != nil {
		return errors.Join(printJSON(c, a), err)
	}
	if c.Bool("no-follow") {
		return printAnswer(c, a)
	}
	f := &follower{c: c, turn: a.Turn, session: session, text: map[string]string{}, tools: map[string]string{}}
	if err := f.follow(c.Context, s, st.Cursor); err != nil {
		return fail(err)
	}
	a.Outcome, a.Text = f.outcome, f.all()
	return errors.Join(printJSON(c, a), f.err())
}

func printJSON(c *ucli.Context, a answer) error {
	if !c.Bool("json") {
		return nil
	}
	return cli.WriteJSON(c.App.Writer, a)
}

func printAnswer(c *ucli.Context, a answer) error {
	return cli.Print(c, a, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "command %s: %s, session %s\n", a.Command, a.State, a.Session)
		return err
	})
}

func promptText(c *ucli.Context) (string, error) {
	if err := cli.WantArgs(c, 1, 1); err != nil {
		return "", err
	}
	text := c.Args().First()
	if text == "-" {
		raw, err := io.ReadAll(io.LimitReader(c.App.Reader, wire.MaxPromptBytes+1))
		if err != nil {
			return "", err
		}
		text = string(raw)
	}
	switch {
	case strings.TrimSpace(text) == "":
		return "", cli.Usagef("the prompt is empty")
	case len(text) > wire.MaxPromptBytes:
		return "", cli.Usagef("the prompt has more than %d bytes", wire.MaxPromptBytes)
	}
	return text, nil
}

// sessionFor is the session that was named, or a new one.
func sessionFor(c *ucli.Context, s *surface.Surface) (string, error) {
	if id := c.String("session"); id != "" {
		return id, nil
	}
	in := wire.CreateSession{Project: c.String("project"), Title: c.String("title")}
	o, err := s.CreateSession(c.Context, in, func(o surface.Outcome) {
		if !o.Done() && !o.Command.DesktopOnline {
			_, _ = fmt.Fprintln(c.App.ErrWriter, asleep(o.Command))
		}
	})
	if err != nil {
		return "", err
	}
	if err := ended(o); err != nil {
		return "", err
	}
	if o.Body.Session == nil {
		return "", errors.New("the desktop's result names no session")
	}
	return o.Body.Session.ID, nil
}

// follower shows one turn as it goes.
type follower struct {
	c       *ucli.Context
	turn    string
	session string
	outcome string
	message string
	order   []string
	text    map[string]string // by part
	tools   map[string]string // the state shown last, by part
	printed int               // bytes of the last part that stand on the terminal
	last    string            // part
}

var errTurnEnded = errors.New("the turn has ended")

func (f *follower) follow(ctx context.Context, s *surface.Surface, cursor uint64) error {
	err := s.Watch(ctx, &cursor, func(u surface.Update) error {
		if u.Offline != nil {
			_, _ = fmt.Fprintln(f.c.App.ErrWriter, "the broker is away for a moment; this goes on when it is back")
		}
		switch {
		case u.Gap:
			return f.afterGap(ctx, s)
		case u.Event != nil:
			return f.event(u)
		}
		return nil
	})
	if errors.Is(err, errTurnEnded) {
		return nil
	}
	return err
}

// afterGap asks whether the turn still runs: its end may be among what was lost.
func (f *follower) afterGap(ctx context.Context, s *surface.Surface) error {
	o, err := s.Status(ctx, nil)
	if err != nil {
		return err
	}
	for _, each := range o.Body.Sessions {
		if each.ID == f.session && each.Turn == f.turn {
			return nil
		}
	}
	f.newline()
	f.outcome, f.message = "not seen", "events were lost; `surface history "+f.session+"` shows what came of it"
	return errTurnEnded
}

func (f *follower) event(u surface.Update) error {
	e := u.Event
	switch e.Type {
	case wire.EventText:
		return onData(e, func(d wire.TextDelta) error { return f.grow(e, d.Part, f.text[d.Part]+d.Text) })
	case wire.EventPart:
		return onData(e, func(p wire.Part) error { return f.part(e, p) })
	case wire.EventRequestOpen:
		if e.SessionID == f.session && !e.Decide {
			return onData(e, f.asked)
		}
	case wire.EventTurnEnded:
		return onData(e, func(t wire.Turn) error {
			if t.TurnID != f.turn {
				return nil
			}
			f.outcome, f.message = t.Outcome, t.Message
			f.newline()
			return errTurnEnded
		})
	}
	return nil
}

// asked names a request. Both kinds of surfaces get the summary, so it is named once.
func (f *follower) asked(r wire.RequestSummary) error {
	f.newline()
	how := "surface approve " + r.ID
	if r.Kind == "question" {
		how = "surface answer " + r.ID
	}
	_, err := fmt.Fprintf(f.c.App.ErrWriter, "the desktop asks (%s): see `surface requests`, then `%s`\n", cli.Clean(strings.TrimSpace(r.Kind+" "+r.Action)), cli.Clean(how))
	return err
}

func (f *follower) part(e *surface.Event, p wire.Part) error {
	switch p.Type {
	case "text":
		return f.grow(e, p.ID, p.Text)
	case "tool":
		if f.tools[p.ID] == p.State {
			return nil
		}
		f.tools[p.ID] = p.State
		f.newline()
		_, err := fmt.Fprintf(f.c.App.ErrWriter, "[%s %s]\n", cli.Clean(p.Tool), cli.Clean(p.State))
		return err
	}
	return nil
}

// grow shows what a text part has gained. The user's own prompt comes as a part too; its message is the turn.
func (f *follower) grow(e *surface.Event, part, text string) error {
	if e.SessionID != f.session || e.MessageID == f.turn {
		return nil
	}
	if _, ok := f.text[part]; !ok {
		f.order = append(f.order, part)
	}
	old := f.text[part]
	f.text[part] = text
	if f.c.Bool("json") || !strings.HasPrefix(text, old) {
		return nil
	}
	if part != f.last {
		f.newline()
		f.last = part
	}
	f.printed += len(text) - len(old)
	_, err := io.WriteString(f.c.App.Writer, clean(text[len(old):]))
	return err
}

func (f *follower) newline() {
	if f.printed > 0 && !f.c.Bool("json") {
		_, _ = fmt.Fprintln(f.c.App.Writer)
	}
	f.printed, f.last = 0, ""
}

// clean keeps line breaks and takes what could steer a terminal.
func clean(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = cli.Clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

func (f *follower) all() string {
	var b strings.Builder
	for _, part := range f.order {
		b.WriteString(f.text[part])
	}
	return b.String()
}

func (f *follower) err() error {
	if f.outcome == "done" {
		return nil
	}
	text := "the turn ended: " + f.outcome
	if f.message != "" {
		text += ": " + cli.Clean(f.message)
	}
	return cli.Fail(cli.Failed, errors.New(text))
}
