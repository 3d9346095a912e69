package agent

import (
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cowork.example.com/broker/internal/redact"
)

var (
	filler = regexp.MustCompile(`\{(\w+):(\d+)\}`)
	marked = regexp.MustCompile(`(?s)⟦(.*?)⟧`)
)

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// generate fills one {kind:length} of the corpus.
func generate(rng *rand.Rand, kind string, n int) string {
	if kind == "nouns" {
		words := strings.Fields("apple river stone cloud tiger maple ocean candle window garden silver pencil mirror rocket")
		picked := make([]string, n)
		for i := range picked {
			picked[i] = words[rng.IntN(len(words))]
		}
		return strings.Join(picked, " ")
	}
	alphabet := map[string]string{"hex": "0123456789abcdef", "digits": "123456789", "lower": letters[26:52], "upper": letters[:26]}[kind]
	if alphabet == "" {
		alphabet = letters
	}
	var b strings.Builder
	for range n {
		b.WriteByte(alphabet[rng.IntN(len(alphabet))])
	}
	return b.String()
}

// corpus is the lines of redact's corpus of secrets, with what must not leave in each.
func corpus(t testing.TB) (texts []string, hidden [][]string) {
	t.Helper()
	raw, err := os.ReadFile("../redact/testdata/secrets.txt")
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimRight(line, "\n")
		if line == "" || strings.HasPrefix(line, "# ") || strings.HasPrefix(line, "J ") {
			continue
		}
		text := filler.ReplaceAllStringFunc(line, func(m string) string {
			g := filler.FindStringSubmatch(m)
			n, _ := strconv.Atoi(g[2])
			return generate(rng, g[1], n)
		})
		if strings.Contains(text, "-----BEGIN") {
			text = strings.ReplaceAll(text, `\n`, "\n")
		}
		var secrets []string
		for _, m := range marked.FindAllStringSubmatch(text, -1) {
			secrets = append(secrets, m[1])
		}
		texts = append(texts, strings.NewReplacer("⟦", "", "⟧", "").Replace(text))
		hidden = append(hidden, secrets)
	}
	if len(texts) < 150 {
		t.Fatalf("the corpus has %d lines", len(texts))
	}
	return texts, hidden
}

// stream says a text in pieces and returns all that left.
func stream(pieces ...string) string {
	s := &redactStream{redact: redact.New(redact.Options{Home: "/home/jane"}).Text}
	var out strings.Builder
	for _, p := range pieces {
		out.WriteString(s.push(p))
	}
	return out.String()
}

// leaked is half of a secret, or all of a short one, that stands in out although redaction of the whole text hides it.
func leaked(out, whole, text string, secrets []string) string {
	for _, secret := range secrets {
		n := len(secret)
		if n > 8 {
			n = (n + 1) / 2
		}
		for i := 0; i+n <= len(secret); i++ {
			if part := secret[i : i+n]; strings.Contains(out, part) && !strings.Contains(whole, part) {
				return part
			}
		}
	}
	return ""
}

// Whatever the place at which the runtime cuts its text, no secret of the corpus leaves.
func TestStreamSplitAtEveryByte(t *testing.T) {
	r := redact.New(redact.Options{Home: "/home/jane"})
	texts, hidden := corpus(t)
	for i, line := range texts {
		text := "well then\n" + line + "\nand so on "
		whole := r.Text(text)
		for at := 0; at <= len(text); at++ {
			if part := leaked(stream(text[:at], text[at:]), whole, text, hidden[i]); part != "" {
				t.Errorf("%q cut at %d leaks %q", line, at, part)
				break
			}
		}
		single := strings.Split(text, "")
		if part := leaked(stream(single...), whole, text, hidden[i]); part != "" {
			t.Errorf("%q in single letters leaks %q", line, part)
		}
	}
}

// What is said is always the beginning of what the redacted whole says, as long as redaction did not reach back.
func TestStreamIsABeginningOfTheWhole(t *testing.T) {
	r := redact.New(redact.Options{Home: "/home/jane"})
	texts, hidden := corpus(t)
	rapid.Check(t, func(rt *rapid.T) {
		i := rapid.IntRange(0, len(texts)-1).Draw(rt, "line")
		filling := rapid.SampledFrom([]string{"", "lorem ipsum dolor\n", strings.Repeat("word ", 40) + "\n", strings.Repeat("x", 300) + "\n"}).Draw(rt, "filling")
		text := strings.Repeat(filling, rapid.IntRange(0, 40).Draw(rt, "times")) + texts[i] + "\n" + filling
		var pieces []string
		for rest := text; rest != ""; {
			n := min(len(rest), rapid.IntRange(1, 200).Draw(rt, "piece"))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		out := stream(pieces...)
		if part := leaked(out, r.Text(texts[i]), text, hidden[i]); part != "" {
			rt.Fatalf("%q leaks %q", texts[i], part)
		}
	})
}

func TestStreamSaysInnocentTextAtOnce(t *testing.T) {
	if got := stream("hello ", "wor", "ld, and ", "more"); got != "hello world, and " {
		t.Errorf("said %q", got)
	}
	long := strings.Repeat("all work and no play makes jack a dull boy\n", 3000)
	s := &redactStream{redact: redact.New(redact.Options{}).Text}
	var out strings.Builder
	for i := 0; i < len(long); i += 100 {
		out.WriteString(s.push(long[i:min(i+100, len(long))]))
		if len(s.raw) > 3*maxStreamTail {
			t.Fatalf("%d bytes of context are kept", len(s.raw))
		}
	}
	if out.String() != long {
		t.Errorf("%d of %d bytes were said", out.Len(), len(long))
	}
}

// An endless line is not kept for ever, and not redacted again and again.
func TestStreamIsBounded(t *testing.T) {
	s := &redactStream{redact: redact.New(redact.Options{}).Text}
	for range 4000 {
		s.push("word word ")
		if len(s.raw) > maxStreamRaw {
			t.Fatalf("%d bytes are kept", len(s.raw))
		}
	}
	if !s.lost || s.raw != "" {
		t.Errorf("lost %v with %d bytes", s.lost, len(s.raw))
	}
}

func FuzzRedactStream(f *testing.F) {
	r := redact.New(redact.Options{Home: "/home/jane"})
	f.Add("my key is ", 5)
	f.Add("-----BEGIN PRIVATE KEY-----\nabc\n", 20)
	f.Fuzz(func(t *testing.T, before string, at int) {
		const secret = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789"
		text := before + " " + secret + " after "
		if strings.Contains(r.Text(text), secret[10:]) {
			return // the context makes it innocent for the whole too
		}
		at = min(max(at, 0), len(text))
		if out := stream(text[:at], text[at:]); strings.Contains(out, secret[10:]) {
			t.Errorf("said %q", out)
		}
	})
}
