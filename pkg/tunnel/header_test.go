package tunnel

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// The bytes of SPEC section 4, typed from it.
func TestHeaderBytes(t *testing.T) {
	got := frame(header{class: Command, kind: kindRequest, id: 0x0102030405060708, deadline: 30000}, []byte("hi"))
	want := []byte{1, 3, 1, 0, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x75, 0x30, 'h', 'i'}
	if !bytes.Equal(got, want) {
		t.Errorf("request % x\nwant    % x", got, want)
	}
	got = errorFrame(0, 0, &CallError{Code: "no.such", Message: "x"})
	want = append([]byte{1, 0, 3, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "no.suchx"...)
	if !bytes.Equal(got, want) {
		t.Errorf("error   % x\nwant    % x", got, want)
	}
}

// Every limit of the header holds at its edge, and one beyond it is refused.
func TestHeaderEdges(t *testing.T) {
	most := uint32(maxDeadline / time.Millisecond)
	for _, c := range []struct {
		name string
		h    header
		want error
	}{
		{"most of a request", header{class: Control, kind: kindRequest, length: MaxFrame, id: 1, deadline: most}, nil},
		{"one byte over", header{class: Control, kind: kindRequest, length: MaxFrame + 1, id: 1}, errTooLarge},
		{"deadline over", header{class: Control, kind: kindRequest, id: 1, deadline: most + 1}, errBadFrame},
		{"id 0", header{class: Control, kind: kindRequest}, errBadFrame},
		{"reply", header{class: Service, kind: kindReply, length: MaxFrame, id: 1 << 63}, nil},
		{"reply with deadline", header{class: Service, kind: kindReply, id: 1, deadline: 1}, errBadFrame},
		{"reply with code", header{class: Service, kind: kindReply, id: 1, codeLen: 1, length: 1}, errBadFrame},
		{"longest error", header{class: Events, kind: kindError, id: 1, codeLen: maxCode, length: maxCode + maxText}, nil},
		{"error too long", header{class: Events, kind: kindError, id: 1, codeLen: maxCode, length: maxCode + maxText + 1}, errBadFrame},
		{"code too long", header{class: Events, kind: kindError, id: 1, codeLen: maxCode + 1, length: maxCode + 1}, errBadFrame},
		{"no code", header{class: Events, kind: kindError, id: 1, length: 1}, errBadFrame},
		{"code beyond body", header{class: Events, kind: kindError, id: 1, codeLen: 2, length: 1}, errBadFrame},
		{"ending error", header{kind: kindError, codeLen: 1, length: 1}, nil},
		{"ending error with id", header{kind: kindError, id: 1, codeLen: 1, length: 1}, errBadFrame},
		{"raw", header{class: Service, kind: kindRaw}, nil},
		{"raw with body", header{class: Service, kind: kindRaw, length: 1}, errBadFrame},
		{"raw with id", header{class: Service, kind: kindRaw, id: 1}, errBadFrame},
		{"raw without class", header{kind: kindRaw}, errBadFrame},
	} {
		var b [headerSize]byte
		c.h.put(b[:])
		got, err := parseHeader(b[:])
		if !errors.Is(err, c.want) || err == nil && got != c.h {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

// Reading and writing a header costs no allocation, and a frame only its own buffer.
func TestHeaderAllocations(t *testing.T) {
	var b [headerSize]byte
	h := header{class: Events, kind: kindRequest, length: 5, id: 7, deadline: 1000}
	if n := testing.AllocsPerRun(1000, func() {
		h.put(b[:])
		if _, err := parseHeader(b[:]); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("header: %v allocations", n)
	}
	body := make([]byte, 100)
	if n := testing.AllocsPerRun(1000, func() { sink = frame(h, body) }); n != 1 {
		t.Errorf("frame: %v allocations", n)
	}
}

var sink []byte

// A body that is only announced costs what has come of it, not what was announced.
func TestReadBody(t *testing.T) {
	full := bytes.Repeat([]byte("0123456789abcdef"), MaxFrame/16)
	for _, n := range []int{0, 1, firstRead - 1, firstRead, firstRead + 1, MaxFrame} {
		got, err := readBody(iotest.HalfReader(bytes.NewReader(full)), uint32(n))
		if err != nil || !bytes.Equal(got, full[:n]) {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
	if _, err := readBody(bytes.NewReader(full[:99]), 100); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short: %v", err)
	}
	r := &stingy{}
	_, _ = readBody(r, MaxFrame)
	if r.most > firstRead {
		t.Errorf("%d bytes allocated for a body that never came", r.most)
	}
}

// stingy gives nothing, and remembers how much room it was offered.
type stingy struct{ most int }

func (s *stingy) Read(p []byte) (int, error) {
	s.most = max(s.most, len(p))
	return 0, io.EOF
}

func FuzzHeader(f *testing.F) {
	f.Add(frame(header{class: Command, kind: kindRequest, id: 1, deadline: 1}, []byte("x")))
	f.Add(frame(header{class: Events, kind: kindReply, id: 9}, nil))
	f.Add(errorFrame(Control, 3, &CallError{Code: "a.b_c", Message: "no"}))
	f.Add(errorFrame(0, 0, errTooLarge))
	f.Add(frame(header{class: Service, kind: kindRaw}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		h, err := parseHeader(b[:headerSize])
		if err != nil {
			if !errors.Is(err, errBadFrame) && !errors.Is(err, errTooLarge) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		var again [headerSize]byte
		h.put(again[:])
		if !bytes.Equal(again[:], b[:headerSize]) {
			t.Fatalf("not canonical: % x became % x", b[:headerSize], again)
		}
		if h.length > MaxFrame || h.wait() <= 0 || h.wait() > maxDeadline {
			t.Fatalf("beyond a limit: %+v", h)
		}
		body, err := readBody(bytes.NewReader(b[headerSize:]), h.length)
		if err != nil || h.kind != kindError {
			return
		}
		if e, err := parseError(h, body); err == nil && !bytes.Equal(errorFrame(h.class, h.id, e), b[:headerSize+len(body)]) {
			t.Fatalf("error %+v is not canonical", e)
		}
	})
}

func FuzzClose(f *testing.F) {
	f.Add("drain 5000")
	f.Add("drain 99999999999")
	f.Add("replaced")
	f.Add("\xff\x00")
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseDrain(s); d < 0 || d > maxPutOff {
			t.Fatalf("drain %v", d)
		}
		if d := parseRetryAfter(s, time.Now()); d < 0 || d > maxPutOff {
			t.Fatalf("retry after %v", d)
		}
		if a := ascii(s, maxText); len(a) > maxText || strings.ContainsFunc(a, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("ascii %q", a)
		}
	})
}

// Reasons survive the wire; what is no token does not.
func TestCloseFrames(t *testing.T) {
	for _, e := range []CloseError{
		{Reason: ReasonReplaced},
		{Reason: ReasonConflict},
		{Reason: ReasonGoingAway},
		{Reason: "revoked"},
		{Reason: strings.Repeat("a", maxReason)},
		{Reason: ReasonDrain, ComeBackIn: 1500 * time.Millisecond},
		{Reason: ReasonDrain},
	} {
		code, text := closeFrame(&e)
		want := e
		want.Remote = true
		if got := *closeFrom(code, text); got != want {
			t.Errorf("%+v came over as %+v", e, got)
		}
	}
	for _, text := range []string{"", "Not A Token", strings.Repeat("a", maxReason+1), "a\nb"} {
		if got := closeFrom(codeReason, text); got.Reason != "unknown" {
			t.Errorf("%q came over as %q", text, got.Reason)
		}
	}
}
