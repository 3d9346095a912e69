package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

func watchCommand() *ucli.Command {
	return &ucli.Command{
		Name: "watch", Usage: "show what happens on the desktop until interrupted",
		Flags: []ucli.Flag{
			cli.JSONFlag(),
			&ucli.Uint64Flag{Name: "after", Usage: "begin after this `CURSOR` (0: with what is kept; default: now)"},
		},
		Action: watch,
	}
}

func watch(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	s, err := open(c)
	if err != nil {
		return fail(err)
	}
	var after *uint64
	if c.IsSet("after") {
		n := c.Uint64("after")
		after = &n
	}
	show := showLine
	if c.Bool("json") {
		show = showJSON
	}
	err = s.Watch(c.Context, after, func(u surface.Update) error { return show(c, u) })
	if errors.Is(err, surface.ErrEnded) {
		return cli.Fail(cli.Refused, err, "link this surface again at the desktop")
	}
	return fail(err)
}

// line is one line of `watch --json`.
type line struct {
	Kind     string             `json:"kind"` // event, result, beat, presence, gap, offline
	Cursor   uint64             `json:"cursor,omitempty"`
	Event    *wire.Event        `json:"event,omitempty"`
	Decide   bool               `json:"decide,omitempty"` // the event has a request's full text
	Command  *wire.Command      `json:"command,omitempty"`
	Result   *wire.ResultBody   `json:"result,omitempty"`
	Presence *wire.PairingState `json:"presence,omitempty"`
	Beat     int64              `json:"beat,omitempty"` // desktop's clock, Unix ms
	Error    string             `json:"error,omitempty"`
}

func showJSON(c *ucli.Context, u surface.Update) error {
	l := line{Cursor: u.Cursor}
	switch {
	case u.Event != nil:
		l.Kind, l.Event, l.Decide = "event", &u.Event.Event, u.Event.Decide
	case u.Result != nil:
		l.Kind, l.Command = "result", &u.Result.Command
		if u.Result.Signed {
			l.Result = &u.Result.Body
		}
	case u.Beat != nil:
		l.Kind, l.Beat = "beat", u.Beat.Time
	case u.Presence != nil:
		l.Kind, l.Presence = "presence", u.Presence
	case u.Gap:
		l.Kind = "gap"
	case u.Offline != nil:
		l.Kind, l.Error = "offline", u.Offline.Error()
	}
	return cli.WriteJSONLine(c.App.Writer, l)
}

func showLine(c *ucli.Context, u surface.Update) error {
	var text string
	switch {
	case u.Event != nil:
		text = eventLine(u)
	case u.Result != nil:
		text = "result of " + u.Result.Command.ID + ": " + u.Result.State()
	case u.Presence != nil && u.Presence.Online:
		text = "the broker says the desktop is connected"
	case u.Presence != nil:
		text = "the broker says the desktop is asleep or off since " + cli.Relative(telemetry.Now(), time.UnixMilli(u.Presence.Since))
	case u.Gap:
		text = "events were lost; `surface sessions` and `surface history` show how things stand"
	case u.Offline != nil:
		text = "the broker is away: " + u.Offline.Error()
	}
	if text == "" {
		return nil
	}
	_, err := fmt.Fprintln(c.App.Writer, cli.Clean(text))
	return err
}

// onData decodes an event's data.
func onData[T any](e *surface.Event, do func(T) error) error {
	var v T
	if err := json.Unmarshal(e.Data, &v); err != nil {
		return fmt.Errorf("a %s event cannot be read: %w", e.Type, err)
	}
	return do(v)
}

func eventLine(u surface.Update) string {
	e := u.Event
	var text string
	switch e.Type {
	case wire.EventText:
		_ = onData(e, func(d wire.TextDelta) error { text = "text: " + d.Text; return nil })
	case wire.EventPart:
		_ = onData(e, func(p wire.Part) error { text = partLine(p); return nil })
	case wire.EventSession:
		_ = onData(e, func(s wire.Session) error { text = "session " + s.ID + " " + s.State + ": " + s.Title; return nil })
	case wire.EventTurnStarted:
		text = "turn started in " + e.SessionID
	case wire.EventTurnEnded:
		_ = onData(e, func(t wire.Turn) error {
			text = "turn ended in " + e.SessionID + ": " + t.Outcome + " " + t.Message
			return nil
		})
	case wire.EventRequestOpen:
		if u.Request != nil && u.Request.Full != nil {
			text = "asks: " + requestLine(*u.Request)
		}
	case wire.EventRequestClosed:
		_ = onData(e, func(r wire.RequestClosed) error {
			text = "request " + r.ID + " was " + r.Outcome + " by " + r.By
			return nil
		})
	default:
		text = e.Type + " " + string(e.Data)
	}
	return text
}

func partLine(p wire.Part) string {
	if p.Type == "tool" {
		return "tool " + p.Tool + " " + p.State
	}
	return p.Type + ": " + p.Text
}
