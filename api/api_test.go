package api

import (
	"reflect"
	"regexp"
	"slices"
	"testing"

	"cowork.example.com/broker/pkg/wire"
	"github.com/getkin/kin-openapi/openapi3"
)

func load(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDocumentIsValid(t *testing.T) {
	if err := load(t).Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Every path constant of wire is documented, and nothing else is.
func TestPathsAreThoseOfWire(t *testing.T) {
	want := []string{
		wire.PathBroker, wire.PathEnrol, wire.PathTunnelNonce, wire.PathTunnel, wire.PathLinkClaim, wire.PathLinkReveal,
		wire.PathLinkGrant, wire.PathLinkFinish, wire.PathLinkCancel, wire.PathAuthNonce, wire.PathAuthToken, wire.PathPairing,
		wire.PathCommands, wire.PathCommand, wire.PathCancel, wire.PathResolve, wire.PathRequests, wire.PathRevokeSelf,
		wire.PathStreams, wire.PathPage, wire.PathHealth, wire.PathOpCodes, wire.PathOpCodeRevoke, wire.PathOpPairings,
		wire.PathOpPairing, wire.PathOpPairingLock, wire.PathOpPairingUnlock, wire.PathOpPairingRevoke,
		wire.PathOpSurfaces, wire.PathOpSurfaceRevoke, wire.PathOpAudit, wire.PathOpLimits,
	}
	got := load(t).Paths.Keys()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("documented %q\nwire       %q", got, want)
	}
}

// The fields of each documented object are those of the wire struct of the same name.
func TestSchemasAreTheStructsOfWire(t *testing.T) {
	doc := load(t)
	for _, v := range []any{
		wire.Problem{},
		wire.BrokerInfo{},
		wire.EnrolRequest{},
		wire.EnrolReply{},
		wire.Limits{},
		wire.TunnelNonceRequest{},
		wire.Nonce{},
		wire.LinkClaimRequest{},
		wire.LinkClaimReply{},
		wire.LinkRevealRequest{},
		wire.LinkGrantRequest{},
		wire.LinkGrantReply{},
		wire.LinkFinishRequest{},
		wire.AuthNonceRequest{},
		wire.AuthTokenRequest{},
		wire.AuthToken{},
		wire.PairingState{},
		wire.CommandPost{},
		wire.Command{},
		wire.Resolve{},
		wire.StreamEvent{},
		wire.EpochBox{},
		wire.Beat{},
		wire.StreamGap{},
		wire.OpenRequests{},
		wire.StreamSubscribe{},
		wire.CodeIssue{},
		wire.CodeIssued{},
		wire.EnrolmentCode{},
		wire.OperatorPairing{},
		wire.OperatorSurface{},
		wire.AuditPage{},
	} {
		typ := reflect.TypeOf(v)
		schema := doc.Components.Schemas[typ.Name()]
		if schema == nil {
			t.Errorf("%s is not documented", typ.Name())
			continue
		}
		compare(t, typ, schema.Value)
	}
}

var tag = regexp.MustCompile(`^([a-z_0-9]+)(,omitempty)?$`)

func compare(t *testing.T, typ reflect.Type, schema *openapi3.Schema) {
	t.Helper()
	var fields []string
	for i := range typ.NumField() {
		m := tag.FindStringSubmatch(typ.Field(i).Tag.Get("json"))
		if m == nil {
			t.Fatalf("%s.%s has no plain json tag", typ.Name(), typ.Field(i).Name)
		}
		fields = append(fields, m[1])
		if optional := m[2] != ""; optional == slices.Contains(schema.Required, m[1]) {
			t.Errorf("%s.%s: omitempty is %v, required is %v", typ.Name(), m[1], optional, !optional)
		}
	}
	for name := range schema.Properties {
		if !slices.Contains(fields, name) {
			t.Errorf("%s.%s is documented and does not exist", typ.Name(), name)
		}
	}
	if len(fields) != len(schema.Properties) {
		t.Errorf("%s has %d fields, %d are documented", typ.Name(), len(fields), len(schema.Properties))
	}
}
