package surface

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxEventBytes bounds one SSE event: a batch of wire.MaxBatchBytes in base64url in JSON, with room.
const maxEventBytes = 1 << 20

var errEventTooLarge = errors.New("an event of the stream is too large")

// sseEvent is one event of a text/event-stream (WHATWG HTML, server-sent events).
type sseEvent struct {
	name, id string
	data     []byte
}

// sseReader reads events one by one; comments only show that the stream lives.
type sseReader struct {
	sc   *bufio.Scanner
	last string // id, kept until it changes
}

func newSSEReader(r io.Reader) *sseReader {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxEventBytes)
	return &sseReader{sc: sc}
}

// next returns the next event, io.EOF at the end. A comment comes as an event without name and data.
func (s *sseReader) next() (sseEvent, error) {
	var ev sseEvent
	for s.sc.Scan() {
		line := s.sc.Bytes()
		if len(line) == 0 {
			if ev.name == "" && ev.data == nil {
				continue
			}
			ev.id = s.last
			return ev, nil
		}
		if line[0] == ':' {
			if ev.name != "" || ev.data != nil {
				continue // inside an event it means nothing
			}
			return sseEvent{id: s.last}, nil
		}
		if err := s.field(&ev, line); err != nil {
			return sseEvent{}, err
		}
	}
	if err := s.sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		return sseEvent{}, errEventTooLarge
	} else if err != nil {
		return sseEvent{}, err
	}
	return sseEvent{}, io.EOF
}

func (s *sseReader) field(ev *sseEvent, line []byte) error {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "event":
		ev.name = string(value)
	case "id":
		s.last = string(value)
	case "data":
		if len(ev.data)+len(value) > maxEventBytes {
			return errEventTooLarge
		}
		if ev.data == nil {
			ev.data = []byte{}
		} else {
			ev.data = append(ev.data, '\n')
		}
		ev.data = append(ev.data, value...)
	}
	return nil
}
