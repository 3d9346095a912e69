package pairing

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"cowork.example.com/broker/pkg/proof"
)

var brokerKey = proof.SigKey{1, 2, 3}

func TestCodeForms(t *testing.T) {
	c := NewCode(brokerKey)
	text, link := c.Text(), c.Link("https://b.example.com")
	for _, form := range []string{text, strings.ToLower(text), strings.ReplaceAll(text, "-", ""), " " + strings.ReplaceAll(text, "-", " ") + "\n", link} {
		got, err := ParseCode(form)
		if err != nil || got.Letters() != c.Letters() || !got.Names(brokerKey) || got.Names(proof.SigKey{9}) {
			t.Errorf("%s: %v", form, err)
		}
	}
	if got, _ := ParseCode(link); got.Origin != "https://b.example.com" || len(got.key) != 32 {
		t.Errorf("link: %q, %d bytes of key", got.Origin, len(got.key))
	}
	if n := len(strings.ReplaceAll(text, "-", "")); n != 22 || len(c.Letters()) != 12 {
		t.Errorf("%d letters", n)
	}
	for _, bad := range []string{
		"", "BCDF-GHJK", text[:len(text)-1], text + "B", text + "A", strings.Replace(link, "#1.", "#2.", 1), link + "A",
		strings.Replace(link, "https", "HTTPS", 1), link[:len(link)-1], "ftp" + link[5:], strings.Repeat(text, 30),
		"BCDF-GHJK-LMNP-ZZZZZ-ZZZZZ", // the key's letters say more than 40 bits
	} {
		if _, err := ParseCode(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if (Code{}).Names(brokerKey) {
		t.Error("an empty code names a broker")
	}
}

func TestLettersOfKey(t *testing.T) {
	for _, b := range [][]byte{{0, 0, 0, 0, 0}, {255, 255, 255, 255, 255}, {1, 2, 3, 4, 5}} {
		got, ok := bitsOf(lettersOf(b))
		if !ok || string(got) != string(b) {
			t.Errorf("%x comes back as %x", b, got)
		}
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	c, p := NewCode(brokerKey), Pepper{1, 2, 3}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "code", c, "pepper", p)
	fmt.Fprintf(&log, "%v %+v %#v %s %v %#v %s", c, c, c, c, p, p, p)
	for _, secret := range []string{string(c.secret), string(c.Letters()), c.Text(), "1 2 3", "0x1"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("shows %q", secret)
		}
	}
	for _, v := range []any{c, p} {
		if _, err := json.Marshal(v); err == nil {
			t.Errorf("%T marshals", v)
		}
	}
	if !p.Equal(Pepper{1, 2, 3}) || p.Equal(Pepper{}) {
		t.Error("peppers compare wrongly")
	}
	if p.enrolMAC("B") == (Pepper{}).enrolMAC("B") || p.linkMAC(proof.LinkID{1}, "B") == p.linkMAC(proof.LinkID{2}, "B") {
		t.Error("what is kept of a code depends on too little")
	}
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("around: %w", malformed("x"))
	if !errors.Is(err, ErrMalformed) || errors.Is(err, ErrBadCode) || CodeOf(err) != "malformed" || CodeOf(errors.New("x")) != "internal" {
		t.Error("codes are seen wrongly")
	}
	for _, e := range []*Error{ErrBadCode, ErrNotFound, ErrConflict, ErrMalformed, ErrForbidden, ErrLimited, ErrUnauthorized} {
		if len(e.Error()) > 200 || strings.IndexFunc(e.Error(), func(r rune) bool { return r > '~' || r < ' ' }) >= 0 {
			t.Errorf("%q is not short ASCII", e.Error())
		}
	}
}

func FuzzParseCode(f *testing.F) {
	c := NewCode(brokerKey)
	f.Add(c.Text())
	f.Add(c.Link("https://b.example.com"))
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCode(s)
		if err != nil {
			return
		}
		if again, err := ParseCode(c.Text()); err != nil || again.Letters() != c.Letters() {
			t.Errorf("%q comes back as another one", s)
		}
	})
}
