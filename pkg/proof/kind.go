package proof

import (
	"fmt"
	"time"
)

// Kind is what a command asks for; its byte stands in the envelope's header and alone selects parser, scope, expiry
// and executor (section 4). Zero is no kind.
type Kind byte

// The kinds: the contract's eight, then what our agent adds.
const (
	CreateSession     Kind = 1
	Prompt            Kind = 2
	Abort             Kind = 3
	PermissionRespond Kind = 4
	QuestionReply     Kind = 5
	QuestionReject    Kind = 6
	Status            Kind = 7
	RevokePairing     Kind = 8
	History           Kind = 9
	RevokeSurface     Kind = 10
)

// kinds is the table of sections 3 and 4: name, the scope that it needs, the longest exp - iat.
var kinds = [...]struct {
	name  string
	scope Scope
	life  time.Duration
}{
	CreateSession:     {"create_session", ScopePrompt, 24 * time.Hour},
	Prompt:            {"prompt", ScopePrompt, 24 * time.Hour},
	Abort:             {"abort", ScopePrompt, 2 * time.Minute},
	PermissionRespond: {"permission.respond", ScopeDecide, 10 * time.Minute},
	QuestionReply:     {"question.reply", ScopeDecide, time.Hour},
	QuestionReject:    {"question.reject", ScopeDecide, time.Hour},
	Status:            {"status", ScopeObserve, 5 * time.Minute},
	RevokePairing:     {"revoke_pairing", ScopeDecide, 24 * time.Hour},
	History:           {"history", ScopeObserve, 5 * time.Minute},
	RevokeSurface:     {"revoke_surface", ScopeDecide, 24 * time.Hour},
}

// Kinds returns every kind in the order of its byte.
func Kinds() []Kind {
	all := make([]Kind, 0, len(kinds)-1)
	for k := range kinds[1:] {
		all = append(all, Kind(k+1))
	}
	return all
}

// ParseKind reads a name, for example "permission.respond".
func ParseKind(name string) (Kind, error) {
	for k, row := range kinds {
		if k > 0 && row.name == name {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("%w: no such kind", ErrForm)
}

// Valid reports whether k is in the table.
func (k Kind) Valid() bool { return k > 0 && int(k) < len(kinds) }

// String returns the name, or kind(N).
func (k Kind) String() string {
	if !k.Valid() {
		return fmt.Sprintf("kind(%d)", byte(k))
	}
	return kinds[k].name
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) {
	if !k.Valid() {
		return nil, fmt.Errorf("%w: no such kind", ErrForm)
	}
	return []byte(k.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Kind) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKind(string(text))
	return err
}

// Scope returns what a surface needs to send k; zero for no kind, which no grant has. A surface may always revoke
// itself: only whoever can read the payload knows that (Scopes.Allow).
func (k Kind) Scope() Scope {
	if !k.Valid() {
		return 0
	}
	return kinds[k].scope
}

// Life returns the longest exp - iat of k; zero for no kind.
func (k Kind) Life() time.Duration {
	if !k.Valid() {
		return 0
	}
	return kinds[k].life
}
