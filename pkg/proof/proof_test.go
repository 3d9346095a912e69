package proof

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Fixed keys, so that failures repeat.
var (
	dsig = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	ssig = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	skem = KemKey(probe.PublicKey().Bytes())
	now  = time.UnixMilli(1_764_000_000_000)
)

func testBundle() Bundle {
	return Bundle{
		Pairing: PairingOf(SigKeyOf(dsig)), Number: 3, Key: skem,
		Issued: now.UnixMilli(), NotAfter: now.Add(BundleLife).UnixMilli(),
	}
}

func testGrant() Grant {
	p := PairingOf(SigKeyOf(dsig))
	return Grant{
		Pairing: p, Surface: SurfaceOf(p, SigKeyOf(ssig), skem), Ssig: SigKeyOf(ssig), Skem: skem,
		Scopes: ScopesUpTo(ScopePrompt), Serial: 7, Issued: now.UnixMilli(), NotAfter: now.Add(GrantLife).UnixMilli(),
		Transcript: Digest{9},
	}
}

// signed is every signed encoding, with what opens it.
var signedForms = map[string]struct {
	bytes []byte
	open  func(SigKey, []byte) error
}{
	"bundle": {testBundle().Sign(dsig), func(k SigKey, b []byte) error { _, err := OpenBundle(k, b); return err }},
	"grant":  {testGrant().Sign(dsig), func(k SigKey, b []byte) error { _, err := OpenGrant(k, b); return err }},
	"beat": {
		Beat{Pairing: PairingOf(SigKeyOf(dsig)), Time: 5, Seq: 2}.Sign(dsig),
		func(k SigKey, b []byte) error { _, err := OpenBeat(k, b); return err },
	},
	"result": {
		SignResult(ResultHeader{Command: "cmd_1", State: "completed", Time: 1}.Encode(), make([]byte, 48), dsig),
		func(k SigKey, b []byte) error { _, err := OpenResult(k, b); return err },
	},
	"epoch": {
		SignEpochBox(EpochHeader{Epoch: EpochID{1}, Issued: 1}.Encode(), make([]byte, 88), dsig),
		func(k SigKey, b []byte) error { _, err := OpenEpochBox(k, b); return err },
	},
	"batch": {
		SignBatch(BatchHeader{Key: KeyView, Seq: 1, Class: ClassText, Size: 20, Time: 1}.Encode(), make([]byte, 20), dsig),
		func(k SigKey, b []byte) error { _, err := OpenBatch(k, b); return err },
	},
}

// Every byte of every signed form counts, nothing may follow it, and no other key opens it.
func TestSignedFormsHoldEveryByte(t *testing.T) {
	for name, form := range signedForms {
		t.Run(name, func(t *testing.T) {
			if err := form.open(SigKeyOf(dsig), form.bytes); err != nil {
				t.Fatalf("a good one: %v", err)
			}
			for i := range form.bytes {
				bad := bytes.Clone(form.bytes)
				bad[i] ^= 1
				if form.open(SigKeyOf(dsig), bad) == nil {
					t.Fatalf("byte %d flipped, and it opens", i)
				}
			}
			if form.open(SigKeyOf(dsig), append(bytes.Clone(form.bytes), 0)) == nil {
				t.Error("a trailing byte, and it opens")
			}
			if form.open(SigKeyOf(dsig), form.bytes[:len(form.bytes)-1]) == nil || form.open(SigKeyOf(dsig), nil) == nil {
				t.Error("cut, and it opens")
			}
			if err := form.open(SigKeyOf(ssig), form.bytes); !errors.Is(err, ErrSignature) {
				t.Errorf("another key: %v", err)
			}
		})
	}
}

// A statement made for one purpose does not serve another one.
func TestLabelsKeepPurposesApart(t *testing.T) {
	for from, a := range signedForms {
		for to, b := range signedForms {
			if from != to && b.open(SigKeyOf(dsig), a.bytes) == nil {
				t.Errorf("a %s opens as a %s", from, to)
			}
		}
	}
	labels := []string{
		LabelPairing, LabelSurface, LabelRedeem, LabelTunnel, LabelAuth, LabelToken, LabelHello, LabelRevoke, LabelBundle,
		LabelEnrolCode, LabelLinkCode, LabelOpen, LabelCommit, LabelMACDesktop, LabelMACSurface, LabelTranscript, LabelLink,
		LabelDigits, LabelFinish, LabelFinished, LabelGrant, LabelCommand, LabelCommandSig, LabelPlaintext, LabelResult,
		LabelEpoch, LabelBatch, LabelBeat, LabelRequest, LabelRequestList,
	}
	for i, a := range labels {
		if !strings.HasPrefix(a, "odp/") || strings.Index(a, "\x00") != len(a)-1 {
			t.Errorf("label %q", a)
		}
		for j, b := range labels {
			if i != j && strings.HasPrefix(b, a) {
				t.Errorf("%q begins %q", a, b)
			}
		}
	}
}

func TestRefusedContents(t *testing.T) {
	other := Bundle{Pairing: PairingID{1}, Number: 1, Key: skem, Issued: 1, NotAfter: 2}
	zero, long, weak := testBundle(), testBundle(), testBundle()
	zero.Number, long.NotAfter, weak.Key = 0, long.NotAfter+1, KemKey{}
	big := testBundle()
	big.Number = MaxNumber + 1
	for name, b := range map[string]Bundle{
		"other pairing": other, "number 0": zero, "life": long, "small order": weak, "large number": big,
	} {
		if _, err := OpenBundle(SigKeyOf(dsig), b.Sign(dsig)); err == nil || errors.Is(err, ErrSignature) {
			t.Errorf("bundle, %s: %v", name, err)
		}
	}
	change := func(f func(*Grant)) Grant { g := testGrant(); f(&g); return g }
	for name, g := range map[string]Grant{
		"other surface":    change(func(g *Grant) { g.Surface[0]++ }),
		"other pairing":    change(func(g *Grant) { g.Pairing[0]++; g.Surface = SurfaceOf(g.Pairing, g.Ssig, g.Skem) }),
		"other key":        change(func(g *Grant) { g.Ssig[0]++ }),
		"no scope":         change(func(g *Grant) { g.Scopes = nil }),
		"unknown scope":    change(func(g *Grant) { g.Scopes = Scopes{1, 4} }),
		"scopes unordered": change(func(g *Grant) { g.Scopes = Scopes{2, 1} }),
		"scope twice":      change(func(g *Grant) { g.Scopes = Scopes{1, 1} }),
		"serial 0":         change(func(g *Grant) { g.Serial = 0 }),
		"91 days":          change(func(g *Grant) { g.NotAfter += 86_400_000 }),
		"negative time":    change(func(g *Grant) { g.Issued = -1 }),
	} {
		if _, err := OpenGrant(SigKeyOf(dsig), g.Sign(dsig)); err == nil || errors.Is(err, ErrSignature) {
			t.Errorf("grant, %s: %v", name, err)
		}
	}
	for name, h := range map[string]BatchHeader{
		"key":                  {Key: 3, Seq: 1, Class: ClassText},
		"seq":                  {Key: 1, Seq: 0, Class: ClassText},
		"class":                {Key: 1, Seq: 1, Class: 6},
		"request without name": {Key: 2, Seq: 1, Class: ClassRequestOpen},
		"size":                 {Key: 1, Seq: 1, Class: ClassText, Size: 19},
	} {
		if name != "size" {
			h.Size = 20
		}
		if _, err := OpenBatch(SigKeyOf(dsig), SignBatch(h.Encode(), make([]byte, 20), dsig)); err == nil {
			t.Errorf("batch, %s: opens", name)
		}
	}
}

func TestBundleFresh(t *testing.T) {
	b := testBundle()
	for name, c := range map[string]struct {
		highest uint64
		at      time.Time
		ok      bool
	}{
		"same number":  {3, now, true},
		"older number": {4, now, false},
		"last instant": {0, now.Add(BundleLife), true},
		"asleep":       {0, now.Add(BundleLife + time.Millisecond), false},
	} {
		if err := b.Fresh(c.highest, c.at); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The table of sections 3 and 4, typed from the document.
func TestKinds(t *testing.T) {
	const hour = time.Hour
	want := []struct {
		b     byte
		name  string
		scope string
		life  time.Duration
	}{
		{1, "create_session", "prompt", 24 * hour},
		{2, "prompt", "prompt", 24 * hour},
		{3, "abort", "prompt", 2 * time.Minute},
		{4, "permission.respond", "decide", 10 * time.Minute},
		{5, "question.reply", "decide", hour},
		{6, "question.reject", "decide", hour},
		{7, "status", "observe", 5 * time.Minute},
		{8, "revoke_pairing", "decide", 24 * hour},
		{9, "history", "observe", 5 * time.Minute},
		{10, "revoke_surface", "decide", 24 * hour},
	}
	if len(Kinds()) != len(want) {
		t.Fatalf("%d kinds", len(Kinds()))
	}
	for i, w := range want {
		k := Kinds()[i]
		back, err := ParseKind(w.name)
		if byte(k) != w.b || k.String() != w.name || k.Scope().String() != w.scope || k.Life() != w.life || back != k || err != nil {
			t.Errorf("kind %d is %v %v %v", w.b, k, k.Scope(), k.Life())
		}
	}
	for _, k := range []Kind{0, 11, 255} {
		if k.Valid() || k.Scope() != 0 || k.Life() != 0 || (Scopes{1, 2, 3}).Allow(k, true) {
			t.Errorf("kind %d is valid", k)
		}
	}
	if _, err := ParseKind(""); err == nil {
		t.Error("no name is a kind")
	}
}

func TestScopes(t *testing.T) {
	all := ScopesUpTo(ScopeDecide)
	for _, k := range Kinds() {
		for n := range 8 { // every list
			var list Scopes
			for i, s := range all {
				if n&(1<<i) != 0 {
					list = append(list, s)
				}
			}
			if got, want := list.Allow(k, false), list.Has(k.Scope()); got != want {
				t.Errorf("%v allows %v: %v", list, k, got)
			}
			if got := list.Allow(k, true); got != (k == RevokeSurface || list.Has(k.Scope())) {
				t.Errorf("%v allows %v of itself: %v", list, k, got)
			}
		}
	}
	got, err := ParseScopes([]string{"prompt", "observe", "prompt"})
	if err != nil || fmt.Sprint(got.Names()) != "[observe prompt]" {
		t.Errorf("%v %v", got, err)
	}
	if _, err := ParseScopes([]string{"all"}); err == nil {
		t.Error("all is a scope")
	}
	if j, _ := Scopes(nil).MarshalJSON(); string(j) != "[]" {
		t.Errorf("empty list is %s", j)
	}
}

func TestIDs(t *testing.T) {
	p := PairingOf(SigKeyOf(dsig))
	back, err := ParsePairingID(p.String())
	if err != nil || back != p || len(p.String()) != 22 {
		t.Errorf("%v %v", back, err)
	}
	s := SurfaceOf(p, SigKeyOf(ssig), skem)
	if back, err := ParseSurfaceID(s.String()); err != nil || back != s {
		t.Errorf("%v %v", back, err)
	}
	if SurfaceOf(PairingID{}, SigKeyOf(ssig), skem) == s || SurfaceOf(p, SigKeyOf(dsig), skem) == s || SurfaceOf(p, SigKeyOf(ssig), KemKey{}) == s {
		t.Error("the surface's id does not cover all that it names")
	}
	text := p.String()
	for _, bad := range []string{"", text[:21], text + "A", text + "=", text[:21] + "\n" + text[21:], text[:21] + "B", strings.Repeat("+", 22)} {
		if _, err := ParsePairingID(bad); !errors.Is(err, ErrForm) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestWeakKeys(t *testing.T) {
	for _, weak := range smallOrder {
		for _, sign := range []byte{0, 0x80} {
			k := weak
			k[31] |= sign
			if !errors.Is(k.Check(), ErrRefused) {
				t.Errorf("Ed25519 %x is taken", k)
			}
		}
	}
	if err := SigKeyOf(dsig).Check(); err != nil {
		t.Error(err)
	}
	for _, weak := range []string{ // RFC 7748's u-coordinates of small order
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, _ := hex.DecodeString(weak)
		if !errors.Is(KemKey(b).Check(), ErrRefused) {
			t.Errorf("X25519 %s is taken", weak)
		}
	}
	if err := skem.Check(); err != nil {
		t.Error(err)
	}
}

// RFC 8032 section 7.1, tests 1 to 3.
func TestRFC8032(t *testing.T) {
	for _, v := range []struct{ seed, pub, msg, sig string }{
		{
			"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
			"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
		},
		{
			"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
			"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
			"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
		},
		{
			"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
			"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
			"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
		},
	} {
		key := ed25519.NewKeyFromSeed(unhex(t, v.seed))
		pub := SigKeyOf(key)
		if hex.EncodeToString(pub[:]) != v.pub {
			t.Errorf("public key of %s", v.seed)
		}
		if got := hex.EncodeToString(ed25519.Sign(key, unhex(t, v.msg))); got != v.sig {
			t.Errorf("signature %s", got)
		}
		sig := unhex(t, v.sig)
		if pub.Verify(unhex(t, v.msg), sig) != nil {
			t.Error("does not verify")
		}
		// S + L is the malleable twin (section 5.1.7 refuses it).
		if pub.Verify(unhex(t, v.msg), addL(sig)) == nil {
			t.Error("a malleable signature verifies")
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// addL adds the group order to S.
func addL(sig []byte) []byte {
	l, _ := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	out, carry := bytes.Clone(sig), 0
	for i := range 32 {
		sum := int(out[32+i]) + int(l[i]) + carry
		out[32+i], carry = byte(sum), sum>>8
	}
	return out
}
