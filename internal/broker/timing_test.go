package broker

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

const (
	timedCalls = 10_000
	// welchLimit is the t above which two distributions are taken for different.
	welchLimit = 4.5
)

// TestRefusedCodesTakeTheSameTime calls the handler itself 10,000 times, unknown, used, burned and expired links in
// turn, and compares each kind with the unknown ones by Welch's t. Outliers, which are the machine's and not the
// handler's, are cut off at the same quantile of all.
func TestRefusedCodesTakeTheSameTime(t *testing.T) {
	var handler http.Handler
	w := start(t, func(c *Config) {
		c.Limits = map[string]int{string(limits.Claim): 1 << 20, string(limits.Requests): 1 << 20}
		c.opened = func(b *running) { handler = b.api.Public() }
	})
	kinds := []string{"unknown", "burned", "expired", "used"}
	bodies := w.refusedClaims(kinds)
	call := func(kind string) float64 {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, wire.PathLinkClaim, bytes.NewReader(bodies[kind]))
		req.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		begin := time.Now()
		handler.ServeHTTP(rec, req)
		took := time.Since(begin)
		var p wire.Problem
		if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || rec.Code != 403 || p.Code != wire.CodeBadCode {
			t.Errorf("%s: %d %s", kind, rec.Code, rec.Body)
		}
		return float64(took)
	}
	times := inTurns(kinds, call)
	cut := quantile(times, 0.9)
	for _, kind := range kinds[1:] {
		got := welch(below(times["unknown"], cut), below(times[kind], cut))
		t.Logf("unknown and %s: t = %.2f", kind, got)
		if math.Abs(got) >= welchLimit {
			t.Errorf("%s is told from unknown by its time: t = %.2f, limit %.1f", kind, got, welchLimit)
		}
	}
}

// inTurns makes timedCalls calls of the kinds in turn, by several callers at once, since most of a call is waiting.
func inTurns(kinds []string, call func(string) float64) map[string][]float64 {
	const callers = 32
	var mu sync.Mutex
	var group sync.WaitGroup
	times := map[string][]float64{}
	for c := range callers {
		group.Go(func() {
			for range 10 { // warm up
				call(kinds[0])
			}
			for i := c; i < timedCalls; i += callers {
				kind := kinds[(i/callers+c)%len(kinds)]
				took := call(kind)
				mu.Lock()
				times[kind] = append(times[kind], took)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return times
}

// refusedClaims makes a session of each kind and the claim that is refused for it.
func (w *world) refusedClaims(kinds []string) map[string][]byte {
	d := w.enrol()
	d.connect()
	used := d.openLink(proof.ModeLink, proof.ScopePrompt)
	c := w.join(used, proof.ModeLink, proof.ScopePrompt)
	linked := d.typeDigits(c.digits)
	if _, err := c.link.Grant(linked.Message, w.clock.now()); err != nil {
		w.t.Fatal(err)
	}
	joined, err := c.link.Joined()
	if err != nil {
		w.t.Fatal(err)
	}
	w.ask(http.MethodPost, wire.PathLinkFinish, "", wire.LinkFinishRequest{Session: c.session, Finish: mustJSON(w.t, joined.Finish)}, nil)
	burned := d.openLink(proof.ModeLink, proof.ScopePrompt)
	w.join(burned, proof.ModeLink, proof.ScopePrompt)
	_, again := w.newClaim(burned, proof.ModeLink, proof.ScopePrompt)
	w.refused(http.MethodPost, wire.PathLinkClaim, "", again, 403, wire.CodeBadCode)
	expired := d.openLink(proof.ModeLink, proof.ScopePrompt)
	w.clock.advance(proof.LinkLife + time.Second)
	d.told(wire.FrameLinkLost)
	d.told(wire.FrameLinkLost)
	texts := map[string]string{
		"unknown": seal.FormatLink(w.started.PageOrigin, proof.LinkID{1}, seal.NewLinkSecret()), "used": used, "burned": burned, "expired": expired,
	}
	out := map[string][]byte{}
	for _, kind := range kinds {
		_, body := w.newClaim(texts[kind], proof.ModeLink, proof.ScopePrompt)
		out[kind] = mustJSON(w.t, body)
	}
	return out
}
