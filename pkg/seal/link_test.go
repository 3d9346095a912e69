package seal

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

// The two tables, typed from section 3 as letters: o open, c claimed, r revealed, k confirmed, d done, b burned,
// e expired, x cancelled, - refused.
const (
	desktopWalk = `
              o c r k d b e x
 claim        c b b b - - - -
 other_mode   b b b b - - - -
 reveal       - r b b - - - -
 bad_reveal   - b b b - - - -
 digits       - - k - - - - -
 wrong_digits - - r - - - - -
 last_digits  - - b - - - - -
 took         - - - d - - - -
 bad_finish   - - - b - - - -
 lost         b b b b - - - -
 cancel       x x x x - - - -
 expire       e e e e - - - -`
	surfaceWalk = `
              o c r k d b e x
 claim        c - - - - - - -
 offer        - r b b - - - -
 bad_offer    - b b b - - - -
 grant_link   - b d b - - - -
 grant_code   - b k b - - - -
 bad_grant    - b b b - - - -
 finish       - - - d - - - -
 bad_finish   - - - b - - - -
 lost         - b b b - - - -
 cancel       x x x x - - - -
 expire       e e e e - - - -`
)

var letterOf = map[string]proof.LinkState{
	"o": proof.LinkOpen, "c": proof.LinkClaimed, "r": proof.LinkRevealed, "k": proof.LinkConfirmed,
	"d": proof.LinkDone, "b": proof.LinkBurned, "e": proof.LinkExpired, "x": proof.LinkCancelled,
}

func walk(t *testing.T, grid string, events int, next func(proof.LinkState, int) (proof.LinkState, bool)) {
	t.Helper()
	rows := strings.Split(strings.TrimLeft(grid, "\n"), "\n")
	columns := strings.Fields(rows[0])
	if len(rows)-1 != events || len(columns) != len(proof.LinkStates()) {
		t.Fatalf("%d rows of %d events, %d columns", len(rows)-1, events, len(columns))
	}
	for i, row := range rows[1:] {
		cells := strings.Fields(row)
		for j, cell := range cells[1:] {
			from := letterOf[columns[j]]
			want, ok := letterOf[cell]
			if !ok {
				want = from // refused: nothing changes
			}
			if got, moved := next(from, i+1); got != want || moved != ok {
				t.Errorf("%s in %v: %v %v, want %v %v", cells[0], from, got, moved, want, ok)
			}
		}
	}
}

func TestWalkDesktopTable(t *testing.T) {
	walk(t, desktopWalk, int(lastDesktop), func(s proof.LinkState, e int) (proof.LinkState, bool) { return NextDesktop(s, DesktopEvent(e)) })
}

func TestWalkSurfaceTable(t *testing.T) {
	walk(t, surfaceWalk, int(lastSurface), func(s proof.LinkState, e int) (proof.LinkState, bool) { return NextSurface(s, SurfaceEvent(e)) })
}

// linking is one session with both ends.
type linking struct {
	d    *Desktop
	at   *DesktopLink
	from *SurfaceLink
	open proof.Open
}

func begin(t testing.TB, mode proof.Mode, highest, asked proof.Scope) linking {
	t.Helper()
	l := linking{d: must(NewDesktop(start))(t)}
	cfg := LinkConfig{Mode: mode, Origin: origin, Page: origin, Host: "tower", Policy: "prompts yes", Highest: highest}
	at, open, err := l.d.OpenLink(cfg, start)
	if err != nil {
		t.Fatal(err)
	}
	l.at, l.open = at, carry(t, open)
	if mode == proof.ModeLink {
		l.from = must(JoinLink(at.Text(""), "", "phone", asked, start))(t)
	} else {
		l.from = must(JoinCode(at.Text("07"), origin, "phone", asked, start))(t)
	}
	return l
}

// toDigits runs messages 2 to 4 and returns what the surface shows.
func (l linking) toDigits(t testing.TB) (Candidate, Shown) {
	t.Helper()
	claim := carry(t, must(l.from.Claim(start))(t))
	offer := carry(t, must(l.at.Claim(claim.Bare(), start))(t))
	reveal, shown, err := l.from.Offer(offer, start)
	if err != nil {
		t.Fatal(err)
	}
	return must(l.at.Reveal(carry(t, reveal), start))(t), shown
}

func TestLinkingThere(t *testing.T) {
	for _, c := range []struct {
		mode           proof.Mode
		highest, asked proof.Scope
		want           string
		digits         int
	}{
		{proof.ModeLink, proof.ScopePrompt, proof.ScopePrompt, "[observe prompt]", 6},
		{proof.ModeLink, proof.ScopeDecide, proof.ScopeDecide, "[observe prompt decide]", 8},
		{proof.ModeCode, proof.ScopePrompt, proof.ScopeDecide, "[observe prompt]", 6},
		{proof.ModeCode, proof.ScopeDecide, proof.ScopeObserve, "[observe]", 8},
	} {
		t.Run(fmt.Sprint(c.mode, c.highest, c.asked), func(t *testing.T) {
			l := begin(t, c.mode, c.highest, c.asked)
			if err := l.open.Verify(l.d.Dsig()); err != nil {
				t.Fatal(err)
			}
			who, shown := l.toDigits(t)
			if who.Label != "phone" || fmt.Sprint(who.Scopes.Names()) != c.want || len(shown.Digits) != c.digits || who.Digits != c.digits {
				t.Errorf("%+v, digits %s", who, shown.Digits)
			}
			linked, err := l.at.Digits(shown.Digits[:3]+" "+shown.Digits[3:], 5, start)
			if err != nil {
				t.Fatal(err)
			}
			if (linked.FinishCode != "") != (c.mode == proof.ModeCode) {
				t.Errorf("finish code %q", linked.FinishCode)
			}
			needs := must(l.from.Grant(carry(t, linked.Message), start))(t)
			if needs != (c.mode == proof.ModeCode) {
				t.Errorf("needs a finish code: %v", needs)
			}
			if needs {
				if _, err := l.from.Joined(); !errors.Is(err, ErrState) {
					t.Errorf("linked before the finish code: %v", err)
				}
				if err := l.from.FinishCode(linked.FinishCode, start); err != nil {
					t.Fatal(err)
				}
			}
			joined := must(l.from.Joined())(t)
			if err := l.at.Finish(carry(t, joined.Finish), start); err != nil || l.at.State() != proof.LinkDone {
				t.Errorf("%v %v", l.at.State(), err)
			}
			g := must(proof.OpenGrant(l.d.Dsig(), linked.Signed))(t)
			if joined.Grant.Surface != g.Surface || g.Surface != who.Surface || g.Serial != 5 || fmt.Sprint(g.Scopes.Names()) != c.want {
				t.Errorf("granted %+v", g)
			}
			p := pair{d: l.d, s: joined.Keys, grant: g}
			if j := l.d.Judge(p.command(t, proof.Status, "{}", proof.Chain{}), p.now(proof.Chain{})); j.Verdict != proof.OK {
				t.Errorf("the first command: %v", j.Verdict)
			}
		})
	}
}

func TestThreeEntriesOfDigits(t *testing.T) {
	l := begin(t, proof.ModeCode, proof.ScopePrompt, proof.ScopePrompt)
	_, shown := l.toDigits(t)
	entries := 0
	for ; ; entries++ {
		_, err := l.at.Digits("000000x", 1, start)
		if errors.Is(err, ErrBurned) {
			entries++
			break
		}
		if !errors.Is(err, ErrDigits) || l.at.State() != proof.LinkRevealed {
			t.Fatalf("entry %d: %v", entries+1, err)
		}
	}
	if entries != 3 {
		t.Errorf("%d entries", entries)
	}
	if _, err := l.at.Digits(shown.Digits, 1, start); !errors.Is(err, ErrOver) {
		t.Errorf("the right digits afterwards: %v", err)
	}
	if _, ok := l.at.Granted(); ok {
		t.Error("a burned session granted something")
	}
}

func TestFinishCodeHasOneEntry(t *testing.T) {
	l := begin(t, proof.ModeCode, proof.ScopePrompt, proof.ScopePrompt)
	_, shown := l.toDigits(t)
	linked := must(l.at.Digits(shown.Digits, 1, start))(t)
	if _, err := l.from.Grant(linked.Message, start); err != nil {
		t.Fatal(err)
	}
	if err := l.from.FinishCode(shown.Digits, start); !errors.Is(err, ErrNotLinked) || l.from.State() != proof.LinkBurned {
		t.Errorf("the digits as finish code: %v", err)
	}
	if err := l.from.FinishCode(linked.FinishCode, start); !errors.Is(err, ErrOver) {
		t.Errorf("a second entry: %v", err)
	}
	if l.from.keys != nil {
		t.Error("the keys are still there")
	}
	l.at.Lost()
	if g, ok := l.at.Granted(); l.at.State() != proof.LinkBurned || !ok || g.Surface.IsZero() {
		t.Error("the desktop does not know what to revoke")
	}
}

// One claim per session, ever; the other mode burns; all of it at any time.
func TestClaims(t *testing.T) {
	l := begin(t, proof.ModeLink, proof.ScopePrompt, proof.ScopePrompt)
	claim := must(l.from.Claim(start))(t)
	if _, err := l.from.Claim(start); !errors.Is(err, ErrState) {
		t.Errorf("the surface claims twice: %v", err)
	}
	other := claim
	other.Mode = proof.ModeCode
	if _, err := l.at.Claim(other, start); !errors.Is(err, ErrOtherMode) || l.at.State() != proof.LinkBurned {
		t.Errorf("other mode: %v", err)
	}
	for _, steps := range []int{1, 2, 3} {
		l := begin(t, proof.ModeCode, proof.ScopePrompt, proof.ScopePrompt)
		claim := must(l.from.Claim(start))(t)
		offer := must(l.at.Claim(claim, start))(t)
		if steps > 1 {
			reveal, shown, _ := l.from.Offer(offer, start)
			must(l.at.Reveal(reveal, start))(t)
			if steps > 2 {
				must(l.at.Digits(shown.Digits, 1, start))(t)
			}
		}
		if _, err := l.at.Claim(claim, start); !errors.Is(err, ErrBurned) || l.at.State() != proof.LinkBurned {
			t.Errorf("a second claim after step %d: %v, %v", steps, err, l.at.State())
		}
	}
}

func TestLinkingExpires(t *testing.T) {
	end := start.Add(proof.LinkLife)
	l := begin(t, proof.ModeLink, proof.ScopePrompt, proof.ScopePrompt)
	_, shown := l.toDigits(t)
	if l.at.Expire(end.Add(-1)) {
		t.Error("over before 180 s")
	}
	if _, err := l.at.Digits(shown.Digits, 1, end); !errors.Is(err, ErrOver) || l.at.State() != proof.LinkExpired {
		t.Errorf("desktop at 180 s: %v", err)
	}
	if _, err := l.from.Grant(proof.GrantMsg{Pid: l.at.Pid()}, end); !errors.Is(err, ErrNotLinked) || l.from.State() != proof.LinkExpired {
		t.Errorf("surface at 180 s: %v", err)
	}
	c := begin(t, proof.ModeCode, proof.ScopePrompt, proof.ScopePrompt)
	c.at.Cancel()
	c.from.Cancel()
	if c.at.State() != proof.LinkCancelled || c.from.State() != proof.LinkCancelled || c.from.keys != nil {
		t.Errorf("%v %v", c.at.State(), c.from.State())
	}
	c.at.Lost()
	if c.at.State() != proof.LinkCancelled {
		t.Error("a final state moved")
	}
}

// What a broker that lies can do to each message: nothing of it links.
func TestHostileBroker(t *testing.T) {
	mallory := must(NewDesktop(start))(t)
	cfg := LinkConfig{Mode: proof.ModeCode, Origin: origin, Page: origin, Host: "tower", Policy: "prompts yes", Highest: proof.ScopePrompt}
	t.Run("another desktop's offer in link mode", func(t *testing.T) {
		l := begin(t, proof.ModeLink, proof.ScopePrompt, proof.ScopePrompt)
		claim := must(l.from.Claim(start))(t)
		fake, _, _ := mallory.OpenLink(cfg, start)
		fake.pid, fake.cfg.Mode = l.at.pid, proof.ModeLink // with any secret but s
		offer := must(fake.Claim(claim, start))(t)
		if _, _, err := l.from.Offer(offer, start); !errors.Is(err, ErrNotLinked) || l.from.State() != proof.LinkBurned {
			t.Errorf("%v", err)
		}
	})
	t.Run("the offer of the other mode", func(t *testing.T) {
		l := begin(t, proof.ModeLink, proof.ScopePrompt, proof.ScopePrompt)
		offer := must(l.at.Claim(must(l.from.Claim(start))(t), start))(t)
		offer.MAC = nil
		if _, _, err := l.from.Offer(offer, start); !errors.Is(err, ErrNotLinked) {
			t.Errorf("%v", err)
		}
	})
	t.Run("two offers", func(t *testing.T) {
		l := begin(t, proof.ModeCode, proof.ScopePrompt, proof.ScopePrompt)
		offer := must(l.at.Claim(must(l.from.Claim(start))(t), start))(t)
		if _, _, err := l.from.Offer(offer, start); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.from.Offer(offer, start); !errors.Is(err, ErrNotLinked) {
			t.Errorf("%v", err)
		}
	})
	for name, alter := range map[string]func(*proof.Reveal){
		"other card":  func(r *proof.Reveal) { r.BundleS[40]++ },
		"other nonce": func(r *proof.Reveal) { r.NonceS[0]++ },
		"other sig":   func(r *proof.Reveal) { r.Sig[0]++ },
		"other mac":   func(r *proof.Reveal) { r.MAC[0]++ },
		"no mac":      func(r *proof.Reveal) { r.MAC = nil },
		"other pid":   func(r *proof.Reveal) { r.Pid[0]++ },
	} {
		t.Run("reveal with "+name, func(t *testing.T) {
			l := begin(t, proof.ModeLink, proof.ScopePrompt, proof.ScopePrompt)
			offer := must(l.at.Claim(must(l.from.Claim(start))(t), start))(t)
			reveal, _, err := l.from.Offer(carry(t, offer), start)
			if err != nil {
				t.Fatal(err)
			}
			reveal = carry(t, reveal)
			alter(&reveal)
			if _, err := l.at.Reveal(reveal, start); !errors.Is(err, ErrBurned) || l.at.State() != proof.LinkBurned {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("a grant that is not the desktop's", func(t *testing.T) {
		l := begin(t, proof.ModeCode, proof.ScopePrompt, proof.ScopePrompt)
		l.toDigits(t)
		g := proof.Grant{
			Pairing: l.d.Pairing(), Surface: l.from.keys.ID(l.d.Pairing()), Ssig: l.from.keys.Ssig(), Skem: l.from.keys.Skem(),
			Scopes: proof.ScopesUpTo(3), Serial: 1, Issued: 1, NotAfter: 2, Transcript: transcriptDigest(l.from.t),
		}
		_, sealed, _ := mallory.SealGrant(g)
		if _, err := l.from.Grant(proof.GrantMsg{Pid: l.from.pid, Sealed: sealed}, start); !errors.Is(err, ErrNotLinked) {
			t.Errorf("%v", err)
		}
	})
	t.Run("the grant of another linking", func(t *testing.T) {
		l := begin(t, proof.ModeLink, proof.ScopePrompt, proof.ScopePrompt)
		l.toDigits(t)
		g := proof.Grant{
			Pairing: l.d.Pairing(), Surface: l.from.keys.ID(l.d.Pairing()), Ssig: l.from.keys.Ssig(), Skem: l.from.keys.Skem(),
			Scopes: proof.ScopesUpTo(2), Serial: 1, Issued: 1, NotAfter: 2, Transcript: proof.Digest{1},
		}
		_, sealed, _ := l.d.SealGrant(g)
		if _, err := l.from.Grant(proof.GrantMsg{Pid: l.from.pid, Sealed: sealed}, start); !errors.Is(err, ErrNotLinked) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a finish that is not the surface's", func(t *testing.T) {
		l := begin(t, proof.ModeLink, proof.ScopePrompt, proof.ScopePrompt)
		_, shown := l.toDigits(t)
		linked := must(l.at.Digits(shown.Digits, 1, start))(t)
		f := proof.Finish{Pid: l.at.Pid()}
		f.Sign(mallory.Signer(), linked.Grant.Transcript)
		if err := l.at.Finish(f, start); !errors.Is(err, ErrBurned) {
			t.Errorf("%v", err)
		}
	})
}

// A broker in the middle in code mode runs one session with each end. It knows the code; what it cannot do is make
// both digits equal: each T is fixed before it learns the other's nonce. Counted here over two digits, where chance is
// one in a hundred.
func TestBrokerInTheMiddleGuesses(t *testing.T) {
	const sessions = 500
	d, mallory := must(NewDesktop(start))(t), must(NewDesktop(start))(t)
	cfg := LinkConfig{Mode: proof.ModeCode, Origin: origin, Page: origin, Host: "tower", Policy: "x", Highest: proof.ScopePrompt}
	equal := 0
	for range sessions {
		real, _, _ := d.OpenLink(cfg, start)
		fake, _, _ := mallory.OpenLink(cfg, start)
		victim := must(JoinCode(real.Text("07"), origin, "phone", proof.ScopePrompt, start))(t)
		evil := must(JoinCode(real.Text("07"), origin, "phone", proof.ScopePrompt, start))(t)
		_, seen, err := victim.Offer(must(fake.Claim(must(victim.Claim(start))(t), start))(t), start)
		if err != nil {
			t.Fatal(err)
		}
		reveal, typed, err := evil.Offer(must(real.Claim(must(evil.Claim(start))(t), start))(t), start)
		if err != nil {
			t.Fatal(err)
		}
		must(real.Reveal(reveal, start))(t)
		if seen.Digits[4:] == typed.Digits[4:] {
			equal++
		}
	}
	if equal > 22 { // 5 expected, sigma 2.2
		t.Errorf("%d of %d sessions agree in two digits", equal, sessions)
	}
}

// The bounds of section 3, from what the code really allows.
func TestBoundsOfSection3(t *testing.T) {
	codes := math.Pow(float64(len(proof.Alphabet)), proof.CodeLetters)
	claim := proof.MaxCodeTries / codes
	if got := math.Log2(claim); got > -32.2 {
		t.Errorf("an outsider claims with 2^%.2f", got)
	}
	digits := proof.MaxDigitEntries / math.Pow(10, proof.DigitsPlain)
	if got := claim * digits; got > 6e-16 {
		t.Errorf("an outsider links with %.2g", got)
	}
	if proof.MaxLinksPerDay != 10 || proof.DigitsDecide != 8 || proof.LinkLife != 180*time.Second || linkSecretSize*8 != 128 {
		t.Error("the bounds rest on other numbers")
	}
	seen := map[string]int{}
	for i := range 20000 { // digits are even: 200 expected in each of 100 buckets, sigma 14
		seen[proof.Digits(proof.Digest{byte(i), byte(i >> 8)}, 6)[:2]]++
	}
	for bucket, n := range seen {
		if n < 120 || n > 280 {
			t.Errorf("digits that begin with %s: %d of 20000", bucket, n)
		}
	}
}

func TestLinkText(t *testing.T) {
	pid, s := proof.LinkID{1}, NewLinkSecret()
	text := FormatLink("https://page.example.com", pid, s)
	page, gotPid, got, err := ParseLink(" " + text + "\n")
	if err != nil || page != "https://page.example.com" || gotPid != pid || !got.Equal(s) {
		t.Fatalf("%s %v %v", page, gotPid, err)
	}
	if n := len(FormatLink("https://b.example.com", pid, s)); n > 84 { // a QR of version 5, level L, holds 106 bytes
		t.Errorf("%d characters", n)
	}
	for _, bad := range []string{
		"", "https://page.example.com/p", text + "A", text[:len(text)-1], strings.Replace(text, "#1.", "#2.", 1),
		strings.Replace(text, "https", "ftp", 1), strings.Replace(text, "page.", "PAGE.", 1), strings.Replace(text, "https://", "https://u:p@", 1),
		strings.Replace(text, pid.String(), proof.LinkID{}.String(), 1), text[:len(text)-1] + "_", strings.Repeat("a", 1000) + text,
	} {
		if _, _, _, err := ParseLink(bad); !errors.Is(err, proof.ErrForm) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCodeText(t *testing.T) {
	for text, want := range map[string]string{
		"07-BCDF-GHJK": "07 BCDFGHJK", "07 bcdf ghjk": "07 BCDFGHJK", "07bcdfghjk": "07 BCDFGHJK", " 0-7-BCDF-GHJ-K ": "07 BCDFGHJK",
		"7-BCDF-GHJK": "", "A7-BCDF-GHJK": "", "07-BCDF-GHJ": "", "07-BCDF-GHJA": "", "": "", "07-BCDF-GHJK" + strings.Repeat("-", 40): "",
	} {
		nameplate, letters, err := ParseCode(text)
		if got := strings.TrimSpace(nameplate + " " + string(letters)); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
	if got := FormatCode("07", "BCDFGHJK"); got != "07-BCDF-GHJK" {
		t.Error(got)
	}
}

func TestOpenLinkRefuses(t *testing.T) {
	d := must(NewDesktop(start))(t)
	good := LinkConfig{Mode: proof.ModeLink, Origin: origin, Page: origin, Host: "tower", Policy: "x", Highest: proof.ScopePrompt}
	for name, change := range map[string]func(*LinkConfig){
		"mode": func(c *LinkConfig) { c.Mode = 0 }, "host": func(c *LinkConfig) { c.Host = "<" }, "scope": func(c *LinkConfig) { c.Highest = 0 },
		"policy": func(c *LinkConfig) { c.Policy = "\n" },
	} {
		c := good
		change(&c)
		if _, _, err := d.OpenLink(c, start); err == nil {
			t.Errorf("bad %s opens", name)
		}
	}
	if _, err := JoinCode("07-BCDF-GHJK", origin, "<", proof.ScopePrompt, start); err == nil {
		t.Error("a bad label joins")
	}
	if _, err := d.sealWithoutReveal(); !errors.Is(err, ErrState) {
		t.Errorf("digits before a reveal: %v", err)
	}
}

func (d *Desktop) sealWithoutReveal() (Linked, error) {
	l, _, _ := d.OpenLink(LinkConfig{Mode: proof.ModeLink, Origin: origin, Page: origin, Host: "tower", Highest: proof.ScopePrompt}, start)
	return l.Digits("000000", 1, start)
}
