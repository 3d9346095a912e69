package surface

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// readAll reads a stream to its end, without what only shows life.
func readAll(text string) (events []sseEvent, err error) {
	r := newSSEReader(strings.NewReader(text))
	for {
		ev, err := r.next()
		if err != nil {
			return events, err
		}
		if ev.name != "" || ev.data != nil {
			events = append(events, ev)
		}
	}
}

func TestSSE(t *testing.T) {
	for text, want := range map[string]string{
		"event: a\ndata: 1\n\n":                     "[a  1]",
		"data:1\ndata: 2\n\n":                       "[  1|2]",
		"data\ndata: 2\n\n":                         "[  |2]",
		"id: 7\nevent: a\n\nevent: b\n\n":           "[a 7 ][b 7 ]",
		": beat\n\nevent: a\n: inside\ndata: x\n\n": "[a  x]",
		"event: a\r\ndata: x\r\n\r\n":               "[a  x]",
		"\n\n\nretry: 5\nnonsense\ndata: x\n\n":     "[  x]",
		"event: cut\ndata: never":                   "",
	} {
		events, err := readAll(text)
		var got strings.Builder
		for _, e := range events {
			fmt.Fprintf(&got, "[%s %s %s]", e.name, e.id, strings.ReplaceAll(string(e.data), "\n", "|"))
		}
		if !errors.Is(err, io.EOF) || got.String() != want {
			t.Errorf("%q: %s %v, want %s", text, got.String(), err, want)
		}
	}
}

func TestSSEBounds(t *testing.T) {
	fits := "data: " + strings.Repeat("x", maxEventBytes-len("data: ")-1) + "\n\n"
	if events, err := readAll(fits); !errors.Is(err, io.EOF) || len(events) != 1 {
		t.Errorf("a line that fits: %d events, %v", len(events), err)
	}
	half := "data: " + strings.Repeat("x", maxEventBytes/2) + "\n"
	for name, text := range map[string]string{"one line": "data: " + strings.Repeat("x", maxEventBytes), "three lines": half + half + half + "\n", "no end": strings.Repeat("x", 2*maxEventBytes)} {
		if _, err := readAll(text); !errors.Is(err, errEventTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// However a stream is cut into reads, it is the same events, within bounds, and never a panic.
func FuzzSSE(f *testing.F) {
	f.Add("event: a\nid: 1\ndata: x\n\n", uint8(1))
	f.Add(": beat\n\ndata: 1\r\ndata: 2\r\n\r\n", uint8(3))
	f.Add("data\n\nid\n\n:\n\n", uint8(0))
	f.Fuzz(func(t *testing.T, text string, step uint8) {
		whole, err := readAll(text)
		r := newSSEReader(&slow{strings.NewReader(text), int(step) + 1})
		var n int
		for {
			ev, err2 := r.next()
			if err2 != nil {
				if errors.Is(err, io.EOF) != errors.Is(err2, io.EOF) || n != len(whole) {
					t.Fatalf("%d events and %v, at once %d and %v", n, err2, len(whole), err)
				}
				return
			}
			if ev.name == "" && ev.data == nil {
				continue
			}
			if n >= len(whole) || ev.name != whole[n].name || ev.id != whole[n].id || string(ev.data) != string(whole[n].data) {
				t.Fatalf("event %d is %+v", n, ev)
			}
			if len(ev.data) > 2*maxEventBytes {
				t.Fatalf("an event of %d bytes", len(ev.data))
			}
			n++
		}
	})
}

type slow struct {
	r io.Reader
	n int
}

func (s *slow) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.n)]) }
