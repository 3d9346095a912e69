package topology

import (
	"slices"
	"testing"

	"cowork.example.com/broker/pkg/proof"
)

// The registry and the protocol state the same kinds and scopes: neither can drift from the other.
func TestRegistryIsTheProtocolsTable(t *testing.T) {
	var kinds []proof.Kind
	for _, row := range Capabilities(DesktopLocal, Sealed) {
		kinds = append(kinds, row.Kind)
		if row.Scope != row.Kind.Scope() {
			t.Errorf("%s needs %s here and %s in the protocol", row.Kind, row.Scope, row.Kind.Scope())
		}
	}
	if !slices.Equal(kinds, proof.Kinds()) {
		t.Errorf("registry has %v, the protocol %v", kinds, proof.Kinds())
	}
}

func TestNothingIsOfferedElsewhere(t *testing.T) {
	if rows := Capabilities("cloud_worker", Sealed); rows != nil {
		t.Errorf("cloud_worker offers %v", rows)
	}
	if names := Kinds(DesktopLocal, "plain"); names != nil {
		t.Errorf("an unknown channel offers %v", names)
	}
}

func TestDispatchHasOnlyWhatHasARowAndAHandler(t *testing.T) {
	asked := 0
	table := Dispatch(DesktopLocal, Sealed, func(c Capability) (string, bool) {
		asked++
		return c.Kind.String(), c.Kind != proof.History
	})
	if asked != len(proof.Kinds()) || len(table) != asked-1 {
		t.Fatalf("asked %d times, built %d entries", asked, len(table))
	}
	if _, ok := table[proof.History]; ok {
		t.Error("a capability without a handler got an entry")
	}
	if table[proof.Prompt] != "prompt" {
		t.Errorf("prompt dispatches to %q", table[proof.Prompt])
	}
}
