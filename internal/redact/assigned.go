package redact

import (
	"regexp"
	"strings"
)

// assignment is the shape whose expression ends before the value: the value is
// read by hand, so that one that is no secret hides nothing that follows.
const assignment = "name and value"

// judged is how much of a value decides whether it is a secret. Without the
// bound, many names before one long value would take quadratic time.
const judged = 256

// findAssigned finds NAME=value, name: "value", 'name' => value and the like.
// Its groups are the name and the sign between.
func findAssigned(re *regexp.Regexp, s string, found []span) []span {
	done := 0
	for _, loc := range re.FindAllStringSubmatchIndex(s, -1) {
		name, sign := s[loc[2]:loc[3]], s[loc[4]:loc[5]]
		kind := nameKind(name)
		if kind == harmless || loc[1] < done {
			continue
		}
		start, quote := quoteAt(s, loc[1])
		end := valueEnd(s, start, quote, start+judged)
		v := s[start:end]
		if onlyMarks(v) || !assigned(kind, name, sign, v, quote != "") {
			continue
		}
		done = valueEnd(s, start, quote, len(s))
		found = append(found, span{start, done, Mark})
	}
	return found
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

// assigned judges a value by its name and by how it is written.
func assigned(kind kind, name, sign, v string, quoted bool) bool {
	switch {
	case kind == tokens:
		return random(v) && !isNumeral(v)
	case placeholder(v), isNumeral(v) && strings.Contains(strings.ToLower(name), "token"):
		return false
	case random(v):
		return true
	case quoted:
		return strings.ContainsFunc(v, isWord) && (!strings.Contains(v, " ") || strings.Contains(strings.ToLower(name), "phrase"))
	}
	// In an environment or a file of properties any word is a value; after a
	// colon or in code it may be a type, a variable or prose.
	return sign == "=" && (!codeWord.MatchString(v) || strings.ToUpper(name) == name)
}
