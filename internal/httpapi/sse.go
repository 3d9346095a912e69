package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"
)

const (
	// heartbeat is how often a quiet stream gets a comment, so that nothing between takes it for dead.
	heartbeat = 15 * time.Second
	// stallTime is how long one flush may take before the reader counts as gone; it resumes with Last-Event-ID.
	stallTime = 20 * time.Second
	// slowTime is how long one flush may take before the stream is ended with reason slow.
	slowTime = 5 * time.Second
)

// sse writes server-sent events. What is written waits in memory until flush, which callers do after a bounded number
// of events. It is for one goroutine.
type sse struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	buf   bytes.Buffer
	stall time.Duration // stallTime
	slow  time.Duration // slowTime
}

// startSSE sends the head of a stream and lifts the deadlines of ordinary calls.
func startSSE(w http.ResponseWriter) (*sse, error) {
	s := &sse{w: w, rc: http.NewResponseController(w), stall: stallTime, slow: slowTime}
	if err := s.rc.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would hold small events back
	w.WriteHeader(http.StatusOK)
	s.comment("open")
	_, err := s.flush()
	return s, err
}

// event adds one event; id may be empty, which leaves the reader's last one in place.
func (s *sse) event(name, id string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if id != "" {
		s.buf.WriteString("id: " + id + "\n")
	}
	s.buf.WriteString("event: " + name + "\ndata: ")
	s.buf.Write(data)
	s.buf.WriteString("\n\n")
	return nil
}

func (s *sse) comment(text string) { s.buf.WriteString(": " + text + "\n\n") }

// flush sends what was written and says how long the reader took to make room for it.
func (s *sse) flush() (time.Duration, error) {
	if s.buf.Len() == 0 {
		return 0, nil
	}
	begin := time.Now()
	if err := s.rc.SetWriteDeadline(begin.Add(s.stall)); err != nil {
		return 0, err
	}
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return 0, err
	}
	s.buf.Reset()
	if s.buf.Cap() > maxKept {
		s.buf = bytes.Buffer{} // one large burst should not be held for the life of a quiet stream
	}
	err := s.rc.Flush()
	return time.Since(begin), err
}

// maxKept is how much of its buffer a quiet stream keeps.
const maxKept = 64 << 10
