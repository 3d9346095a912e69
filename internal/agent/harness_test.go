package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// patience is how long a test waits for what must come; only a broken test waits so long.
const patience = 20 * time.Second

// memorySecrets is a keystore in memory; it outlives agents.
type memorySecrets struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (m *memorySecrets) Get(_ context.Context, name string) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[name]
	return slices.Clone(v), ok, nil
}

func (m *memorySecrets) Set(_ context.Context, name string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name] = slices.Clone(value)
	return nil
}

func (m *memorySecrets) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, name)
	return nil
}

// recorder stands for the publisher and the linker where a test is about neither: it keeps what it was told.
type recorder struct {
	mu    sync.Mutex
	calls []string
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
}

func (r *recorder) has(call string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.calls, call)
}

func (r *recorder) Event(e wire.ExecEvent) { r.note("event %s", e.Type) }
func (r *recorder) Connected(_ context.Context, _ caller, h wire.HelloReply) error {
	r.note("connected %d", h.BatchSeq)
	return nil
}
func (r *recorder) Disconnected()                         { r.note("disconnected") }
func (r *recorder) SurfacesChanged(context.Context) error { r.note("surfaces changed"); return nil }
func (r *recorder) Attached(n int)                        { r.note("attached %d", n) }
func (r *recorder) RequestBytes(string) ([]byte, proof.Digest, bool) {
	return nil, proof.Digest{}, false
}

func (r *recorder) CloseRequest(id, outcome, by string) { r.note("close %s %s %s", id, outcome, by) }
func (r *recorder) Notice(e wire.Event)                 { r.note("notice %s", e.Type) }
func (r *recorder) Run(ctx context.Context) error       { <-ctx.Done(); return nil }
func (r *recorder) Start(_ context.Context, mode string, decide bool) (LinkTicket, error) {
	r.note("start %s %v", mode, decide)
	return LinkTicket{Mode: mode, Link: "https://p/p#1.x"}, nil
}

func (r *recorder) Events(ctx context.Context, after int) ([]LinkEvent, error) {
	if after > 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return []LinkEvent{{Seq: 1, Type: LinkWaiting}}, nil
}

func (r *recorder) Digits(_ context.Context, digits string) error {
	r.note("digits %s", digits)
	return nil
}
func (r *recorder) Cancel(context.Context) error { r.note("cancel"); return nil }
func (r *recorder) HandleClaim(_ context.Context, c wire.LinkClaim) (wire.LinkOffer, error) {
	r.note("claim %s", c.Network)
	return wire.LinkOffer{Offer: json.RawMessage(`{}`)}, nil
}

func (r *recorder) HandleReveal(context.Context, wire.LinkReveal) error { r.note("reveal"); return nil }

func (r *recorder) HandleFinish(context.Context, wire.LinkFinish) error { r.note("finish"); return nil }

func (r *recorder) HandleLost(_ context.Context, e wire.LinkEnd) error {
	r.note("lost %s", e.Reason)
	return nil
}

// phone is a linked surface with its keys and its place in the chain.
type phone struct {
	keys  *seal.Surface
	id    proof.SurfaceID
	label string
	chain proof.Chain
}

// desktop is one pairing's desktop under test: journal and keystore stay while agents come and go.
type desktop struct {
	t       *testing.T
	dir     string
	secrets *memorySecrets
	keys    *seal.Desktop
	id      proof.PairingID
	exec    *fakeExecutor
	machine string
	broker  *fakeBroker

	clock  sync.Mutex
	offset time.Duration

	agent *Agent
	run   *pairingRun
	rec   *recorder
	stop  func()
}

// newDesktop enrols a desktop, without starting its agent.
func newDesktop(t *testing.T) *desktop {
	t.Helper()
	keys, err := seal.NewDesktop(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	d := &desktop{
		t: t, dir: t.TempDir(), secrets: &memorySecrets{values: map[string][]byte{}}, keys: keys, id: keys.Pairing(),
		exec: newFakeExecutor(), machine: "machine-a", broker: newFakeBroker(),
	}
	if err := d.secrets.Set(t.Context(), keysName(d.id), keys.Export()); err != nil {
		t.Fatal(err)
	}
	j := d.openJournal()
	policy := pairing.DefaultPolicy()
	policy.RemoteApprovals, policy.RemoteQuestions = pairing.RemoteAllowed, pairing.RemoteAllowed
	document, _ := json.Marshal(policy)
	d.record(j, journal.PutPairing(journal.Pairing{ID: d.id, BrokerURL: "http://127.0.0.1:1", Host: "desk", Enrolled: d.now(), Policy: document}))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.halt() })
	return d
}

func (d *desktop) now() time.Time {
	d.clock.Lock()
	defer d.clock.Unlock()
	return time.Now().Add(d.offset)
}

// shift moves the desktop's clock.
func (d *desktop) shift(by time.Duration) {
	d.clock.Lock()
	defer d.clock.Unlock()
	d.offset += by
}

func (d *desktop) openJournal() *journal.Journal {
	d.t.Helper()
	j, err := OpenJournal(context.Background(), d.dir, d.machine, d.now())
	if err != nil {
		d.t.Fatal(err)
	}
	return j
}

func (d *desktop) record(j *journal.Journal, changes ...journal.Change) {
	d.t.Helper()
	err := j.Record(context.Background(), d.now(), []journal.Line{{Type: audit.SurfaceLinked, Pairing: d.id.String()}}, changes...)
	if err != nil {
		d.t.Fatal(err)
	}
}

// link links a surface while no agent runs, or into the running one's journal.
func (d *desktop) link(label string, scope proof.Scope) *phone {
	d.t.Helper()
	keys, err := seal.NewSurface()
	if err != nil {
		d.t.Fatal(err)
	}
	p := &phone{keys: keys, id: keys.ID(d.id), label: label}
	now := d.now()
	grant := proof.Grant{
		Pairing: d.id, Surface: p.id, Ssig: keys.Ssig(), Skem: keys.Skem(), Scopes: proof.ScopesUpTo(scope), Serial: 1,
		Issued: now.UnixMilli(), NotAfter: now.Add(90 * 24 * time.Hour).UnixMilli(), Transcript: proof.Digest{1},
	}
	put := journal.PutSurface(journal.Surface{
		Pairing: d.id, ID: p.id, Label: label, Scopes: grant.Scopes, Ssig: grant.Ssig, Skem: grant.Skem,
		Grant: grant.Sign(d.keys.Signer()), Serial: 1, Issued: now, NotAfter: now.Add(90 * 24 * time.Hour),
	})
	if d.agent != nil {
		d.record(d.agent.journal, put)
		return p
	}
	j := d.openJournal()
	defer j.Close()
	d.record(j, put)
	return p
}

// make opens the agent without running it.
func (d *desktop) make() (*Agent, error) {
	d.rec = &recorder{}
	make_ := realParts(d.secrets)
	make_.publisher = func(deps, identityAPI) publisherAPI { return d.rec }
	make_.linker = func(deps, identityAPI, publisherAPI) linkerAPI { return d.rec }
	a, err := newAgent(context.Background(), Config{
		StateDir: d.dir, Secrets: d.secrets, Machine: d.machine, Version: "test", Now: d.now,
		Executor: func(s Seed) (Executor, error) { d.exec.seed = s; return d.exec, nil },
		Logger:   slog.New(slog.NewTextHandler(testWriter{d.t}, &slog.HandlerOptions{Level: slog.LevelError})),
	}, make_)
	if err != nil {
		return nil, err
	}
	a.dial = func(p *pairingRun, ctx context.Context) { d.broker.keepUp(ctx, p) }
	return a, nil
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) { w.t.Logf("%s", p); return len(p), nil }

// start runs the agent. It is connected to the fake broker when connect is true.
func (d *desktop) start() {
	d.t.Helper()
	a, err := d.make()
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	d.agent, d.run = a, a.list[0]
	go func() { ended <- a.Run(ctx) }()
	d.stop = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				d.t.Errorf("agent: %v", err)
			}
		case <-time.After(patience):
			d.t.Error("the agent does not stop")
		}
		if err := a.Close(); err != nil {
			d.t.Errorf("closing: %v", err)
		}
	}
}

// halt stops the agent, if one runs.
func (d *desktop) halt() {
	if d.stop != nil {
		d.stop()
		d.stop, d.agent, d.run = nil, nil, nil
	}
}

// restart is a crash as the journal sees it: whatever was under way is left where it is.
func (d *desktop) restart() {
	d.t.Helper()
	d.halt()
	d.start()
	d.broker.connected(d.t)
}

// boot starts and connects.
func (d *desktop) boot() {
	d.t.Helper()
	d.start()
	d.broker.connected(d.t)
}

// command seals the phone's next envelope, valid for the kind's life.
func (d *desktop) command(p *phone, kind proof.Kind, payload any) []byte {
	d.t.Helper()
	return d.commandFor(p, kind, payload, d.now(), kind.Life())
}

func (d *desktop) commandFor(p *phone, kind proof.Kind, payload any, iat time.Time, life time.Duration) []byte {
	d.t.Helper()
	raw, ok := payload.([]byte)
	if !ok {
		var err error
		if raw, err = json.Marshal(payload); err != nil {
			d.t.Fatal(err)
		}
	}
	bundle, err := proof.OpenBundle(d.keys.Dsig(), d.currentKeys().Bundle())
	if err != nil {
		d.t.Fatal(err)
	}
	e, err := p.keys.SealCommand(bundle, seal.Command{Kind: kind, Payload: raw, Iat: iat, Exp: iat.Add(life)}, p.chain)
	if err != nil {
		d.t.Fatal(err)
	}
	p.take(d.t, e)
	return e
}

// currentKeys are those of the keystore: recover changes them.
func (d *desktop) currentKeys() *seal.Desktop {
	raw, _, _ := d.secrets.Get(context.Background(), keysName(d.id))
	keys, err := seal.LoadDesktop(raw)
	if err != nil {
		d.t.Fatal(err)
	}
	return keys
}

// take moves the phone's chain to an envelope.
func (p *phone) take(t *testing.T, envelope []byte) {
	t.Helper()
	e, err := proof.ParseEnvelope(envelope)
	if err != nil {
		t.Fatal(err)
	}
	p.chain = p.chain.Advance(e.Header, e.Hash())
}

// result waits for a command's result at the broker and opens it as the phone.
func (d *desktop) result(p *phone, command string) (proof.ResultHeader, wire.ResultBody) {
	d.t.Helper()
	r := d.broker.result(d.t, command)
	h, raw, err := p.keys.OpenResult(d.keys.Dsig(), r.Sealed)
	if err != nil {
		d.t.Fatalf("result of %s (%s %s): %v", command, r.State, r.Reason, err)
	}
	var body wire.ResultBody
	if err := json.Unmarshal(raw, &body); err != nil {
		d.t.Fatal(err)
	}
	if h.State != r.State || body.Status != r.State || h.Command != command {
		d.t.Fatalf("result header %+v, frame %+v, body %+v do not agree", h, r, body)
	}
	return h, body
}

// auditTypes are the types and reasons of all lines, oldest first.
func (d *desktop) auditTypes() []string {
	d.t.Helper()
	entries, err := d.agent.journal.Audit(context.Background(), 0, 10000)
	if err != nil {
		d.t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		var line wire.AuditLine
		if err := json.Unmarshal(e.Line, &line); err != nil {
			d.t.Fatal(err)
		}
		all = append(all, line.Type+" "+line.Reason)
	}
	return all
}

func (d *desktop) wantLine(line string) {
	d.t.Helper()
	if all := d.auditTypes(); !slices.Contains(all, line) {
		d.t.Errorf("no audit line %q in %q", line, all)
	}
}

// fakeBroker is the broker's end of fakeConns: it keeps what arrives, and answers as it is told.
type fakeBroker struct {
	mu      sync.Mutex
	results map[string]wire.Result
	seen    []string // frame types, in order
	hello   []wire.Hello
	reply   func(h wire.Hello) wire.HelloReply
	refuse  map[string]string // frame type -> code, once each
	change  chan struct{}     // closed and made anew at each change
	links   []*fakeConn
	online  bool
	offset  time.Duration // of the broker's clock
	next    int
}

func newFakeBroker() *fakeBroker {
	return &fakeBroker{results: map[string]wire.Result{}, refuse: map[string]string{}, change: make(chan struct{}), online: true}
}

// keepUp makes a link whenever there is none and the broker is online.
func (b *fakeBroker) keepUp(ctx context.Context, p *pairingRun) {
	for {
		if b.waitOnline(ctx) != nil {
			return
		}
		c := &fakeConn{broker: b, done: make(chan struct{}), served: make(chan struct{})}
		b.mu.Lock()
		b.links = append(b.links, c)
		b.mu.Unlock()
		p.onLink(ctx, c)
		if ctx.Err() != nil {
			return
		}
	}
}

func (b *fakeBroker) waitOnline(ctx context.Context) error {
	for {
		b.mu.Lock()
		ok, change := b.online, b.change
		b.mu.Unlock()
		if ok {
			return ctx.Err()
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *fakeBroker) setOnline(online bool) {
	b.mu.Lock()
	b.online = online
	links := b.links
	b.changed()
	b.mu.Unlock()
	if !online {
		for _, c := range links {
			c.Close("test")
		}
	}
}

// changed wakes whoever waits; the caller holds mu.
func (b *fakeBroker) changed() {
	close(b.change)
	b.change = make(chan struct{})
}

// until waits until ok holds.
func (b *fakeBroker) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		b.mu.Lock()
		good, change := ok(), b.change
		b.mu.Unlock()
		if good {
			return
		}
		select {
		case <-change:
		case <-deadline:
			t.Fatalf("waited in vain for %s; frames so far: %q", what, b.seen)
		}
	}
}

// connected waits for a live link whose hello was answered, and returns it.
func (b *fakeBroker) connected(t *testing.T) *fakeConn {
	t.Helper()
	var c *fakeConn
	b.until(t, "a link", func() bool {
		if len(b.links) == 0 {
			return false
		}
		c = b.links[len(b.links)-1]
		return c.helloed && !c.isDone()
	})
	return c
}

func (b *fakeBroker) result(t *testing.T, command string) wire.Result {
	t.Helper()
	var r wire.Result
	b.until(t, "the result of "+command, func() bool {
		var ok bool
		r, ok = b.results[command]
		return ok
	})
	return r
}

// newID is a fresh mailbox id.
func (b *fakeBroker) newID() (string, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return fmt.Sprintf("cmd_%d", b.next), uint64(b.next)
}

// handle answers a frame of the agent.
func (b *fakeBroker) handle(c *fakeConn, f wire.Frame) (any, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.changed()
	b.seen = append(b.seen, f.Type)
	if code := b.refuse[f.Type]; code != "" {
		delete(b.refuse, f.Type)
		return nil, &tunnel.CallError{Code: code}
	}
	switch f.Type {
	case wire.FrameHello:
		var h wire.Hello
		if err := json.Unmarshal(f.Body, &h); err != nil {
			return nil, err
		}
		b.hello = append(b.hello, h)
		c.helloed = true
		return b.helloReply(h), nil
	case wire.FrameResult:
		var r wire.Result
		if err := json.Unmarshal(f.Body, &r); err != nil {
			return nil, err
		}
		b.results[r.Command] = r
	case wire.FrameReport:
		var r wire.Report
		if err := json.Unmarshal(f.Body, &r); err != nil {
			return nil, err
		}
		return tokensFor(r), nil
	}
	return wire.Durable{}, nil
}

func (b *fakeBroker) helloReply(h wire.Hello) wire.HelloReply {
	reply := wire.HelloReply{Protocol: 1, Time: time.Now().Add(b.offset).UnixMilli(), Report: tokensFor(h.Report)}
	if b.reply != nil {
		reply = b.reply(h)
	}
	return reply
}

func tokensFor(r wire.Report) wire.ReportReply {
	var reply wire.ReportReply
	for _, row := range r.Open {
		reply.Rows = append(reply.Rows, wire.RowToken{Command: row.Command, Token: wire.Bytes("token")})
	}
	return reply
}

func (b *fakeBroker) sawFrame(frame string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.seen, frame)
}

// fakeConn is a link without a network.
type fakeConn struct {
	broker  *fakeBroker
	handler tunnel.Handler
	served  chan struct{}
	once    sync.Once
	done    chan struct{}
	helloed bool // guarded by broker.mu
}

var errCut = errors.New("cut")

func (c *fakeConn) Call(ctx context.Context, _ tunnel.Class, req []byte) ([]byte, error) {
	if c.isDone() {
		return nil, errCut
	}
	var f wire.Frame
	if err := json.Unmarshal(req, &f); err != nil {
		return nil, err
	}
	reply, err := c.broker.handle(c, f)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(reply)
	if err != nil {
		return nil, err
	}
	if c.isDone() {
		return nil, errCut
	}
	return json.Marshal(wire.Frame{Body: body})
}

func (c *fakeConn) Serve(h tunnel.Handler) { c.handler = h; close(c.served) }
func (c *fakeConn) Done() <-chan struct{}  { return c.done }
func (c *fakeConn) Err() error             { return errCut }
func (c *fakeConn) Close(string) {
	c.once.Do(func() {
		close(c.done)
		c.broker.mu.Lock()
		defer c.broker.mu.Unlock()
		c.broker.changed()
	})
}

func (c *fakeConn) isDone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// send gives the agent a frame and decodes its reply.
func (c *fakeConn) send(class tunnel.Class, frame string, body, reply any) error {
	<-c.served
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := json.Marshal(wire.Frame{Type: frame, Body: raw})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := c.handler(ctx, class, req)
	if err != nil || reply == nil {
		return err
	}
	var f wire.Frame
	if err := json.Unmarshal(answer, &f); err != nil {
		return err
	}
	return json.Unmarshal(f.Body, reply)
}

// deliver hands an envelope over under a fresh id and wants the given state.
func (d *desktop) deliver(envelope []byte, want string) (command string) {
	d.t.Helper()
	command, sequence := d.broker.newID()
	d.deliverAs(command, sequence, envelope, want)
	return command
}

func (d *desktop) deliverAs(command string, sequence uint64, envelope []byte, want string) {
	d.t.Helper()
	var got wire.Delivered
	err := d.broker.connected(d.t).send(tunnel.Command, wire.FrameDeliver,
		wire.Deliver{Command: command, Sequence: sequence, Token: wire.Bytes("token"), Envelope: envelope}, &got)
	if err != nil {
		d.t.Fatal(err)
	}
	if got.State != want {
		row, _ := d.agent.journal.Command(context.Background(), d.id, command)
		d.t.Fatalf("delivered %s: %s (%s), want %s", command, got.State, row.Reason, want)
	}
}

func (d *desktop) stopCommand(command, why string) string {
	d.t.Helper()
	var got wire.Stopped
	if err := d.broker.connected(d.t).send(tunnel.Control, wire.FrameStop, wire.Stop{Command: command, Why: why}, &got); err != nil {
		d.t.Fatal(err)
	}
	return got.Answer
}

func (d *desktop) row(command string) journal.Row {
	d.t.Helper()
	row, err := d.agent.journal.Command(context.Background(), d.id, command)
	if err != nil {
		d.t.Fatalf("row of %s: %v", command, err)
	}
	return row
}

// settled waits until ok holds; what it looks at tells nobody when it changes.
func (d *desktop) settled(what string, ok func() bool) {
	d.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			d.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (d *desktop) client() *Client { return NewClient(d.dir) }

// ready waits for the control socket.
func (d *desktop) ready() *Client {
	d.t.Helper()
	d.settled("the control socket", func() bool {
		_, err := d.client().Status(context.Background())
		return err == nil
	})
	return d.client()
}
