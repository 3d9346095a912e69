package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"cowork.example.com/broker/internal/topology"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// callTimeout bounds one call to the broker.
	callTimeout = 30 * time.Second
	// maxReportResults bounds the sealed results inside one report; the others follow as frames of their own.
	maxReportResults = 512 << 10
	// maxReportRows bounds a report; the broker takes no more open commands (mailbox.md, Rules).
	maxReportRows = 2000
	// maxTokens bounds the tokens that a link remembers.
	maxTokens = 2 * maxReportRows
)

// conn is what a link needs of the tunnel: a *tunnel.Link.
type conn interface {
	Call(ctx context.Context, class tunnel.Class, req []byte) ([]byte, error)
	Serve(h tunnel.Handler)
	Done() <-chan struct{}
	Err() error
	Close(reason string)
}

// link is one live link to the broker. What it brings counts once its report was answered, and only while it is the
// current one.
type link struct {
	run   *pairingRun
	conn  conn
	ready chan struct{} // closed when the report was answered and applied
	said  time.Time     // the broker's clock ...
	at    time.Time     // ... at this time of ours, whose monotonic part says how long ago that was

	mu     sync.Mutex
	tokens map[string]wire.Bytes // by command
	barred map[string]bool       // results that this link does not take
}

// dial keeps a link up until ctx ends.
func (p *pairingRun) dial(ctx context.Context) {
	broker, err := newBrokerHTTP(p.row.BrokerURL, p.agent.cfg.HTTP)
	if err != nil {
		p.log.Error("the journal's broker address is unusable", "error", err)
		return
	}
	cfg := p.agent.cfg.Dial
	cfg.URL, cfg.Logger = broker.tunnelURL(), p.log
	cfg.Header = func(ctx context.Context) (http.Header, error) { return p.upgradeHeader(ctx, broker) }
	r, err := tunnel.NewRedialer(tunnel.RedialConfig{
		Dial:   cfg,
		OnLink: func(l *tunnel.Link) { p.onLink(ctx, l) },
		OnState: func(s tunnel.State) {
			p.log.Info("link", "phase", s.Phase.String(), "attempts", s.Attempts, "error", s.LastErr)
		},
		GiveUp: p.givesUp,
	})
	if err != nil {
		p.log.Error("the tunnel cannot be configured", "error", err)
		return
	}
	p.mu.Lock()
	p.redialer = r
	p.mu.Unlock()
	if err := r.Run(ctx); err != nil {
		p.log.Error("redialling", "error", err)
	}
}

// givesUp reports whether dialling again is of no use: two programs fight over this identity, which only a person can
// end, or the pairing has ended and its broker knows.
func (p *pairingRun) givesUp(err error) bool {
	refused, ok := errors.AsType[*tunnel.HTTPError](err)
	switch {
	case !ok:
		return false
	case refused.Status == http.StatusForbidden && refused.Body == tunnel.ReasonConflict:
		return true
	case p.hasEnded() && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden):
		p.goodbye()
		return true
	}
	return false
}

// upgradeHeader signs a fresh nonce (pairing-protocol.md section 2). A broker with another key than the pinned one gets
// no signature.
func (p *pairingRun) upgradeHeader(ctx context.Context, broker *brokerHTTP) (http.Header, error) {
	n, err := broker.nonce(ctx, p.id.String())
	if err != nil {
		return nil, err
	}
	if string(n.BrokerKey) != string(p.row.BrokerKey[:]) {
		return nil, errors.New("the broker's key is not the one that was pinned when this desktop enrolled")
	}
	h := http.Header{}
	h.Set(wire.HeaderTunnelPairing, p.id.String())
	h.Set(wire.HeaderTunnelNonce, n.Nonce.String())
	h.Set(wire.HeaderTunnelTime, strconv.FormatInt(p.now().UnixMilli(), 10))
	sig := proof.SignTunnel(p.dsig(), p.row.BrokerKey, n.Nonce, broker.host())
	h.Set(wire.HeaderTunnelSignature, wire.Bytes(sig).String())
	return h, nil
}

// onLink lives as long as the link does.
func (p *pairingRun) onLink(ctx context.Context, c conn) {
	l := &link{run: p, conn: c, ready: make(chan struct{}), tokens: map[string]wire.Bytes{}, barred: map[string]bool{}}
	c.Serve(l.serve)
	err := l.open(ctx)
	p.setProblem(err)
	if err != nil {
		p.log.Warn("the link could not be opened", "error", err)
		c.Close("hello_failed")
	}
	select {
	case <-c.Done():
	case <-ctx.Done():
		c.Close(tunnel.ReasonGoingAway)
	}
	p.lost(l)
}

// open says hello with the journal's report, applies the answer, and lets the link count from then on.
func (l *link) open(ctx context.Context) error {
	p := l.run
	p.inbox.Lock() // from here on no older link's delivery is taken
	p.mu.Lock()
	p.current = l
	p.mu.Unlock()
	p.inbox.Unlock()
	hello, err := p.hello(ctx)
	if err != nil {
		return err
	}
	var reply wire.HelloReply
	if err := l.Call(ctx, tunnel.Control, wire.FrameHello, hello, &reply); err != nil {
		return err
	}
	if reply.Protocol < wire.ProtocolMin || reply.Protocol > wire.ProtocolMax {
		return fmt.Errorf("the broker chose protocol %d, which was not offered", reply.Protocol)
	}
	l.said, l.at = time.UnixMilli(reply.Time), p.now()
	if err := clockSkew(l.at, l.said); err != nil {
		p.log.Warn("commands are refused until the clocks agree", "error", err)
	}
	if err := p.applyRevocations(ctx, reply.Revoked); err != nil { // before anything is sealed or sent
		return err
	}
	if err := l.applyReport(ctx, reply.Report); err != nil {
		return err
	}
	p.publish.Lock()
	err = p.pub.Connected(ctx, l, reply)
	p.publish.Unlock()
	if err != nil {
		return err
	}
	p.pub.Attached(reply.Attached)
	close(l.ready)
	poke(p.results)
	if p.hasEnded() { // revoked while the broker could not be told
		p.sched.once(p.farewell)
	}
	return nil
}

// setProblem keeps why the last link could not be opened, for the status page.
func (p *pairingRun) setProblem(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problem = ""
	if err != nil {
		p.problem = err.Error()
	}
}

// hello is the first frame, with the journal's state.
func (p *pairingRun) hello(ctx context.Context) (wire.Hello, error) {
	report, err := p.report(ctx)
	if err != nil {
		return wire.Hello{}, err
	}
	surfaces, err := p.journal.Surfaces(ctx, p.id)
	if err != nil {
		return wire.Hello{}, err
	}
	h := wire.Hello{
		ProtocolMin: wire.ProtocolMin, ProtocolMax: wire.ProtocolMax, Time: p.now().UnixMilli(), Version: p.agent.cfg.Version,
		Executor: p.agent.exec.Health(ctx).Executor, Kinds: topology.Kinds(topology.DesktopLocal, topology.Sealed),
		Bundle: p.ident.Keys().Bundle(), Report: report, Revoked: []string{},
	}
	for _, s := range surfaces {
		if !s.Revoked.IsZero() {
			h.Revoked = append(h.Revoked, s.ID.String())
		}
	}
	signed := proof.Hello{
		Broker: p.row.BrokerKey, Time: h.Time, JournalID: report.JournalID, Counter: report.Counter, HighWater: report.HighWater,
	}
	h.Sig = signed.Sign(p.dsig())
	return h, nil
}

// lost forgets a link that has ended.
func (p *pairingRun) lost(l *link) {
	p.mu.Lock()
	mine := p.current == l
	if mine {
		p.current = nil
	}
	p.mu.Unlock()
	if mine {
		p.publish.Lock()
		p.pub.Disconnected()
		p.publish.Unlock()
	}
}

// live is the current link once its report was answered, or nil.
func (p *pairingRun) live() *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil || !p.current.counts() {
		return nil
	}
	return p.current
}

func (l *link) counts() bool {
	select {
	case <-l.ready:
		return true
	default:
		return false
	}
}

// brokerTime is the broker's clock now, as far as its hello told; zero when no broker spoke.
func (p *pairingRun) brokerTime(now time.Time) time.Time {
	l := p.live()
	if l == nil {
		return time.Time{}
	}
	return l.said.Add(now.Sub(l.at))
}

// Call implements caller.
func (l *link) Call(ctx context.Context, class tunnel.Class, frame string, body, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := json.Marshal(wire.Frame{Type: frame, Body: raw})
	if err != nil {
		return err
	}
	answer, err := l.conn.Call(ctx, class, req)
	if err != nil {
		return fmt.Errorf("%s: %w", frame, err)
	}
	var f wire.Frame
	if err := json.Unmarshal(answer, &f); err != nil {
		return fmt.Errorf("%s: the broker's reply is malformed", frame)
	}
	if reply == nil || len(f.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(f.Body, reply); err != nil {
		return fmt.Errorf("%s: the broker's reply is malformed", frame)
	}
	return nil
}

func (l *link) token(command string) wire.Bytes {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tokens[command]
}

// setToken keeps a command's token until its result was taken. A broker that hands out more than it may lets us forget
// all: the next result then meets a stale token, and a report brings the ones that count.
func (l *link) setToken(command string, token wire.Bytes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.tokens) >= maxTokens {
		clear(l.tokens)
	}
	l.tokens[command] = token
}

func (l *link) forget(command string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tokens, command)
}
