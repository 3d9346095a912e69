// Package topology holds the registry of capabilities: one table of what can be asked for, by whom, of whom. The
// broker's router and the agent's dispatch are built by ranging over it, so that neither can offer what does not
// stand here.
package topology

import "cowork.example.com/broker/pkg/proof"

// Authority says who runs OpenCode for a workspace.
type Authority string

// DesktopLocal is the desktop itself.
const DesktopLocal Authority = "desktop_local"

// Channel says how a surface reaches the authority.
type Channel string

// Sealed commands pass a broker that cannot read them.
const Sealed Channel = "sealed"

// Capability is one row: a kind of command that surfaces of a channel may ask of an authority.
type Capability struct {
	Kind      proof.Kind
	Authority Authority
	Scope     proof.Scope // what the sender's grant must have; a surface may always revoke itself
	Channel   Channel
	Repeats   bool // asking twice does no more than asking once
}

var registry = []Capability{
	{proof.CreateSession, DesktopLocal, proof.ScopePrompt, Sealed, false},
	{proof.Prompt, DesktopLocal, proof.ScopePrompt, Sealed, false},
	{proof.Abort, DesktopLocal, proof.ScopePrompt, Sealed, true},
	{proof.PermissionRespond, DesktopLocal, proof.ScopeDecide, Sealed, false},
	{proof.QuestionReply, DesktopLocal, proof.ScopeDecide, Sealed, false},
	{proof.QuestionReject, DesktopLocal, proof.ScopeDecide, Sealed, false},
	{proof.Status, DesktopLocal, proof.ScopeObserve, Sealed, true},
	{proof.RevokePairing, DesktopLocal, proof.ScopeDecide, Sealed, true},
	{proof.History, DesktopLocal, proof.ScopeObserve, Sealed, true},
	{proof.RevokeSurface, DesktopLocal, proof.ScopeDecide, Sealed, true},
}

// Capabilities returns the rows of one authority and channel, in the order of their kinds.
func Capabilities(a Authority, c Channel) []Capability {
	var rows []Capability
	for _, row := range registry {
		if row.Authority == a && row.Channel == c {
			rows = append(rows, row)
		}
	}
	return rows
}

// Kinds returns the names of the kinds which an authority takes over a channel: what a desktop states in its hello.
func Kinds(a Authority, c Channel) []string {
	var names []string
	for _, row := range Capabilities(a, c) {
		names = append(names, row.Kind.String())
	}
	return names
}

// Dispatch builds a table of handlers by ranging over the registry: it asks for one handler per capability, and what
// has no handler, or no row, has no entry.
func Dispatch[H any](a Authority, c Channel, handler func(Capability) (H, bool)) map[proof.Kind]H {
	table := map[proof.Kind]H{}
	for _, row := range Capabilities(a, c) {
		if h, ok := handler(row); ok {
			table[row.Kind] = h
		}
	}
	return table
}
