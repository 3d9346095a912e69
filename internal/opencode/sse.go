package opencode

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// maxEvent bounds one line of the stream: a part with a large tool output fits.
	maxEvent = 16 << 20
	// silence is how long the stream may say nothing; heartbeats come every 10 s.
	silence = 35 * time.Second
)

// event is one line of the stream of all directories.
type event struct {
	Directory string
	Type      string
	Props     json.RawMessage
}

// errEventTooLarge ends the stream; the resync after it finds what the event said.
var errEventTooLarge = fmt.Errorf("opencode: event is larger than %d bytes", maxEvent)

// stream opens the events of all directories and calls each for every one, in order,
// until the connection ends, says nothing for too long, or each returns an error. It
// returns why; nil only when the server closed the stream.
func (c *client) stream(ctx context.Context, each func(event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errors.New("opencode: event stream fell silent")) })
	defer watchdog.Stop()
	req, err := c.request(ctx, http.MethodGet, "/global/event", "", nil, nil)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return cause(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return readRefusal(res)
	}
	err = readEvents(res.Body, func(e event) error {
		watchdog.Stop() // what takes long in each is not the stream's silence
		defer watchdog.Reset(silence)
		return each(e)
	})
	return cause(ctx, err)
}

// cause prefers the reason of a cancelled context over the error it led to.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// readEvents reads server-sent events. Lines other than data, and data that is not an
// event, are skipped.
func readEvents(r io.Reader, each func(event) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxEvent)
	for in.Scan() {
		data, ok := bytes.CutPrefix(in.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		if e, ok := readEvent(data); ok {
			if err := each(e); err != nil {
				return err
			}
		}
	}
	if errors.Is(in.Err(), bufio.ErrTooLong) {
		return errEventTooLarge
	}
	return in.Err()
}

// readEvent understands one event; ok is false for duplicates (sync) and for noise.
func readEvent(data []byte) (e event, ok bool) {
	var line struct {
		Directory string `json:"directory"`
		Payload   struct {
			Type       string          `json:"type"`
			Properties json.RawMessage `json:"properties"`
		} `json:"payload"`
	}
	if json.Unmarshal(data, &line) != nil || line.Payload.Type == "" || line.Payload.Type == "sync" {
		return event{}, false
	}
	return event{Directory: line.Directory, Type: line.Payload.Type, Props: line.Payload.Properties}, true
}
