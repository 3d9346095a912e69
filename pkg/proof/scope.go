package proof

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Scope is one thing that a grant allows. Zero is none.
type Scope byte

// The scopes (section 3). None implies another one: a grant carries a list.
const (
	ScopeObserve Scope = 1 // status, history
	ScopePrompt  Scope = 2 // create_session, prompt, abort
	ScopeDecide  Scope = 3 // permission.respond, question.*, revoke_surface of another, revoke_pairing
)

var scopeNames = [...]string{ScopeObserve: "observe", ScopePrompt: "prompt", ScopeDecide: "decide"}

// ParseScope reads a name.
func ParseScope(name string) (Scope, error) {
	if i := slices.Index(scopeNames[1:], name); i >= 0 {
		return Scope(i + 1), nil
	}
	return 0, fmt.Errorf("%w: a scope is observe, prompt or decide", ErrForm)
}

// Valid reports whether s is one of the three.
func (s Scope) Valid() bool { return s > 0 && int(s) < len(scopeNames) }

// String returns the name, or scope(N).
func (s Scope) String() string {
	if !s.Valid() {
		return fmt.Sprintf("scope(%d)", byte(s))
	}
	return scopeNames[s]
}

// MarshalText implements encoding.TextMarshaler.
func (s Scope) MarshalText() ([]byte, error) {
	if !s.Valid() {
		return nil, fmt.Errorf("%w: no such scope", ErrForm)
	}
	return []byte(s.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Scope) UnmarshalText(text []byte) (err error) {
	*s, err = ParseScope(string(text))
	return err
}

// Scopes is a grant's list, ascending and without repetition.
type Scopes []Scope

// ScopesUpTo returns the list that the linking's question leads to: [observe prompt] for ScopePrompt, all three for
// ScopeDecide.
func ScopesUpTo(highest Scope) Scopes {
	var list Scopes
	for s := ScopeObserve; s <= highest && s.Valid(); s++ {
		list = append(list, s)
	}
	return list
}

// ParseScopes reads names in any order.
func ParseScopes(names []string) (Scopes, error) {
	var list Scopes
	for _, name := range names {
		s, err := ParseScope(name)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// Names returns the list's names.
func (l Scopes) Names() []string {
	names := make([]string, len(l))
	for i, s := range l {
		names[i] = s.String()
	}
	return names
}

// Has reports whether s is in the list.
func (l Scopes) Has(s Scope) bool { return s.Valid() && slices.Contains(l, s) }

// Allow reports whether a grant with this list covers a command of kind k. self says that k is a revoke_surface
// which names its sender: every surface may end itself. The broker cannot read the payload of a sealed command and
// passes true; the desktop decides.
func (l Scopes) Allow(k Kind, self bool) bool {
	return (k == RevokeSurface && self) || l.Has(k.Scope())
}

// MarshalJSON writes the names; an empty list is [].
func (l Scopes) MarshalJSON() ([]byte, error) { return json.Marshal(l.Names()) }

// encode is one byte a scope.
func (l Scopes) encode() []byte {
	b := make([]byte, len(l))
	for i, s := range l {
		b[i] = byte(s)
	}
	return b
}

// scopes decodes a list: known, ascending, at least one.
func (d *Decoder) scopes() Scopes {
	field := d.Field(len(scopeNames) - 1)
	list := make(Scopes, len(field))
	for i, b := range field {
		list[i] = Scope(b)
		d.check(list[i].Valid() && (i == 0 || list[i] > list[i-1]), "scopes are known and ascending")
	}
	d.check(len(list) > 0, "a scope list has at least one scope")
	return list
}
