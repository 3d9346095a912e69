package proof

import "fmt"

// LinkState is where a linking session stands, by the same eight words at the desktop, the broker and the surface.
// Each end has its own table of what moves it (pkg/seal, pkg/pairing).
type LinkState byte

// The states (section 3). The last four are final.
const (
	LinkOpen      LinkState = iota + 1 // opened by the owner; nobody has claimed
	LinkClaimed                        // claimed, once and for all
	LinkRevealed                       // the surface showed its keys; digits are awaited
	LinkConfirmed                      // digits were right; the grant is on its way
	LinkDone                           // the surface took the grant
	LinkBurned                         // something was wrong: a second claim, tries used up, a check failed
	LinkExpired                        // LinkLife passed
	LinkCancelled                      // the owner, or the person at the surface, gave up
)

var linkStates = [...]string{
	LinkOpen: "open", LinkClaimed: "claimed", LinkRevealed: "revealed", LinkConfirmed: "confirmed",
	LinkDone: "done", LinkBurned: "burned", LinkExpired: "expired", LinkCancelled: "cancelled",
}

// LinkStates returns all eight.
func LinkStates() []LinkState {
	all := make([]LinkState, 0, len(linkStates)-1)
	for s := LinkOpen; s <= LinkCancelled; s++ {
		all = append(all, s)
	}
	return all
}

// ParseLinkState reads a name.
func ParseLinkState(name string) (LinkState, error) {
	for s, n := range linkStates {
		if s > 0 && n == name {
			return LinkState(s), nil
		}
	}
	return 0, fmt.Errorf("%w: no such linking state", ErrForm)
}

// Valid reports whether s is one of the eight.
func (s LinkState) Valid() bool { return s >= LinkOpen && s <= LinkCancelled }

// Final reports whether nothing moves s any more.
func (s LinkState) Final() bool { return s >= LinkDone && s <= LinkCancelled }

// String returns the name, or state(N).
func (s LinkState) String() string {
	if !s.Valid() {
		return fmt.Sprintf("state(%d)", byte(s))
	}
	return linkStates[s]
}
