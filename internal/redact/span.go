package redact

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// span is a part of a text that goes, and what stands there instead.
type span struct {
	start, end int
	with       string
}

// maxPasses bounds how often a text is searched until nothing more is found.
const maxPasses = 4

// settle replaces what find finds until it finds nothing, so that redacting
// the result again changes nothing. A text that does not settle, or that the
// marks make longer than the limit, goes as a whole.
func settle(s string, find func(string) []span, limit ...int) string {
	for range maxPasses {
		next := replace(s, find(s))
		if next == s {
			return s
		}
		s = next
		if len(limit) > 0 && len(s) > limit[0] {
			s = truncate(s, limit[0])
		}
	}
	if replace(s, find(s)) == s {
		return s
	}
	return Mark
}

// replace puts the replacements of the spans into s. Of spans that overlap one
// is made, which is a secret if any of them is.
func replace(s string, spans []span) string {
	if len(spans) == 0 {
		return s
	}
	slices.SortStableFunc(spans, func(a, b span) int {
		if a.start != b.start {
			return a.start - b.start
		}
		return b.end - a.end
	})
	var b strings.Builder
	at := 0
	for i := 0; i < len(spans); {
		one := spans[i]
		for i++; i < len(spans) && spans[i].start < one.end; i++ {
			one.end = max(one.end, spans[i].end)
			if spans[i].with == Mark {
				one.with = Mark
			}
		}
		b.WriteString(s[at:one.start])
		b.WriteString(one.with)
		at = one.end
	}
	b.WriteString(s[at:])
	return b.String()
}

// truncate cuts s to limit bytes, the mark included, between runes and never
// inside another mark.
func truncate(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit - len(TruncatedMark)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	for _, mark := range marks {
		from := max(0, cut-len(mark)+1)
		if i := strings.Index(s[from:min(len(s), cut+len(mark))], mark); i >= 0 && from+i < cut {
			cut = from + i
		}
	}
	return s[:cut] + TruncatedMark
}

// cutWord drops the end of a text that was cut, back to the last white space:
// it may be the beginning of a secret that can no longer be recognised. A word
// longer than lookahead goes from there on.
func cutWord(s string) string {
	from := len(s) - lookahead
	if i := strings.LastIndexAny(s[from:], " \t\r\n"); i >= 0 {
		return s[:from+i]
	}
	return strings.ToValidUTF8(s[:from], "")
}

// onlyMarks reports whether a value that looks secret is nothing but marks.
func onlyMarks(s string) bool {
	had := false
	for _, mark := range marks {
		if strings.Contains(s, mark) {
			s, had = strings.ReplaceAll(s, mark, ""), true
		}
	}
	return had && !strings.ContainsFunc(s, isWord)
}

func isWord(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= utf8.RuneSelf
}
