package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"cowork.example.com/broker/pkg/proof"
)

// RFC 9180, appendix A.1.1: the only vector for X25519 and HKDF-SHA256 that the text prints with every step. Its AEAD
// is AES-128-GCM; KEM and key schedule are ours.
func TestRFC9180StepByStep(t *testing.T) {
	h := func(s string) []byte { return must(hex.DecodeString(s))(t) }
	steps := hpkeWith(t, 1, 16, h("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"),
		h("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"), h("4f6465206f6e2061204772656369616e2055726e"))
	same(t, "shared_secret", steps.SharedSecret, h("fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc"))
	same(t, "key", steps.Key, h("4531685d41d65f03dc48f6b8302c05b0"))
	same(t, "base_nonce", steps.BaseNonce, h("56d890e5accaaf011cff4b7d"))
	ct := h("f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a")
	same(t, "pt", steps.open(t, []byte("Count-0"), ct), []byte("Beauty is truth, truth beauty"))
}

// The working group's vector for exactly suite 1: a thousand messages drawn from SHAKE128, sealed by hand, opened by
// the code that this package uses, and their ciphertexts accumulated.
func TestRFC9180Suite1(t *testing.T) {
	h := func(s string) []byte { return must(hex.DecodeString(s))(t) }
	priv := h("497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d")
	enc := h("6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256")
	info := h("4f6465206f6e2061204772656369616e2055726e")
	key := must(suiteKEM.NewPrivateKey(priv))(t)
	same(t, "pkRm", key.PublicKey().Bytes(), h("430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c"))
	recipient := must(hpke.NewRecipient(enc, key, suiteKDF, suiteAEAD, info))(t)
	steps := hpkeByHand(t, priv, enc, info)
	aead := must(cipher.NewGCM(must(aes.NewCipher(steps.Key))(t)))(t)
	source, sink := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	for seq := range 1000 {
		aad, plaintext := draw(t, source), draw(t, source)
		nonce := bytes.Clone(steps.BaseNonce)
		nonce[10] ^= byte(seq >> 8)
		nonce[11] ^= byte(seq)
		ct := aead.Seal(nil, nonce, plaintext, aad)
		sink.Write(ct)
		if got, err := recipient.Open(aad, ct); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("message %d: %v", seq, err)
		}
	}
	sum := make([]byte, 16)
	sink.Read(sum)
	same(t, "accumulated", sum, h("1702e73e1e71705faa8241022af1deea"))
}

// draw reads one length byte and as many bytes.
func draw(t *testing.T, r io.Reader) []byte {
	t.Helper()
	n := make([]byte, 1)
	if _, err := io.ReadFull(r, n); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n[0])
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "taken"
	case errors.Is(err, proof.ErrForm):
		return "form"
	case errors.Is(err, proof.ErrSignature):
		return "signature"
	case errors.Is(err, proof.ErrRefused):
		return "refused"
	}
	return err.Error()
}
