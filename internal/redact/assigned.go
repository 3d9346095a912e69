package redact

import (
	"slices"
	"strings"
)

// assignment is the shape whose expression ends before the value: the value is
// read by hand, so that one that is no secret hides nothing that follows.
const assignment = "name and value"

// judged is how much of a value decides whether it is a secret. Without the
// bound, many names before one long value would take quadratic time.
const judged = 256

// nameWords are parts of names that may say secret; nameKind decides.
var nameWords = at("pass pw cookie sessid jsessionid secret credential token jwt otp mnemonic refresh key")

// nameAt is a name in a text.
type nameAt struct {
	start, end int
	kind       kind
}

// secretNames finds the names in s that say what stands after them.
func secretNames(s, lower string) []nameAt {
	var list []nameAt
	for _, word := range nameWords {
		for from := 0; ; {
			i := strings.Index(lower[from:], word)
			if i < 0 {
				break
			}
			n := nameAround(s, from, from+i, from+i+len(word))
			if n.kind = nameKind(s[n.start:n.end]); n.kind != harmless {
				list = append(list, n)
			}
			from = n.end
		}
	}
	slices.SortFunc(list, func(a, b nameAt) int { return a.start - b.start })
	return slices.CompactFunc(list, func(a, b nameAt) bool { return a.end == b.end })
}

// nameAround extends a word to the name it is part of, not before from: its
// letters, digits, dots and dashes, and of "api key" the word before.
func nameAround(s string, from, start, end int) nameAt {
	for start > from && isName(s[start-1]) {
		start--
	}
	for end < len(s) && isName(s[end]) {
		end++
	}
	for end > start+1 && s[end-1] == '.' { // of a sentence
		end--
	}
	if start > from && s[start-1] == ' ' && strings.EqualFold(s[start:min(end, start+3)], "key") {
		before := start - 1
		for before > from && isName(s[before-1]) && start-before < 20 {
			before--
		}
		if keyBefore[strings.ToLower(s[before:start-1])] {
			start = before
		}
	}
	return nameAt{start: start, end: end}
}

func isName(b byte) bool { return b < 0x80 && isWord(rune(b)) || b == '_' || b == '.' || b == '-' }

// findBehind finds a shape behind each name, in a window after it.
func (f *shape) findBehind(names []nameAt, s string, found []span) []span {
	done := 0
	for _, n := range names {
		if n.end < done || n.kind == tokens && f.name != assignment {
			continue
		}
		// Dashes are part of the name, an angle bracket is not.
		if !strings.HasSuffix(s[:n.start], *f.behind) && !strings.HasPrefix(s[n.start:], *f.behind) {
			continue
		}
		window := s[n.end:min(len(s), n.end+judged)]
		loc := f.re.FindStringSubmatchIndex(window)
		if loc == nil {
			continue
		}
		one := f.judge(s, n, loc)
		if one.end > one.start && !onlyMarks(s[one.start:one.end]) {
			done = one.end
			found = append(found, one)
		}
	}
	return found
}

// judge returns the span of the value behind a name, an empty one for none.
func (f *shape) judge(s string, n nameAt, loc []int) span {
	a, b := n.end+loc[2], n.end+loc[3]
	if f.name != assignment {
		if !f.ok([]string{s[n.start:n.end], s[a:b]}) {
			return span{}
		}
		return span{a, valueEnd(s, b, "", len(s)), Mark}
	}
	start, quote := quoteAt(s, n.end+loc[1])
	v := s[start:valueEnd(s, start, quote, start+judged)]
	sign := s[a:b]
	if sign == "=" && s[a-1] != ' ' && start == b {
		sign = tight
	}
	if !assigned(n.kind, s[n.start:n.end], sign, v, quote != "") {
		return span{}
	}
	return span{start, valueEnd(s, start, quote, len(s)), Mark}
}

// quoteAt returns where a value begins and the quote around it, "" for none.
func quoteAt(s string, i int) (int, string) {
	for _, quote := range []string{`\"`, `"`, `'`, "`"} {
		if strings.HasPrefix(s[i:], quote) {
			return i + len(quote), quote
		}
	}
	return i, ""
}

// valueEnd returns where a value ends: at its quote, or without one at white
// space or a sign that separates; in any case at the end of the line.
func valueEnd(s string, start int, quote string, limit int) int {
	end := start
	for limit = min(limit, len(s)); end < limit; end++ {
		switch {
		case s[end] == '\n', quote != "" && strings.HasPrefix(s[end:], quote):
			return end
		case quote == "" && strings.IndexByte(" \t\r\"'`,;}])", s[end]) >= 0:
			return end
		case quote == `"` && s[end] == '\\' && end+1 < limit && s[end+1] != '\n':
			end++
		}
	}
	return min(end, limit)
}

// isCode tells a variable or an expression from a value: it names a secret
// itself, or has a bracket where no setting has one.
func isCode(v, sign string) bool {
	return holdsAny(strings.ToLower(v), secretEnd) && codeStart.MatchString(v) || sign != tight && strings.ContainsAny(v, "([{")
}

// tight is the sign of name=value without a space, as in files of settings,
// query strings and environments; code has spaces, or a variable as value.
const tight = "tight"

// assigned judges a value by its name and by how it is written.
func assigned(kind kind, name, sign, v string, quoted bool) bool {
	switch {
	case kind == tokens:
		return random(v) && !isNumeral(v)
	case placeholder(v), isNumeral(v) && strings.Contains(strings.ToLower(name), "token"):
		return false
	case quoted && strings.IndexByte(" +),;.", v[0]) >= 0: // the quote ended something
		return false
	case !quoted && strings.ToUpper(name) != name && isCode(v, sign):
		return false
	case strings.EqualFold(name, "pass"): // or it counts tests
		return (quoted || sign == tight) && hasLetter(v)
	case random(v), isPassword(name) && hasDigit(v) && hasLetter(v):
		return true
	case quoted:
		return strings.ContainsFunc(v, isWord) && (!strings.Contains(v, " ") || strings.Contains(strings.ToLower(name), "phrase"))
	}
	return unquoted(name, sign, v)
}

// unquoted judges a value without quotes: after a colon or in code a word may be a type, a variable or prose.
func unquoted(name, sign, v string) bool {
	switch sign {
	case tight:
		if strings.ToUpper(name) == name { // a variable of the environment
			return !strings.EqualFold(v, name)
		}
		return nameKind(v) == harmless && !strings.Contains(v, "(")
	case "=":
		return !codeWord.MatchString(v) || strings.ToUpper(name) == name
	}
	return false
}
