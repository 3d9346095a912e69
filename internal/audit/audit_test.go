package audit

import (
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

var update = flag.Bool("update", false, "write docs/audit-events.md")

const document = "../../docs/audit-events.md"

func TestDocumentIsTheTable(t *testing.T) {
	if *update {
		if err := os.MkdirAll("../../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(document, []byte(Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(document)
	if err != nil || string(got) != Document() {
		t.Errorf("%s differs from the table (%v); run: go test ./internal/audit -update", document, err)
	}
}

// TestEveryConstantIsInTheTable reads types.go, since a constant that is missing from the table would have no code
// and could not be written.
func TestEveryConstantIsInTheTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != "Type" {
			return true
		}
		constants++
		name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil || Type(name).Code() == "" {
			t.Errorf("%q has no code (%v)", name, err)
		}
		return true
	})
	if constants != len(kinds) || constants < 45 {
		t.Errorf("%d constants, %d rows", constants, len(kinds))
	}
}

func TestTableIsWellFormed(t *testing.T) {
	code, name := regexp.MustCompile(`^[A-Z]\d\d$`), regexp.MustCompile(`^[a-z]+\.[a-z_]+$`)
	seen := map[string]bool{}
	for _, k := range kinds {
		if !code.MatchString(k.Code) || !name.MatchString(string(k.Type)) || !strings.HasSuffix(k.Meaning, ".") {
			t.Errorf("malformed row %+v", k)
		}
		if k.Where != "broker" && k.Where != "desktop" && k.Where != "both" {
			t.Errorf("%s: in whose log is %q?", k.Type, k.Where)
		}
		if seen[k.Code] || seen[string(k.Type)] {
			t.Errorf("%s %s stands twice", k.Code, k.Type)
		}
		seen[k.Code], seen[string(k.Type)] = true, true
	}
}

func TestLineKeepsPeopleOutOfTheLog(t *testing.T) {
	r := Record{
		Type: CommandQueued, Time: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.FixedZone("", 3600)), Pairing: "pp",
		Actor:  Actor{Kind: Surface, ID: "ss", Label: "Anna's phone", Key: "kk"},
		Target: wire.AuditTarget{Kind: Command, ID: "cmd_1"},
		Source: Source{IP: "192.0.2.7", UA: "Browser 1"},
	}
	e := Build(r)
	line, err := e.Encode(7)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"Anna", "192.0.2.7", "Browser"} {
		if strings.Contains(string(line), secret) {
			t.Errorf("the line says %q: %s", secret, line)
		}
	}
	if len(e.Values) != 3 {
		t.Fatalf("%d values", len(e.Values))
	}
	for _, v := range e.Values {
		if !v.Holds() || !strings.Contains(string(line), v.Commitment) {
			t.Errorf("%s: the line does not commit to %q", v.Field, v.Text)
		}
		other := v
		other.Text += "x"
		if other.Holds() {
			t.Errorf("%s: commits to anything", v.Field)
		}
		other = v
		other.Salt[0]++
		if other.Holds() {
			t.Errorf("%s: the salt does not count", v.Field)
		}
	}
	if again := Build(r); again.Values[1].Commitment == e.Values[1].Commitment || again.Line.ID == e.Line.ID {
		t.Error("two lines share a salt or an id, so that equal addresses show")
	}
}

func TestLineBytes(t *testing.T) {
	e := Build(Record{
		Type: CommandEnded, Time: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), Outcome: Failure, Reason: "expired",
		Pairing: "pp", Actor: Actor{Kind: Broker, ID: "b"}, Target: wire.AuditTarget{Kind: Command, ID: "cmd_1"},
		Command: &wire.AuditCommand{ID: "cmd_1", Kind: "prompt", EnvelopeSHA256: "e", Commit: "c", Seq: 3},
		Diff:    json.RawMessage(`{"a":1}`),
	})
	e.Line.ID = "aud_X"
	got, err := e.Encode(42)
	want := `{"v":1,"seq":42,"time":"2026-01-02T03:04:05.006Z","id":"aud_X","type":"command.ended","code":"C09",` +
		`"outcome":"failure","reason":"expired","pairing":"pp","actor":{"kind":"broker","id":"b","label":"","key":""},` +
		`"target":{"kind":"command","id":"cmd_1"},"command":{"id":"cmd_1","kind":"prompt","envelope_sha256":"e","commit":"c","seq":3},` +
		`"source":{"ip":"","ua":""},"policy_version":0,"diff":{"a":1}}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s (%v)\nwant %s", got, err, want)
	}
}

func TestUnknownTypeIsRefused(t *testing.T) {
	for _, e := range []Entry{{}, Build(Record{Type: "command.invented", Time: time.Unix(0, 0)})} {
		if line, err := e.Encode(1); err == nil {
			t.Errorf("encoded %s", line)
		}
	}
}
