package agent

import (
	"regexp"
	"strings"

	"cowork.example.com/broker/internal/redact"
)

// maxStreamTail is how much raw text of a streaming part is kept as context for its redaction, in bytes, while no
// line in it is longer.
const maxStreamTail = 4 << 10

// maxStreamRaw bounds that context when there is no place to cut it, in one endless line say; the rest of such a part is
// not said before its end.
const maxStreamRaw = redact.MaxText

// doubtful is what only the rest of its line can show to be a secret: a number or a long word ("483920 is your code"),
// or the words of a seed phrase.
var doubtful = regexp.MustCompile(`(?i)\d{4}|\S{20}|\bseed\b|mnemonic|phrase|recovery`)

// redactStream redacts a text that arrives in pieces. A secret or a path may be split between two pieces, so text is
// held back to the last white space, and from a doubtful word on to the end of its line; each decision is made on the
// text so far, not on the piece. What would change what was said already is not said at all: the whole part, redacted
// as one, follows at its end.
type redactStream struct {
	redact func(string) string
	raw    string // since the last cut, which is at the start of a line
	said   string // of redact(raw) up to the last white space
	lost   bool   // redaction reached back into said
}

// push adds a piece and returns what may be said now.
func (s *redactStream) push(piece string) string {
	s.raw += piece
	if s.lost = s.lost || len(s.raw) > maxStreamRaw; s.lost {
		s.raw, s.said = "", "" // nothing more will be said
		return ""
	}
	now := s.redact(s.raw[:sayable(s.raw)])
	if !strings.HasPrefix(now, s.said) {
		s.lost = true
		return ""
	}
	out := now[len(s.said):]
	s.said = now
	s.cut()
	return out
}

// sayable is how much of a text can be judged before its rest is known.
func sayable(text string) int {
	line := strings.LastIndexByte(text, '\n') + 1
	end := strings.LastIndexAny(text, " \t\n") + 1
	if at := doubtful.FindStringIndex(text[line:]); at != nil {
		end = min(end, strings.LastIndexAny(text[:line+at[0]], " \t\n")+1)
	}
	return end
}

// cut forgets whole lines of context once there is enough after them, unless a key block is open in them.
func (s *redactStream) cut() {
	if len(s.raw) <= 2*maxStreamTail {
		return
	}
	at := strings.LastIndexByte(s.raw[:len(s.raw)-maxStreamTail], '\n') + 1
	if at == 0 || openBlock(s.raw[:at]) {
		return
	}
	head := s.redact(s.raw[:at])
	if !strings.HasPrefix(s.said, head) {
		return // the redaction spans the cut; try again with the next piece
	}
	s.raw, s.said = s.raw[at:], s.said[len(head):]
}

// openBlock reports whether a PEM block has begun and not ended.
func openBlock(s string) bool {
	begin := strings.LastIndex(s, "-----BEGIN ")
	return begin >= 0 && !strings.Contains(s[begin:], "-----END ")
}
