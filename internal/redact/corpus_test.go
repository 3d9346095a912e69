package redact

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// These are what the corpus asks for.
const (
	minCorpus    = 200
	minRecall    = 0.98
	maxFalseHits = 0.02
)

// sample is one line of the corpus, filled in.
type sample struct {
	line   string
	text   string
	hidden []string // what must not pass
}

var generator = regexp.MustCompile(`\{(alnum|lower|upper|hex|b64|b64u|digits|nouns):(\d+)\}`)

var alphabets = map[string]string{
	"alnum":  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
	"lower":  "abcdefghijklmnopqrstuvwxyz",
	"upper":  "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
	"hex":    "0123456789abcdef",
	"b64":    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
	"b64u":   "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
	"digits": "123456789",
}

var nouns = strings.Fields("apple river stone cloud tiger maple ocean candle window garden silver pencil mirror rocket")

func fill(rng *rand.Rand, line string) string {
	return generator.ReplaceAllStringFunc(line, func(m string) string {
		g := generator.FindStringSubmatch(m)
		n, _ := strconv.Atoi(g[2])
		var b strings.Builder
		for i := range n {
			if g[1] == "nouns" {
				b.WriteString(nouns[rng.IntN(len(nouns))] + strings.Repeat(" ", min(1, n-1-i)))
				continue
			}
			a := alphabets[g[1]]
			if i == 0 || i == n-1 { // a sign at the border is not what keys have
				a = strings.TrimRight(a, "+/-_")
			}
			b.WriteByte(a[rng.IntN(len(a))])
		}
		return b.String()
	})
}

var hidden = regexp.MustCompile(`(?s)⟦(.*?)⟧`)

func load(t testing.TB, name string, seed uint64) []sample {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(seed, 7))
	var list []sample
	for in := bufio.NewScanner(f); in.Scan(); {
		line := in.Text()
		if line == "" || strings.HasPrefix(line, "# ") {
			continue
		}
		text := fill(rng, line)
		if !strings.HasPrefix(line, "J ") && strings.Contains(text, "-----BEGIN") {
			text = strings.ReplaceAll(text, `\n`, "\n")
		}
		s := sample{line: line}
		for _, m := range hidden.FindAllStringSubmatch(text, -1) {
			s.hidden = append(s.hidden, m[1])
		}
		s.text = strings.NewReplacer("⟦", "", "⟧", "").Replace(text)
		list = append(list, s)
	}
	return list
}

// output is what leaves the desktop for a sample.
func (s sample) output(t testing.TB, r *Redactor) string {
	t.Helper()
	doc, ok := strings.CutPrefix(s.text, "J ")
	if !ok {
		return r.Text(s.text)
	}
	out, err := r.JSON([]byte(doc))
	if err != nil {
		t.Fatalf("%s: %v", s.line, err)
	}
	return "J " + string(out)
}

// leaks returns a piece of a hidden text that out still has: a secret of more
// than eight bytes leaks already by half.
func (s sample) leaks(out string) string {
	for _, h := range s.hidden {
		n := len(h)
		if n > 8 {
			n = max(8, n/2)
		}
		for i := 0; i+n <= len(h); i++ {
			if strings.Contains(out, h[i:i+n]) {
				return h[i : i+n]
			}
		}
	}
	return ""
}

func TestCorpusRecall(t *testing.T) {
	r := New(Options{})
	for _, name := range []string{"secrets.txt", "paths.txt"} {
		total, missed := 0, 0
		for seed := range uint64(5) { // other values of the same shapes
			for _, s := range load(t, name, seed) {
				total++
				out := s.output(t, r)
				if piece := s.leaks(out); piece != "" {
					missed++
					t.Logf("missed %q in %s\n\tgot %q", piece, s.line, out)
				}
			}
		}
		lines := total / 5
		recall := 1 - float64(missed)/float64(total)
		t.Logf("%s: %d lines, recall %.4f", name, lines, recall)
		if recall < minRecall {
			t.Errorf("%s: recall %.4f, want at least %.2f", name, recall, minRecall)
		}
		if name == "secrets.txt" && lines < minCorpus {
			t.Errorf("%d lines, want at least %d", lines, minCorpus)
		}
	}
}

func TestCorpusFalseHits(t *testing.T) {
	r := New(Options{Home: "/home/jane"})
	total, wrong := 0, 0
	for seed := range uint64(5) {
		for _, s := range load(t, "innocent.txt", seed) {
			total++
			if out := s.output(t, r); out != normal(s.text) {
				wrong++
				t.Logf("false hit: %q became %q", s.text, out)
			}
		}
	}
	rate := float64(wrong) / float64(total)
	t.Logf("%d lines, false hits %.4f", total/5, rate)
	if rate > maxFalseHits {
		t.Errorf("false hits %.4f, want at most %.2f", rate, maxFalseHits)
	}
	if total/5 < minCorpus {
		t.Errorf("%d lines, want at least %d", total/5, minCorpus)
	}
}

// normal is a sample as JSON writes it, keys sorted.
func normal(text string) string {
	doc, ok := strings.CutPrefix(text, "J ")
	if !ok {
		return text
	}
	var v any
	d := json.NewDecoder(strings.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return fmt.Sprint(err)
	}
	out, _ := json.Marshal(v)
	return "J " + string(out)
}

func TestCorpusIsStable(t *testing.T) {
	r := New(Options{Home: "/home/jane", Projects: map[string]string{"/home/jane/projects/app": "app"}})
	for _, name := range []string{"secrets.txt", "paths.txt", "innocent.txt"} {
		for _, s := range load(t, name, 1) {
			once := s.output(t, r)
			if twice := (sample{line: s.line, text: once}).output(t, r); twice != once {
				t.Errorf("not stable: %q\nonce  %q\ntwice %q", s.text, once, twice)
			}
		}
	}
}
