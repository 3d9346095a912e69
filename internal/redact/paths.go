package redact

import (
	"path"
	"strings"
)

var (
	// roots are first segments that exist on machines and hardly in routes.
	roots = set(`bin boot dev etc home lib lib64 media mnt nix opt private proc root run sbin snap srv sys tmp usr var
		Users Volumes Applications Library System Network cores workspace workspaces vercel home2 export exports
		scratch data work builds snapshots vagrant builds nfs gluster data1 data2 cygdrive mingw64 storage sdcard c d e`)
	// routes are first segments of URLs: without a root and an extension they are no path.
	routes = set(`api v1 v2 v3 v4 rest graphql rpc auth oauth oauth2 login logout users user static assets public .well-known
		health healthz metrics admin docs search callback webhook webhooks events stream session sessions messages p w`)
	// public paths are the same on every machine and say nothing.
	public = set(`/dev/null /dev/stdin /dev/stdout /dev/stderr /dev/tty /dev/zero /dev/random /dev/urandom
		/bin/sh /bin/bash /bin/zsh /bin/true /bin/false /usr/bin/env /bin/cat /bin/ls`)
	methods = set("GET POST PUT PATCH DELETE HEAD OPTIONS CONNECT")
)

// pathSpans finds local paths in one pass: it looks at each byte that may
// begin one, and continues behind what it found.
func (r *Redactor) pathSpans(s string) []span {
	var found []span
	for i := 0; i < len(s); {
		end, with := r.pathAt(s, i)
		switch {
		case end <= i:
			i++
		case with == "":
			i = end
		default:
			found = append(found, span{i, end, with})
			i = end
		}
	}
	return found
}

// pathAt returns the end of what begins at i and its replacement, "" for what
// is to be skipped. An end of 0 means that nothing begins here.
func (r *Redactor) pathAt(s string, i int) (int, string) {
	switch c := s[i]; {
	case c == '/':
		return r.posixAt(s, i)
	case c == '~':
		return homeAt(s, i)
	case c == '\\':
		return uncAt(s, i)
	case c == '%':
		return encodedAt(s, i)
	case c == ':':
		return schemeAt(s, i)
	case (c == 'f' || c == 'F') && foldPrefix(s[i:], "file:/"):
		return r.fileURLAt(s, i)
	case isDrive(s[i:]) && begins(s, i):
		return r.driveAt(s, i)
	}
	return 0, ""
}

func foldPrefix(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// begins reports whether a path may begin at i by what stands before it: not
// in the middle of a word, of a relative path or of a number.
func begins(s string, i int) bool {
	if i == 0 {
		return true
	}
	switch b := s[i-1]; {
	case b == '/', b == '.', b == '~', b == '-', b == '\\', b == '*', b == '$', b == '%':
		return false
	case b == '}' || b == ')' || b == ']':
		return false // ${HOME}/x and a[0]/b say nothing of this machine
	case b < 0x80 && isWord(rune(b)), b == '_':
		return i >= 2 && s[i-2] == '\\' && strings.IndexByte("nrt", b) >= 0 || afterEscape(s, i)
	case b >= 0x80:
		return !strings.HasSuffix(s[:i], "…")
	}
	return true
}

// afterEscape reports whether a terminal's colour sequence ends at i.
func afterEscape(s string, i int) bool {
	const longest = 20
	from := max(0, i-longest)
	esc := strings.LastIndexByte(s[from:i], '\x1b')
	return esc >= 0 && s[i-1] == 'm' && strings.Trim(s[from+esc+1:i-1], "[0123456789;") == ""
}

// posixAt judges a path that begins with a slash.
func (r *Redactor) posixAt(s string, i int) (int, string) {
	if !begins(s, i) {
		return 0, ""
	}
	if k, ok := r.knownAt(s[i:]); ok {
		end := pathEnd(s, i, i+len(k.dir))
		return end, r.replacement(s[i:end])
	}
	end := pathEnd(s, i, i+1)
	if !looksLocal(s, i, end) {
		return end, ""
	}
	return end, r.replacement(s[i:end])
}

// knownAt returns the home or project folder that s begins with. They may hold
// any character, also spaces.
func (r *Redactor) knownAt(s string) (known, bool) {
	for _, k := range r.known {
		if strings.HasPrefix(s, k.dir) && (len(s) == len(k.dir) || !isSegment(s[len(k.dir)])) {
			return k, true
		}
	}
	return known{}, false
}

func isSegment(b byte) bool {
	return b >= 0x80 || isWord(rune(b)) || strings.IndexByte("_-.+@~", b) >= 0
}

// replacement shows a path inside a project by the project's name.
func (r *Redactor) replacement(p string) string {
	p = path.Clean(strings.ReplaceAll(strings.ReplaceAll(p, `\ `, " "), `\`, "/"))
	for _, k := range r.known {
		if k.name == "" || !strings.HasPrefix(p, k.dir) {
			continue
		}
		switch rest := p[len(k.dir):]; {
		case rest == "":
			return k.name + ":."
		case rest[0] == '/':
			return k.name + ":" + rest[1:]
		}
	}
	return PathMark
}

// looksLocal judges an absolute path that is in no known folder.
func looksLocal(s string, i, end int) bool {
	p := strings.TrimRight(s[i:end], "/")
	if public[p] {
		return false
	}
	segments := strings.Split(p, "/")[1:]
	if len(segments) == 0 || segments[0] == "" {
		return strings.HasPrefix(p, "//") && len(segments) > 3 && begins(s, i) // //server/share/folder
	}
	if roots[segments[0]] {
		return len(segments) > 1 || len(segments[0]) > 1 && !afterMethod(s, i)
	}
	if len(segments) < 2 || afterMethod(s, i) || strings.ContainsAny(p, "{}:*?<>") || !hasLetter(p) {
		return false
	}
	ext := path.Ext(p)
	file := len(ext) > 1 && len(ext) <= 6 && hasLetter(ext)
	if routes[segments[0]] {
		return file && len(segments) > 3
	}
	return file || len(segments) >= 3
}

// afterMethod reports whether an HTTP method stands before i: a route follows.
func afterMethod(s string, i int) bool {
	before := strings.TrimRight(s[max(0, i-12):i], " \t\"'`")
	return methods[before[strings.LastIndexAny(before, " \t\n\"'`(")+1:]]
}

// homeAt is ~/x and ~user/x.
func homeAt(s string, i int) (int, string) {
	if !begins(s, i) {
		return 0, ""
	}
	slash := i + 1
	for slash < len(s) && slash-i <= 32 && (isWord(rune(s[slash])) || s[slash] == '_' || s[slash] == '-') {
		slash++
	}
	if slash+1 >= len(s) || s[slash] != '/' || !isSegment(s[slash+1]) {
		return 0, ""
	}
	return pathEnd(s, i, slash+1), PathMark
}

// uncAt is \\server\share, also with every backslash doubled.
func uncAt(s string, i int) (int, string) {
	j := i
	for j < len(s) && s[j] == '\\' {
		j++
	}
	if j-i < 2 || j-i > 4 || j == len(s) || !isSegment(s[j]) || i > 0 && isSegment(s[i-1]) {
		return max(j, i+1), ""
	}
	end := windowsEnd(s, i, j)
	if rest := s[j:end]; strings.IndexByte(rest, '\\') < 2 {
		return j, ""
	}
	return end, PathMark
}

// encodedAt is a percent-encoded path with one of the roots.
func encodedAt(s string, i int) (int, string) {
	if !foldPrefix(s[i:], "%2f") || i > 0 && isSegment(s[i-1]) {
		return 0, ""
	}
	rest := s[i+3:]
	next := strings.IndexByte(rest, '%')
	if next < 1 || !roots[rest[:next]] || !foldPrefix(rest[next:], "%2f") {
		return 0, ""
	}
	end := i
	for end < len(s) && (isSegment(s[end]) || s[end] == '%') {
		end++
	}
	return end, PathMark
}

// schemeAt skips the host and path of a URL; its query is looked at.
func schemeAt(s string, i int) (int, string) {
	if !strings.HasPrefix(s[i:], "://") || i == 0 || !isWord(rune(s[i-1])) {
		return 0, ""
	}
	end := i + 3
	for end < len(s) && strings.IndexByte(" \t\r\n\"'`<>?#", s[end]) < 0 {
		end++
	}
	return end, ""
}

func (r *Redactor) fileURLAt(s string, i int) (int, string) {
	start := i + len("file:")
	for start+1 < len(s) && s[start+1] == '/' {
		start++
	}
	if k, ok := r.knownAt(s[start:]); ok {
		end := pathEnd(s, start, start+len(k.dir))
		return end, r.replacement(s[start:end])
	}
	if start+1 < len(s) && isDrive(s[start+1:]) {
		return r.driveAt(s, start+1)
	}
	return pathEnd(s, start, start+1), PathMark
}

// isDrive reports whether s begins like C:\ or C:/.
func isDrive(s string) bool {
	return len(s) >= 3 && (s[0] >= 'A' && s[0] <= 'Z' || s[0] >= 'a' && s[0] <= 'z') && s[1] == ':' && (s[2] == '\\' || s[2] == '/')
}

func (r *Redactor) driveAt(s string, i int) (int, string) {
	if strings.HasPrefix(s[i+1:], "://") || s[i+2] == '\\' && i+3 < len(s) && strings.IndexByte("nrtds", s[i+3]) >= 0 && (i+4 == len(s) || !isSegment(s[i+4])) {
		return 0, "" // a scheme of one letter, or text with an escape after a colon
	}
	if i+3 == len(s) || !isSegment(s[i+3]) && s[i+3] != '\\' && s[i+3] != '$' {
		return i + 3, ""
	}
	end := windowsEnd(s, i, i+3)
	p := strings.ReplaceAll(strings.ReplaceAll(s[i:end], `\\`, "/"), `\`, "/")
	return end, r.replacement(p)
}
