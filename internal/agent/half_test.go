package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/internal/redact"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// half is what linker, publisher and identity stand on: a real journal and keystore, and a broker that a test plays.
type half struct {
	t         *testing.T
	dir       string
	secrets   *memorySecrets
	keys      *seal.Desktop
	journal   *journal.Journal
	id        *identity
	broker    *played
	deps      deps
	lastAsked *joiner
}

// played is the broker's end of every call.
type played struct {
	mu     sync.Mutex
	off    bool
	frames []wire.Frame
	answer map[string]func(body json.RawMessage) (any, error) // by frame; others succeed
	came   chan struct{}                                      // closed and made anew
}

func (p *played) Call(_ context.Context, _ tunnel.Class, frame string, body, reply any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	p.mu.Lock()
	answer := p.answer[frame]
	p.mu.Unlock()
	var out any
	if answer != nil {
		if out, err = answer(raw); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.frames = append(p.frames, wire.Frame{Type: frame, Body: raw})
	close(p.came)
	p.came = make(chan struct{})
	p.mu.Unlock()
	if reply == nil || out == nil {
		return nil
	}
	if raw, err = json.Marshal(out); err != nil {
		return err
	}
	return json.Unmarshal(raw, reply)
}

func (p *played) on(frame string, answer func(json.RawMessage) (any, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer[frame] = answer
}

// of returns the bodies of a type of frame.
func (p *played) of(frame string) (all []json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.frames {
		if f.Type == frame {
			all = append(all, f.Body)
		}
	}
	return all
}

func (p *played) link() caller {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return offline{}
	}
	return p
}

func newHalf(t *testing.T) *half {
	t.Helper()
	keys, err := seal.NewDesktop(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := &half{t: t, dir: t.TempDir(), secrets: &memorySecrets{values: map[string][]byte{}}, keys: keys}
	h.broker = &played{answer: map[string]func(json.RawMessage) (any, error){}, came: make(chan struct{})}
	h.broker.on(wire.FrameLinkOpen, func(json.RawMessage) (any, error) { return wire.LinkOpened{Nameplate: "42"}, nil })
	if err := h.secrets.Set(t.Context(), keysName(keys.Pairing()), keys.Export()); err != nil {
		t.Fatal(err)
	}
	if h.id, err = openIdentity(t.Context(), h.secrets, keys.Pairing()); err != nil {
		t.Fatal(err)
	}
	h.open()
	policy, err := json.Marshal(pairing.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	h.deps.pairing = journal.Pairing{
		ID: keys.Pairing(), BrokerURL: "http://127.0.0.1:1", PageOrigin: "http://127.0.0.1:1", Host: "desk", Enrolled: time.Now(), Policy: policy,
	}
	h.record(journal.PutPairing(h.deps.pairing))
	return h
}

// open opens the journal, again after close.
func (h *half) open() {
	h.t.Helper()
	j, err := OpenJournal(context.Background(), h.dir, "machine", time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	h.journal = j
	h.deps = deps{
		pairing: h.deps.pairing, journal: j, link: h.broker.link, policy: h.policy, now: time.Now, log: slog.New(slog.DiscardHandler),
		redactor: func() *redact.Redactor { return redactorFor(h.policy(), nil) },
	}
}

func (h *half) close() {
	if err := h.journal.Close(); err != nil {
		h.t.Error(err)
	}
}

// reopen is a crash between two steps: everything in memory is gone.
func (h *half) reopen() *linker {
	h.close()
	h.open()
	return h.linker()
}

func (h *half) linker() *linker { return newLinker(h.deps, h.id, &recorder{}) }

func (h *half) policy() pairing.Policy {
	row, err := h.journal.Pairing(context.Background(), h.keys.Pairing())
	if err != nil {
		h.t.Fatal(err)
	}
	p, err := pairing.ParsePolicy(row.Policy)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (h *half) record(changes ...journal.Change) {
	h.t.Helper()
	err := h.journal.Record(context.Background(), time.Now(), []journal.Line{{Type: audit.PairingEnrolled, Pairing: h.keys.Pairing().String()}}, changes...)
	if err != nil {
		h.t.Fatal(err)
	}
}

// lines are the types and reasons of the audit lines, oldest first.
func (h *half) lines() (all []string) {
	entries, err := h.journal.Audit(context.Background(), 0, 10000)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		var line wire.AuditLine
		if err := json.Unmarshal(e.Line, &line); err != nil {
			h.t.Fatal(err)
		}
		text := line.Type
		if line.Reason != "" {
			text += " " + line.Reason
		}
		all = append(all, text)
	}
	return all
}

func (h *half) wantLines(want ...string) {
	h.t.Helper()
	got := h.lines()
	if len(got) < len(want) || !slices.Equal(got[len(got)-len(want):], want) {
		h.t.Errorf("the last audit lines are %q, want %q", got, want)
	}
}

func (h *half) surfaces() []journal.Surface {
	h.t.Helper()
	all, err := h.journal.Surfaces(context.Background(), h.keys.Pairing())
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// wantSession wants the newest session of the journal in a state.
func (h *half) wantSession(l *linker, state, reason string) {
	h.t.Helper()
	s, err := h.journal.LinkSession(context.Background(), h.keys.Pairing(), newestOf(l).Pid)
	if err != nil || s.State != state || s.Reason != reason {
		h.t.Errorf("the session is %q %q (%v), want %q %q", s.State, s.Reason, err, state, reason)
	}
}

// joiner is a surface that was given a ticket.
type joiner struct {
	link  *seal.SurfaceLink
	claim proof.Claim
	shown seal.Shown
}

// join makes the surface of a ticket.
func (h *half) join(ticket LinkTicket, scope proof.Scope) *joiner {
	h.t.Helper()
	join, text := seal.JoinLink, ticket.Link
	if ticket.Mode == "code" {
		join, text = seal.JoinCode, ticket.Code
	}
	link, err := join(text, "http://127.0.0.1:1", "phone", scope, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	a := &joiner{link: link}
	h.lastAsked = a
	if a.claim, err = link.Claim(time.Now()); err != nil {
		h.t.Fatal(err)
	}
	return a
}

func message(t *testing.T, m any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// claimed brings the claim to the desktop and its offer back.
func (h *half) claimed(l *linker, a *joiner) error {
	offer, err := l.HandleClaim(context.Background(), wire.LinkClaim{Pid: pidOf(l), Claim: message(h.t, a.claim), Network: "192.0.2.0", Agent: "test"})
	if err != nil {
		return err
	}
	o, err := proof.ParseMessage[proof.Offer](offer.Offer)
	if err != nil {
		return err
	}
	reveal, shown, err := a.link.Offer(o, time.Now())
	if err != nil {
		return err
	}
	a.shown = shown
	return l.HandleReveal(context.Background(), wire.LinkReveal{Pid: pidOf(l), Reveal: message(h.t, reveal)})
}

// granted takes the newest grant that the broker was given.
func (h *half) granted(a *joiner) (needsCode bool) {
	h.t.Helper()
	var g wire.LinkGranted
	all := h.broker.of(wire.FrameLinkGrant)
	if len(all) == 0 {
		h.t.Fatal("no grant")
	}
	if err := json.Unmarshal(all[len(all)-1], &g); err != nil {
		h.t.Fatal(err)
	}
	m, err := proof.ParseMessage[proof.GrantMsg](g.Grant)
	if err != nil {
		h.t.Fatal(err)
	}
	needsCode, err = a.link.Grant(m, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	return needsCode
}

// finished brings the surface's last message.
func (h *half) finished(l *linker, a *joiner) error {
	h.t.Helper()
	joined, err := a.link.Joined()
	if err != nil {
		h.t.Fatal(err)
	}
	return l.HandleFinish(context.Background(), wire.LinkFinish{Pid: pidOf(l), Finish: message(h.t, joined.Finish)})
}

func wantControl(t *testing.T, err error, code string) {
	t.Helper()
	if refused, ok := errors.AsType[*ControlError](err); !ok || refused.Code != code {
		t.Errorf("refused with %v, want %s", err, code)
	}
}

// newestOf is the newest session as the linker has it.
func newestOf(l *linker) journal.LinkSession {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.row
}

func pidOf(l *linker) wire.Bytes {
	pid := newestOf(l).Pid
	return pid[:]
}
