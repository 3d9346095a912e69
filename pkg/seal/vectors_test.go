package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/cryptotest"

	"cowork.example.com/broker/pkg/proof"
)

// The vectors of section 8. `go test ./pkg/seal -run TestVectors -update` makes new ones; the committed bytes are what
// counts, since Go does not promise the same random bytes in its next version. The ordinary test only reads them.
var update = flag.Bool("update", false, "write testdata/vectors/v1")

const vectorDir = "testdata/vectors/v1"

// hx is bytes that stand in a vector as hex.
type hx []byte

func (h hx) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hx) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func writeVector(t *testing.T, name, about string, v any) {
	t.Helper()
	out := must(json.MarshalIndent(struct {
		V     int    `json:"v"`
		About string `json:"about"`
		Cases any    `json:"cases"`
	}{1, about, v}, "", "  "))(t)
	if err := os.MkdirAll(vectorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vectorDir, name), append(out, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readVector[C any](t *testing.T, name string) []C {
	t.Helper()
	raw := must(os.ReadFile(filepath.Join(vectorDir, name)))(t)
	var file struct {
		V     int
		About string
		Cases []C
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil || file.V != 1 || len(file.Cases) == 0 {
		t.Fatalf("%s: version %d, %d cases, %v", name, file.V, len(file.Cases), err)
	}
	return file.Cases
}

// same compares one value of a vector.
func same(t *testing.T, name string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %x\nwant %x", name, got, want)
	}
}

func TestVectors(t *testing.T) {
	if *update {
		cryptotest.SetGlobalRandom(t, 42)
		writeVector(t, "command.json", "A surface's envelopes: one row, sealed to one bundle. Times are Unix ms.", makeCommands(t))
		writeVector(t, "linking.json", "Whole linkings, in both modes, message by message.", makeLinkings(t))
		writeVector(t, "events.json", "A result, an epoch's announcement and batches, sealed to one surface.", makeEvents(t))
		writeVector(t, "auth.json", "Signing in, revoking, beats and digests.", makeAuth(t))
		writeVector(t, "negative.json", "What must be refused, and as what.", makeNegatives(t))
	}
	t.Run("command", checkCommands)
	t.Run("linking", checkLinkings)
	t.Run("events", checkEvents)
	t.Run("auth", checkAuth)
	t.Run("negative", checkNegatives)
}

// hpkeSteps is RFC 9180 for suite 1 in base mode by hand, from the recipient's side: what crypto/hpke does inside.
type hpkeSteps struct {
	Enc          hx `json:"enc"`
	DH           hx `json:"dh"`
	SharedSecret hx `json:"shared_secret"`
	Key          hx `json:"key"`
	BaseNonce    hx `json:"base_nonce"`
}

func hpkeByHand(t testing.TB, priv, enc, info []byte) hpkeSteps {
	t.Helper()
	return hpkeWith(t, 2, 32, priv, enc, info)
}

// hpkeWith is the same for any AEAD of RFC 9180, named by its id and key length.
func hpkeWith(t testing.TB, aead byte, keySize int, priv, enc, info []byte) hpkeSteps {
	t.Helper()
	kem := append([]byte("KEM"), 0, 0x20)
	suite := append([]byte("HPKE"), 0, 0x20, 0, 1, 0, aead)
	extract := func(suite, salt []byte, label string, ikm []byte) []byte {
		in := append(append(append([]byte("HPKE-v1"), suite...), label...), ikm...)
		return must(hkdf.Extract(sha256.New, in, salt))(t)
	}
	expand := func(suite, prk []byte, label string, info []byte, n int) []byte {
		in := append(binary.BigEndian.AppendUint16(nil, uint16(n)), "HPKE-v1"...)
		in = append(append(append(in, suite...), label...), info...)
		return must(hkdf.Expand(sha256.New, prk, string(in), n))(t)
	}
	key := must(ecdh.X25519().NewPrivateKey(priv))(t)
	dh := must(key.ECDH(must(ecdh.X25519().NewPublicKey(enc))(t)))(t)
	context := append(bytes.Clone(enc), key.PublicKey().Bytes()...)
	shared := expand(kem, extract(kem, nil, "eae_prk", dh), "shared_secret", context, 32)
	schedule := append([]byte{0}, extract(suite, nil, "psk_id_hash", nil)...)
	schedule = append(schedule, extract(suite, nil, "info_hash", info)...)
	secret := extract(suite, shared, "secret", nil)
	return hpkeSteps{
		Enc: enc, DH: dh, SharedSecret: shared,
		Key: expand(suite, secret, "key", schedule, keySize), BaseNonce: expand(suite, secret, "base_nonce", schedule, 12),
	}
}

func (s hpkeSteps) open(t testing.TB, aad, ct []byte) []byte {
	t.Helper()
	aead := must(cipher.NewGCM(must(aes.NewCipher(s.Key))(t)))(t)
	return must(aead.Open(nil, s.BaseNonce, ct, aad))(t)
}

// keySteps is everybody's keys, as a vector has them.
type keySteps struct {
	DsigSeed hx     `json:"dsig_seed"`
	Dsig     hx     `json:"dsig"`
	DkemPriv hx     `json:"dkem_priv"`
	Dkem     hx     `json:"dkem"`
	Number   uint64 `json:"bundle_number"`
	Issued   int64  `json:"bundle_issued"`
	NotAfter int64  `json:"bundle_not_after"`
	Bundle   hx     `json:"bundle"`
	SsigSeed hx     `json:"ssig_seed"`
	Ssig     hx     `json:"ssig"`
	SkemPriv hx     `json:"skem_priv"`
	Skem     hx     `json:"skem"`
	Pairing  hx     `json:"pairing"`
	Surface  hx     `json:"surface"`
}

func keysOf(d *Desktop, s *Surface) keySteps {
	b, dsig, ssig, skem, p := d.bundles[0], d.Dsig(), s.Ssig(), s.Skem(), d.Pairing()
	id := s.ID(p)
	return keySteps{
		DsigSeed: d.sign.Seed(), Dsig: dsig[:], DkemPriv: b.priv[:], Dkem: b.Key[:], Number: b.Number, Issued: b.Issued,
		NotAfter: b.NotAfter, Bundle: b.signed, SsigSeed: s.sign.Seed(), Ssig: ssig[:], SkemPriv: s.priv[:], Skem: skem[:],
		Pairing: p[:], Surface: id[:],
	}
}

// load makes both ends of the private halves alone and holds every public value against them.
func (k keySteps) load(t *testing.T) pair {
	t.Helper()
	var d, s proof.Encoder
	d.Byte(1).Field(k.DsigSeed).Uint(1).Uint(k.Number).Field(k.DkemPriv).Time(k.Issued).Time(k.NotAfter)
	s.Byte(1).Field(k.SsigSeed).Field(k.SkemPriv)
	p := pair{d: must(LoadDesktop(d.Bytes()))(t), s: must(LoadSurface(s.Bytes()))(t)}
	got := keysOf(p.d, p.s)
	for name, v := range map[string][2]hx{
		"dsig": {got.Dsig, k.Dsig}, "dkem": {got.Dkem, k.Dkem}, "bundle": {got.Bundle, k.Bundle}, "ssig": {got.Ssig, k.Ssig},
		"skem": {got.Skem, k.Skem}, "pairing": {got.Pairing, k.Pairing}, "surface": {got.Surface, k.Surface},
	} {
		same(t, name, v[0], v[1])
	}
	p.grant = proof.Grant{
		Pairing: p.d.Pairing(), Surface: p.s.ID(p.d.Pairing()), Ssig: p.s.Ssig(), Skem: p.s.Skem(),
		Scopes: proof.ScopesUpTo(proof.ScopeDecide), Serial: 1, Issued: start.UnixMilli(), NotAfter: start.Add(proof.GrantLife).UnixMilli(),
	}
	return p
}
