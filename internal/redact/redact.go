package redact

import (
	"path"
	"slices"
	"strings"
)

// The markers that stand for what was taken out. Redacting them again changes
// nothing.
const (
	PathMark      = "[local-path-redacted]"
	MCPMark       = "[local-mcp-detail-redacted]"
	ArtifactMark  = "[artifact-body-redacted]"
	TruncatedMark = "[truncated]"
)

var marks = []string{Mark, PathMark, MCPMark, ArtifactMark, TruncatedMark}

// The limits of what leaves the desktop in one value.
const (
	MaxText   = 16 << 10  // bytes of one string, its truncation mark included
	MaxKey    = 256       // bytes of one object key
	MaxArray  = 50        // elements of one array, the mark included
	MaxObject = 100       // keys of one object, the mark included
	MaxDepth  = 12        // arrays and objects inside each other
	MaxValue  = 256 << 10 // bytes of all texts of one value, 8 a node added
	MaxJSON   = 4 << 20   // bytes of a document that is read at all
)

// lookahead is how far beyond MaxText a text is searched, so that a secret
// across the limit is seen whole.
const lookahead = 4 << 10

// Options say what the policy exposes and what is known of the desktop. The
// zero value exposes nothing.
type Options struct {
	ExposePaths     bool              // local paths stay as they are
	ExposeArtifacts bool              // file bodies, diffs and data: URLs stay
	ExposeMCP       bool              // commands, arguments and environment of MCP servers stay
	Home            string            // the user's home: always a local path, wherever it is
	Projects        map[string]string // folder -> name: a path inside is shown as NAME:relative/path
}

// Redactor makes values remote-safe under one set of Options. It is immutable
// and safe for concurrent use. Secrets are taken out whatever the options are.
type Redactor struct {
	o     Options
	known []known // Home and projects, longest first
}

// known is a folder whose paths are recognised whatever they look like.
type known struct {
	dir, name string // name is "" for the home
}

// New returns a Redactor. Relative or root folders in o are ignored: they
// would match everywhere.
func New(o Options) *Redactor {
	r := &Redactor{o: o}
	add := func(dir, name string) {
		if dir = cleanDir(dir); dir != "" {
			r.known = append(r.known, known{dir, name})
		}
	}
	add(o.Home, "")
	for dir, name := range o.Projects {
		add(dir, name)
	}
	slices.SortFunc(r.known, func(a, b known) int {
		if d := len(b.dir) - len(a.dir); d != 0 {
			return d
		}
		return strings.Compare(b.dir+"\x00"+b.name, a.dir+"\x00"+a.name) // a project before the home
	})
	return r
}

func cleanDir(dir string) string {
	if isDrive(dir) {
		return strings.TrimRight(strings.ReplaceAll(dir, `\`, "/"), "/")
	}
	if !strings.HasPrefix(dir, "/") || path.Clean(dir) == "/" {
		return ""
	}
	return path.Clean(dir)
}

// Text returns the remote-safe view of a string: a part of a value, a result,
// an error text. It is never longer than MaxText.
func (r *Redactor) Text(s string) string { return r.text(s, MaxText) }

func (r *Redactor) text(s string, limit int) string {
	cut := len(s) > limit+lookahead
	if cut {
		s = cutWord(s[:limit+lookahead])
	}
	s = settle(s, r.spans)
	if cut {
		s += TruncatedMark
	}
	if len(s) <= limit {
		return s
	}
	// What is left of a shape at the cut may look like another one.
	return settle(truncate(s, limit), r.spans, limit)
}

// spans finds everything that has to go.
func (r *Redactor) spans(s string) []span {
	found := secretSpans(s)
	if !r.o.ExposeArtifacts {
		found = append(found, artifactSpans(s)...)
	}
	if !r.o.ExposePaths {
		found = append(found, r.pathSpans(s)...)
	}
	return found
}

// Secrets returns s without its secrets, at any length: for text that stays on
// this machine, as an error line or a log.
func Secrets(s string) string { return settle(s, secretSpans) }

// HasSecret reports whether s holds something of the shape of a secret.
func HasSecret(s string) bool { return len(secretSpans(s)) > 0 }
