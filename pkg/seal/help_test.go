package seal

import (
	"encoding/json"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

const origin = "https://broker.example.com"

var start = time.UnixMilli(1_764_000_000_000)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// pair is a desktop and a surface with a grant.
type pair struct {
	d     *Desktop
	s     *Surface
	grant proof.Grant
}

func newPair(t testing.TB, highest proof.Scope) pair {
	t.Helper()
	p := pair{d: must(NewDesktop(start))(t), s: must(NewSurface())(t)}
	p.grant = proof.Grant{
		Pairing: p.d.Pairing(), Surface: p.s.ID(p.d.Pairing()), Ssig: p.s.Ssig(), Skem: p.s.Skem(),
		Scopes: proof.ScopesUpTo(highest), Serial: 1, Issued: start.UnixMilli(), NotAfter: start.Add(proof.GrantLife).UnixMilli(),
		Transcript: proof.Digest{7},
	}
	return p
}

func (p pair) bundle(t testing.TB) proof.Bundle {
	t.Helper()
	return must(proof.OpenBundle(p.d.Dsig(), p.d.Bundle()))(t)
}

func (p pair) command(t testing.TB, kind proof.Kind, payload string, chain proof.Chain) proof.Envelope {
	t.Helper()
	raw := must(p.s.SealCommand(p.bundle(t), Command{Kind: kind, Payload: []byte(payload), Iat: start, Exp: start.Add(kind.Life())}, chain))(t)
	return must(proof.ParseEnvelope(raw))(t)
}

func (p pair) now(chain proof.Chain) Case {
	return Case{Grant: p.grant, Chain: chain, Now: start, Last: start, Broker: start}
}

// carry sends a message as JSON, as the broker does.
func carry[M proof.Message](t testing.TB, m M) M {
	t.Helper()
	raw := must(json.Marshal(m))(t)
	return must(proof.ParseMessage[M](raw))(t)
}
