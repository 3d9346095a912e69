package archtest

import (
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// The tree as it stands obeys.
func TestTree(t *testing.T) {
	found, err := Check(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, complaint := range found {
		t.Error(complaint)
	}
}

// Check sees the real tree: a loader that found nothing would also find nothing wrong.
func TestLoadSeesTheTree(t *testing.T) {
	packages, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	p := packages["internal/archtest"]
	if p == nil || !slices.Contains(p.imports, "go/parser") {
		t.Fatalf("internal/archtest as loaded: %+v", p)
	}
	if _, ok := packages["pkg/wire"]; !ok {
		t.Errorf("pkg/wire was not found among %v", slices.Sorted(maps.Keys(packages)))
	}
}

// What the compiler would link says the same as the sources: the broker's program has no way to open a sealed command.
func TestBrokerProgramDoesNotContainSeal(t *testing.T) {
	if _, err := os.Stat(root + "/cmd/broker"); os.IsNotExist(err) {
		t.Log("cmd/broker does not exist yet")
		return
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"/cmd/broker")
	var complaint strings.Builder
	list.Stderr = &complaint
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, complaint.String())
	}
	linked := strings.Fields(string(out))
	if !slices.Contains(linked, module+"/internal/broker") {
		t.Errorf("the list of what is linked does not even hold internal/broker")
	}
	for _, never := range sealing {
		if slices.Contains(linked, module+"/"+never) {
			t.Errorf("cmd/broker links %s", never)
		}
	}
}

// The newcomer's map names every package that has a place.
func TestDocumentNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range rows {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/architecture.md does not name `%s`", name)
		}
	}
}
