package redact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// ErrJSON is returned by JSON for bytes that are not one JSON value of at most
// MaxJSON bytes.
var ErrJSON = errors.New("not one JSON value within the size limit")

// JSON is Value for a document: numbers keep their digits, keys come out
// sorted. Nothing of a malformed document is returned.
func (r *Redactor) JSON(raw []byte) ([]byte, error) {
	if len(raw) > MaxJSON {
		return nil, ErrJSON
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, ErrJSON
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, ErrJSON
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(r.Value(v)); err != nil {
		return nil, ErrJSON
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Value returns the remote-safe view of a decoded JSON value (nil, bool,
// float64, json.Number, string, []any, map[string]any); anything else is
// taken out. v is not changed.
func (r *Redactor) Value(v any) any {
	w := &walk{r: r, left: MaxValue}
	return w.value(v, place{})
}

// walk is one pass over a value with what is left of its size.
type walk struct {
	r    *Redactor
	left int
}

// place is where in the value the walk is.
type place struct {
	depth int
	mcp   bool // inside the description of an MCP server
	kind  kind // what the nearest name says
}

const nodeCost = 8

// spend takes the cost of a text from what is left; marks are free, so that
// what was cut once is not cut further.
func (w *walk) spend(s string) bool {
	if slices.Contains(marks, s) {
		return true
	}
	w.left -= len(s) + nodeCost
	return w.left >= 0
}

func (w *walk) value(v any, at place) any {
	switch v := v.(type) {
	case nil, bool:
		return v
	case float64:
		return v
	case json.Number:
		return w.number(v, at)
	case string:
		return w.text(v, at)
	case []any:
		return w.array(v, at)
	case map[string]any:
		return w.object(v, at)
	}
	return TruncatedMark
}

// number keeps what a number is; a numeral of absurd length is no number.
func (w *walk) number(n json.Number, at place) any {
	if len(n) > 64 || !w.spend(string(n)) {
		return TruncatedMark
	}
	if at.kind == secret {
		return Mark
	}
	return n
}

func (w *walk) text(s string, at place) any {
	switch {
	case s == "" || slices.Contains(marks, s):
		return s
	case at.kind == secret, at.kind == tokens && !isNumeral(s):
		return Mark
	}
	if s = w.r.Text(s); !w.spend(s) {
		return TruncatedMark
	}
	return s
}

func (w *walk) array(list []any, at place) any {
	if at.depth >= MaxDepth {
		return TruncatedMark
	}
	at.depth++
	out := make([]any, 0, min(len(list), MaxArray))
	for i, v := range list {
		if len(list) > MaxArray && i == MaxArray-1 || w.left <= 0 {
			return append(out, TruncatedMark)
		}
		w.left -= nodeCost
		out = append(out, w.value(v, at))
	}
	return out
}

func (w *walk) object(m map[string]any, at place) any {
	if at.depth >= MaxDepth {
		return TruncatedMark
	}
	at.depth++
	shape := shapeOf(m)
	out := make(map[string]any, min(len(m), MaxObject))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if len(m) > MaxObject && len(out) == MaxObject-1 || w.left <= 0 {
			out[TruncatedMark] = TruncatedMark
			return out
		}
		name := w.key(key, out)
		out[name] = w.member(key, m[key], at, shape)
	}
	return out
}

// key returns the safe form of a key, unlike any that out has.
func (w *walk) key(key string, out map[string]any) string {
	name := w.r.text(key, MaxKey)
	unique := name
	for n := 2; ; n++ {
		if _, taken := out[unique]; !taken {
			w.spend(unique)
			return unique
		}
		suffix := fmt.Sprintf(" (%d)", n)
		unique = truncate(name, MaxKey-len(suffix)) + suffix
	}
}

// objectShape is what the keys of an object together say about it.
type objectShape struct {
	process bool // it describes how an MCP server is started
	file    bool // it describes a file, so that its content is a body
}

func shapeOf(m map[string]any) objectShape {
	var s objectShape
	processes := 0
	for key, v := range m {
		p := plain(key)
		if fileNames[p] {
			s.file = true
		}
		if mcpProcess[p] || mcpAlways[p] {
			processes++
			_, isList := v.([]any)
			s.process = s.process || p == "command" && isList
		}
		if t, ok := v.(string); ok && p == "type" && (t == "stdio" || t == "local") {
			s.process = true
		}
	}
	s.process = s.process || processes >= 2
	return s
}

// member redacts one value of an object by its key, then by its content.
func (w *walk) member(key string, v any, at place, shape objectShape) any {
	p := plain(key)
	switch {
	case isEmpty(v):
		return v
	case !w.r.o.ExposeMCP && (mcpAlways[p] || mcpProcess[p] && (at.mcp || shape.process)):
		return MCPMark
	case !w.r.o.ExposeArtifacts && (bodyAlways[p] || shape.file && isBody(p, v)):
		return ArtifactMark
	}
	at.mcp = at.mcp || slices.Contains(words(key), "mcp") || strings.HasPrefix(p, "mcpserver")
	switch k := nameKind(key); {
	case k == secret:
		return w.secretMember(p, v)
	case strings.HasSuffix(p, "auth") && isRandom(v):
		return Mark
	case k != harmless || at.kind != tokens:
		at.kind = k
	}
	return w.value(v, at)
}

// isBody says whether a member of a file's description is the file's content:
// a text, or OpenCode's {text: {value, start, end}}.
func isBody(key string, v any) bool {
	if _, isText := v.(string); isText {
		return bodyOfFile[key]
	}
	_, isObject := v.(map[string]any)
	return isObject && key == "text"
}

// isRandom tells the text of a login from the name of its method.
func isRandom(v any) bool {
	s, ok := v.(string)
	return ok && len(s) >= 16 && random(s)
}

// secretMember keeps only what cannot be a secret: a switch, and how many
// tests pass.
func (w *walk) secretMember(key string, v any) any {
	_, isSwitch := v.(bool)
	_, isText := v.(string)
	if isSwitch || key == "pass" && !isText {
		return w.value(v, place{depth: MaxDepth})
	}
	return Mark
}

func isEmpty(v any) bool { return v == nil || v == "" }

func isNumeral(s string) bool {
	return s != "" && len(s) <= 20 && strings.Trim(s, "0123456789.,_ kKmM%") == ""
}
