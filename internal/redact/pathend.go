package redact

import "strings"

// maxPath bounds how far a path is followed, as the systems do.
const maxPath = 4096

// pathEnd returns where the POSIX path s[start:] ends, known to reach at least
// to from. In quotes it ends at the quote; otherwise at white space, unless
// that is escaped or the words after it go on with the path.
func pathEnd(s string, start, from int) int {
	if end := quotedEnd(s, start); end > from {
		return end
	}
	limit := min(len(s), start+maxPath)
	end := from
	for end < limit {
		switch c := s[end]; {
		case c == '\\' && end+1 < limit && s[end+1] == ' ':
			end += 2
		case isSegment(c) || c == '/' || strings.IndexByte("$%=!#^", c) >= 0:
			end++
		case c == ' ' && goesOn(s[start:end], s[end+1:limit], '/'):
			end++
		default:
			return trimEnd(s, from, end)
		}
	}
	return trimEnd(s, from, end)
}

// trimEnd gives the sentence back its full stop.
func trimEnd(s string, from, end int) int {
	for end > from && strings.IndexByte(".!", s[end-1]) >= 0 && (end == len(s) || !isSegment(s[end])) {
		end--
	}
	return end
}

// quotedEnd returns the closing quote of a path that a quote opens and that
// holds a space; 0 if it is not so. A quoted command line is no path.
func quotedEnd(s string, start int) int {
	if start == 0 || strings.IndexByte("\"'`", s[start-1]) < 0 {
		return 0
	}
	rest := s[start:min(len(s), start+maxPath)]
	n := strings.IndexAny(rest, "\n"+s[start-1:start])
	if n <= 0 || rest[n] == '\n' {
		return 0
	}
	inside := strings.TrimRight(rest[:n], `\`)
	if strings.ContainsAny(inside, "|;&<>(){},\"'`") || strings.Contains(inside, " -") || strings.Contains(inside, " /") {
		return 0
	}
	return start + len(inside)
}

// goesOn reports whether a path with a space goes on after it: a next word
// that begins with a capital and holds a separator, as in "/Users/Jane
// Doe/Notes" and "C:\Program Files\x". A file name with its extension ends.
func goesOn(before, after string, separator byte) bool {
	last := before[strings.LastIndexByte(before, separator)+1:]
	if last == "" || strings.IndexByte(last, '.') > 0 || after == "" || !(after[0] >= 'A' && after[0] <= 'Z' || after[0] == '(' && separator == '\\') {
		return false
	}
	word := after[:indexOr(after, " \t\r\n\"'`<>|;,")]
	return strings.IndexByte(word, separator) > 0 && !strings.Contains(word, "://")
}

func indexOr(s, chars string) int {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return i
	}
	return len(s)
}

// windowsEnd is pathEnd for a path with backslashes.
func windowsEnd(s string, start, from int) int {
	if end := quotedEnd(s, start); end > from {
		return end
	}
	limit := min(len(s), start+maxPath)
	end := from
	for end < limit {
		switch c := s[end]; {
		case isSegment(c) || strings.IndexByte(`\/$%=!#^&`, c) >= 0:
			end++
		case c == ' ' && goesOn(s[start:end], windowsRest(s[end+1:limit]), '\\'):
			end++
		case (c == '(' || c == ')') && s[end-1] != '\\' && strings.Contains(s[start:end], " ") && strings.IndexByte(s[end:limit], '\\') > 0:
			end++
		default:
			return trimEnd(s, from, end)
		}
	}
	return trimEnd(s, from, end)
}

// windowsRest joins "Files (x86)\x" so that goesOn sees the separator.
func windowsRest(after string) string {
	return strings.Replace(after, "Files (", "Files_(", 1)
}
