package proof

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func testDesktopCard() DesktopCard {
	return DesktopCard{
		Pairing: PairingOf(SigKeyOf(dsig)), Dsig: SigKeyOf(dsig), Bundle: testBundle().Sign(dsig), Host: "tower",
		Policy: "prompts yes", Digits: 6, Versions: Versions{1},
	}
}

func testSurfaceCard() SurfaceCard {
	return SurfaceCard{Ssig: SigKeyOf(ssig), Skem: skem, Label: "Anna phone", Scope: ScopePrompt, Versions: Versions{1}}
}

func TestCards(t *testing.T) {
	if c, err := ParseDesktopCard(testDesktopCard().Encode()); err != nil || c.Host != "tower" || c.Digits != 6 {
		t.Fatalf("%+v %v", c, err)
	}
	if c, err := ParseSurfaceCard(testSurfaceCard().Encode()); err != nil || c.Label != "Anna phone" {
		t.Fatalf("%+v %v", c, err)
	}
	for name, change := range map[string]func(*DesktopCard){
		"pairing":   func(c *DesktopCard) { c.Pairing[0]++ },
		"key":       func(c *DesktopCard) { c.Dsig = SigKeyOf(ssig) },
		"weak key":  func(c *DesktopCard) { c.Dsig = SigKey{1}; c.Pairing = PairingOf(c.Dsig) },
		"bundle":    func(c *DesktopCard) { c.Bundle = bytes.Clone(c.Bundle); c.Bundle[40]++ },
		"host":      func(c *DesktopCard) { c.Host = "tower<" },
		"long host": func(c *DesktopCard) { c.Host = strings.Repeat("a", MaxLabel+1) },
		"policy":    func(c *DesktopCard) { c.Policy = "a\nb" },
		"long":      func(c *DesktopCard) { c.Policy = strings.Repeat("a", MaxPolicyText+1) },
		"digits":    func(c *DesktopCard) { c.Digits = 5 },
		"versions":  func(c *DesktopCard) { c.Versions = Versions{2, 1} },
		"version 0": func(c *DesktopCard) { c.Versions = Versions{0} },
		"none":      func(c *DesktopCard) { c.Versions = nil },
		"many":      func(c *DesktopCard) { c.Versions = Versions{1, 2, 3, 4, 5, 6, 7, 8, 9} },
	} {
		c := testDesktopCard()
		change(&c)
		if _, err := ParseDesktopCard(c.Encode()); err == nil {
			t.Errorf("desktop card with bad %s", name)
		}
	}
	for name, change := range map[string]func(*SurfaceCard){
		"weak Ssig":  func(c *SurfaceCard) { c.Ssig = SigKey{} },
		"weak Skem":  func(c *SurfaceCard) { c.Skem = KemKey{1} },
		"label":      func(c *SurfaceCard) { c.Label = " a" },
		"scope":      func(c *SurfaceCard) { c.Scope = 4 },
		"long label": func(c *SurfaceCard) { c.Label = strings.Repeat("a", MaxLabel+1) },
	} {
		c := testSurfaceCard()
		change(&c)
		if _, err := ParseSurfaceCard(c.Encode()); err == nil {
			t.Errorf("surface card with bad %s", name)
		}
	}
	if _, err := ParseSurfaceCard(append(testSurfaceCard().Encode(), 0)); !errors.Is(err, ErrForm) {
		t.Errorf("trailing byte: %v", err)
	}
}

// Every field of the transcript moves T, and with it both codes.
func TestTranscriptCoversEverything(t *testing.T) {
	base := Transcript{
		Mode: ModeCode, Pid: LinkID{1}, VersionsD: Versions{1}, VersionsS: Versions{1}, Origin: "https://b.example.com",
		Commit: Digest{1}, BundleD: []byte{1}, NonceD: []byte{1}, BundleS: []byte{1}, NonceS: []byte{1},
	}
	seen := map[Digest]string{base.Sum(): "base"}
	for name, change := range map[string]func(*Transcript){
		"mode": func(t *Transcript) { t.Mode = ModeLink }, "pid": func(t *Transcript) { t.Pid[0]++ },
		"versions D": func(t *Transcript) { t.VersionsD = Versions{1, 2} }, "versions S": func(t *Transcript) { t.VersionsS = Versions{1, 2} },
		"origin": func(t *Transcript) { t.Origin += ":444" }, "commit": func(t *Transcript) { t.Commit[0]++ },
		"bundle D": func(t *Transcript) { t.BundleD = []byte{2} }, "nonce D": func(t *Transcript) { t.NonceD = []byte{2} },
		"bundle S": func(t *Transcript) { t.BundleS = []byte{2} }, "nonce S": func(t *Transcript) { t.NonceS = []byte{2} },
		"border": func(t *Transcript) { t.BundleD, t.NonceD = []byte{1, 1}, nil },
	} {
		tr := base
		change(&tr)
		if other, dup := seen[tr.Sum()]; dup {
			t.Errorf("%s gives the T of %s", name, other)
		}
		seen[tr.Sum()] = name
	}
	sum := base.Sum()
	if Digits(sum, 6) == FinishDigits(sum, 6) || len(Digits(sum, 8)) != 8 {
		t.Error("the two codes are one, or have another length")
	}
	if Digits(sum, 8)[2:] != Digits(sum, 6) {
		t.Error("six digits are not the number modulo 10^6")
	}
	if err := VerifyLink(SigKeyOf(ssig), sum, SignLink(ssig, sum)); err != nil {
		t.Error(err)
	}
	if VerifyLink(SigKeyOf(ssig), Digest{}, SignLink(ssig, sum)) == nil || VerifyLink(SigKeyOf(dsig), sum, SignLink(ssig, sum)) == nil {
		t.Error("another T or key verifies")
	}
}

func TestCommitBindsCardAndNonce(t *testing.T) {
	c := Commit([]byte("card"), []byte("nonce"))
	if c == Commit([]byte("cardn"), []byte("once")) || c == Commit([]byte("card"), []byte("noncf")) {
		t.Error("two openings of one commitment")
	}
}

func TestVersionsCommon(t *testing.T) {
	if v, err := (Versions{1, 2, 4}).Common(Versions{2, 3}); v != 2 || err != nil {
		t.Errorf("%d %v", v, err)
	}
	if v, err := (Versions{1, 2}).Common(Versions{1, 2, 3}); v != 2 || err != nil {
		t.Errorf("%d %v", v, err)
	}
	if _, err := (Versions{1}).Common(Versions{2}); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
}

func TestOpenMessage(t *testing.T) {
	digest := Digest{1}
	link := Open{Pid: LinkID{1}, Mode: ModeLink, AdmitDigest: &digest, Expires: now.UnixMilli()}
	link.Sign(dsig)
	code := Open{Pid: LinkID{1}, Mode: ModeCode, Code: "BCDFGHJK", Expires: now.UnixMilli()}
	code.Sign(dsig)
	for _, o := range []Open{link, code} {
		raw, _ := json.Marshal(o)
		back, err := ParseMessage[Open](raw)
		if err != nil || back.Verify(SigKeyOf(dsig)) != nil || back.Verify(SigKeyOf(ssig)) == nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", code, code, code), "BCDF") {
		t.Error("a message prints its code")
	}
	changed := code
	changed.Expires++
	if changed.Verify(SigKeyOf(dsig)) == nil {
		t.Error("another expiry verifies")
	}
	swapped := code
	swapped.Code, swapped.AdmitDigest, swapped.Mode = "", &digest, ModeLink
	if swapped.Verify(SigKeyOf(dsig)) == nil {
		t.Error("the other mode verifies")
	}
	if end := (Open{Expires: now.Add(time.Hour).UnixMilli()}).Ends(now); end != now.Add(LinkLife) {
		t.Errorf("ends %v", end)
	}
	if end := (Open{Expires: now.Add(time.Second).UnixMilli()}).Ends(now); end != now.Add(time.Second) {
		t.Errorf("ends %v", end)
	}
}

func TestMessagesAreStrict(t *testing.T) {
	pid, nonce, sig := LinkID{1}.String(), Digest{1}.String(), strings.Repeat("A", 86)
	good := map[string]func([]byte) error{
		`{"mode":"link","pid":"` + pid + `","admit":"` + nonce + `","commit":"` + nonce + `"}`:                    parse[Claim],
		`{"mode":"code","nameplate":"07","code":"BCDFGHJK","commit":"` + nonce + `"}`:                             parse[Claim],
		`{"mode":"code","commit":"` + nonce + `"}`:                                                                parse[Claim],
		`{"pid":"` + pid + `","bundle":"AAAA","nonce":"` + nonce + `"}`:                                           parse[Offer],
		`{"pid":"` + pid + `","bundle":"AAAA","nonce":"` + nonce + `","sig":"` + sig + `","mac":"` + nonce + `"}`: parse[Reveal],
		`{"pid":"` + pid + `","sealed":"AAAA"}`:                                                                   parse[GrantMsg],
		`{"pid":"` + pid + `","sig":"` + sig + `"}`:                                                               parse[Finish],
	}
	for raw, parse := range good {
		if err := parse([]byte(raw)); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		for name, bad := range map[string]string{
			"unknown field": strings.Replace(raw, "{", `{"x":1,`, 1),
			"trailing":      raw + "{}",
			"trailing word": raw + " x",
			"cut":           raw[:len(raw)-1],
			"padded base64": strings.Replace(raw, `"}`, `="}`, 1),
			"empty":         "{}",
			"null":          "null",
			"array":         "[]",
			"too long":      raw + strings.Repeat(" ", MaxMessage),
		} {
			if err := parse([]byte(bad)); !errors.Is(err, ErrForm) {
				t.Errorf("%s of %s: %v", name, raw, err)
			}
		}
	}
	for _, bad := range []string{
		`{"mode":"link","pid":"` + pid + `","commit":"` + nonce + `"}`,
		`{"mode":"code","pid":"` + pid + `","admit":"` + nonce + `","commit":"` + nonce + `"}`,
		`{"mode":"code","nameplate":"7","code":"BCDFGHJK","commit":"` + nonce + `"}`,
		`{"mode":"code","nameplate":"07","code":"BCDFGHJA","commit":"` + nonce + `"}`,
		`{"mode":"code","nameplate":"07","code":"BCDFGHJ","commit":"` + nonce + `"}`,
		`{"mode":"both","commit":"` + nonce + `"}`,
	} {
		if err := parse[Claim]([]byte(bad)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	nonCanonical := `{"pid":"` + pid[:10] + "B" + `","sealed":"AAAA"}` // trailing bits that are not zero
	if err := parse[GrantMsg]([]byte(nonCanonical)); !errors.Is(err, ErrForm) {
		t.Errorf("non-canonical base64url: %v", err)
	}
}

func parse[M Message](raw []byte) error { _, err := ParseMessage[M](raw); return err }

func TestClaimBare(t *testing.T) {
	pid, admit := LinkID{1}, Admit{2}
	c := Claim{Mode: ModeLink, Pid: &pid, Admit: &admit, Commit: Digest{3}}
	raw, _ := json.Marshal(c.Bare())
	if strings.Contains(string(raw), "admit") || strings.Contains(string(raw), "pid") || c.IsBare() || !c.Bare().IsBare() {
		t.Errorf("%s", raw)
	}
	if !SameAdmit(admit, admit.Digest()) || SameAdmit(Admit{}, admit.Digest()) {
		t.Error("admit compares wrongly")
	}
	if s := fmt.Sprintf("%v %#v", c, admit); strings.Contains(s, admit.Digest().String()) || strings.Contains(fmt.Sprint(admit), "2") {
		t.Errorf("admit prints: %s", s)
	}
}

func TestFinish(t *testing.T) {
	f := Finish{Pid: LinkID{1}}
	f.Sign(ssig, Digest{2})
	if f.Verify(SigKeyOf(ssig), Digest{2}) != nil || f.Verify(SigKeyOf(ssig), Digest{3}) == nil || f.Verify(SigKeyOf(dsig), Digest{2}) == nil {
		t.Error("a finish verifies wrongly")
	}
}

func TestLabelsOfPeople(t *testing.T) {
	for s, ok := range map[string]bool{
		"a": true, "Anna's": false, "Anna phone_1.2-x": true, "": false, " ": false, " a": false, "a ": false,
		strings.Repeat("a", 40): true, strings.Repeat("a", 41): false, "büro": false, "a\u202eb": false, "a\nb": false,
	} {
		if got := CheckLabel(s) == nil; got != ok {
			t.Errorf("%q: %v", s, got)
		}
		if c := CleanLabel(s); CheckLabel(c) != nil {
			t.Errorf("%q cleaned is %q", s, c)
		}
	}
}

func TestLetters(t *testing.T) {
	for text, want := range map[string]string{
		"BCDF-GHJK": "BCDFGHJK", "bcdf ghjk": "BCDFGHJK", "-b-c-d-f-g-h-j-k-": "BCDFGHJK",
		"BCDF-GHJ": "", "BCDFGHJKL": "", "BCDFGHJA": "", "BCDFGHJ1": "", "": "", strings.Repeat("-", 40) + "BCDFGHJK": "", "ΒCDFGHJK": "",
	} {
		got, err := ParseLetters(text, 8)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", text, string(got), err)
		}
	}
	if s := fmt.Sprintf("%v %s %#v %q", Letters("BCDF"), Letters("BCDF"), Letters("BCDF"), Letters("BCDF")); strings.Contains(s, "BCD") {
		t.Errorf("letters print: %s", s)
	}
	counts := map[rune]int{}
	for range 200 {
		for _, r := range NewLetters(100) {
			counts[r]++
		}
	}
	for _, r := range Alphabet { // 20,000 draws: 1,000 each, sigma 31
		if n := counts[r]; n < 800 || n > 1200 {
			t.Errorf("%c was drawn %d times of 20,000", r, n)
		}
	}
	if len(counts) != len(Alphabet) {
		t.Errorf("%d letters", len(counts))
	}
}

func TestOrigin(t *testing.T) {
	for raw, want := range map[string]string{
		"https://Broker.Example.com/": "https://broker.example.com", "https://b.example.com:443/x?y#z": "https://b.example.com",
		"http://127.0.0.1:8080": "http://127.0.0.1:8080", "http://[::1]:80": "http://[::1]", "https://a:444": "https://a:444",
		"ftp://a": "", "https://": "", "https://u:p@a": "", "a.example.com": "", "": "", "https://" + strings.Repeat("a", 255): "",
	} {
		if got, err := Origin(raw); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", raw, got, err)
		}
	}
}

func TestLinkStates(t *testing.T) {
	if len(LinkStates()) != 8 {
		t.Fatalf("%d states", len(LinkStates()))
	}
	final := 0
	for _, s := range LinkStates() {
		back, err := ParseLinkState(s.String())
		if back != s || err != nil {
			t.Errorf("%v: %v %v", s, back, err)
		}
		if s.Final() {
			final++
		}
	}
	if final != 4 || LinkState(0).Valid() || LinkState(0).Final() || LinkState(9).Valid() {
		t.Errorf("%d final states", final)
	}
	if _, err := ParseLinkState(""); err == nil {
		t.Error("no name is a state")
	}
}
