package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// poll is what an Open Cowork Desktop waits between two questions for work.
	poll = 2500 * time.Millisecond
	// rest is between a command's end and the next tap.
	rest = 20 * time.Millisecond
)

// tap: a real surface, the real broker in a process of its own, and a real agent with its journal, whose executor is
// the echo that notes when it was called. A new surface for each sample, since one may send 120 commands at once.
func (b *bench) tap(ctx context.Context) ([]figure, error) {
	desk, err := b.newDesk(ctx)
	if err != nil {
		return nil, err
	}
	defer desk.close()
	bare, err := newBarePost(filepath.Join(desk.node.lab.Dir, "bare"))
	if err != nil {
		return nil, err
	}
	defer bare.close()
	f := newTapFigures()
	for range b.samples {
		bareTimes, err := bare.sample(ctx, b.taps)
		if err != nil {
			return nil, err
		}
		s, err := desk.sample(ctx, b.taps)
		if err != nil {
			return nil, err
		}
		f.add(ms(s.post), ms(s.whole), ms(s.result), ms(bareTimes))
	}
	return f.rows(), nil
}

// tapFigures are the rows of tap.
type tapFigures struct{ post50, post99, whole50, whole99, result50, result99, bare50, bare99, ratio, sooner figure }

func newTapFigures() *tapFigures {
	return &tapFigures{
		post50:   figure{what: "post → executor, p50", unit: "ms", goal: atMost(10)},
		post99:   figure{what: "post → executor, p99", unit: "ms", goal: atMost(50)},
		whole50:  figure{what: "the same from the tap on (asks for the key, seals, writes its own file), p50", unit: "ms"},
		whole99:  figure{what: "the same, p99", unit: "ms"},
		result50: figure{what: "tap → signed result at the surface, p50", unit: "ms"},
		result99: figure{what: "the same, p99", unit: "ms"},
		bare50:   figure{what: "baseline: loopback POST, fsync, loopback POST, fsync, p50", unit: "ms"},
		bare99:   figure{what: "the same, p99", unit: "ms"},
		ratio:    figure{what: "post → executor over baseline, p50", unit: "×", goal: atMost(3)},
		sooner:   figure{what: "sooner than the contract's poll of 2.5 s (mean wait 1.25 s, computed), p50", unit: "×", goal: atLeast(100)},
	}
}

func (f *tapFigures) add(post, whole, result, bare []float64) {
	put := func(f *figure, v float64) { f.samples = append(f.samples, v) }
	put(&f.post50, at(post, 0.5))
	put(&f.post99, at(post, 0.99))
	put(&f.whole50, at(whole, 0.5))
	put(&f.whole99, at(whole, 0.99))
	put(&f.result50, at(result, 0.5))
	put(&f.result99, at(result, 0.99))
	put(&f.bare50, at(bare, 0.5))
	put(&f.bare99, at(bare, 0.99))
	put(&f.ratio, at(post, 0.5)/at(bare, 0.5))
	put(&f.sooner, float64(poll/2)/float64(time.Millisecond)/at(post, 0.5))
}

func (f *tapFigures) rows() []figure {
	return []figure{f.post50, f.post99, f.ratio, f.sooner, f.whole50, f.whole99, f.result50, f.result99, f.bare50, f.bare99}
}

// desk is one real desktop under the bench: agent, journal, echo.
type desk struct {
	node   *node
	agent  *agent.Agent
	client *agent.Client
	posted atomic.Int64   // when the surface began its last post, Unix ns
	called chan time.Time // when the executor was called with a prompt
	stop   context.CancelFunc
	ended  chan error
}

func (b *bench) newDesk(ctx context.Context) (*desk, error) {
	d := &desk{called: make(chan time.Time, 1), ended: make(chan error, 1)}
	var err error
	if d.node, err = b.newNode(); err != nil {
		return nil, err
	}
	if err := d.begin(ctx); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *desk) begin(ctx context.Context) error {
	if err := d.node.start(); err != nil {
		return err
	}
	dir := filepath.Join(d.node.lab.Dir, "d")
	secrets, err := agent.OpenSecrets("file", dir)
	if err != nil {
		return err
	}
	if err := d.enrol(ctx, dir, secrets); err != nil {
		return err
	}
	d.agent, err = agent.New(ctx, agent.Config{
		StateDir: dir, Secrets: secrets, Machine: "bench", Version: "bench", Dial: agent.Network(nil, "direct"), Now: time.Now,
		Executor: func(agent.Seed) (agent.Executor, error) { return &timed{agent.NewEcho(time.Now), d.called}, nil },
	})
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	d.stop, d.client = stop, agent.NewClient(dir)
	go func() {
		d.ended <- d.agent.Run(run)
		close(d.ended)
	}()
	return d.online(ctx)
}

func (d *desk) enrol(ctx context.Context, dir string, secrets agent.Secrets) error {
	code, err := d.node.code(ctx)
	if err != nil {
		return err
	}
	j, err := agent.OpenJournal(ctx, dir, "bench", time.Now())
	if err != nil {
		return err
	}
	_, err = agent.Enrol(ctx, agent.Enrolment{
		Broker: d.node.lab.URL(), Code: code, Host: "desk", Executor: agent.ExecutorEcho, Secrets: secrets, Journal: j, Now: time.Now,
	})
	return errors.Join(err, j.Close())
}

// online waits for the tunnel.
func (d *desk) online(ctx context.Context) error {
	for {
		s, err := d.client.Status(ctx)
		if err == nil && len(s.Pairings) == 1 && s.Pairings[0].Link.State == "connected" {
			return nil
		}
		select {
		case err := <-d.ended:
			return fmt.Errorf("the agent ended: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *desk) close() {
	if d.stop != nil {
		d.stop()
		<-d.ended
		_ = d.agent.Close()
	}
	d.node.close()
}

// timed is an executor that notes when it is called.
type timed struct {
	agent.Executor
	called chan time.Time
}

func (t *timed) Execute(ctx context.Context, cmd wire.ExecCommand) (wire.ExecResult, error) {
	if cmd.Kind == proof.Prompt.String() {
		t.called <- time.Now()
	}
	return t.Executor.Execute(ctx, cmd)
}

// RoundTrip notes when a command is posted.
func (d *desk) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/commands") {
		d.posted.Store(time.Now().UnixNano())
	}
	return http.DefaultTransport.RoundTrip(r)
}

// digits is the person who reads them from the surface and types them into the desktop.
type digits struct {
	ctx    context.Context //nolint:containedctx // of one linking
	client *agent.Client
	err    error
}

func (p *digits) ShowDigits(shown, _, _ string) { p.err = p.client.LinkDigits(p.ctx, "", shown) }

func (p *digits) FinishCode(context.Context, int) (string, error) {
	return "", errors.New("a link asks for no code")
}

// link links a new surface.
func (d *desk) link(ctx context.Context) (*surface.Surface, error) {
	ticket, err := d.client.LinkStart(ctx, "", "link", false)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(d.node.lab.Dir, fmt.Sprintf("s%d", time.Now().UnixNano()))
	secrets, err := agent.OpenSecrets("file", dir)
	if err != nil {
		return nil, err
	}
	person := &digits{ctx: ctx, client: d.client}
	o := surface.Options{Dir: dir, Secrets: secrets, HTTP: &http.Client{Transport: d}}
	s, err := surface.Link(ctx, o, surface.LinkRequest{Text: ticket.Link, Label: "phone", Scope: "prompt"}, person)
	return s, errors.Join(err, person.err)
}

// tapSample is the times of one sample's prompts.
type tapSample struct{ post, whole, result []time.Duration }

func (d *desk) sample(ctx context.Context, n int) (out tapSample, err error) {
	s, err := d.link(ctx)
	if err != nil {
		return out, fmt.Errorf("linking: %w", err)
	}
	made, err := s.CreateSession(ctx, wire.CreateSession{}, nil)
	if err != nil {
		return out, err
	}
	if made.Body.Session == nil {
		return out, fmt.Errorf("no session: %s %s", made.State(), made.Body.Message)
	}
	for range n {
		began := time.Now()
		sent, err := s.Prompt(ctx, wire.Prompt{SessionID: made.Body.Session.ID, Text: "fix the failing test"})
		if err != nil {
			return out, err
		}
		posted := time.Unix(0, d.posted.Load())
		var called time.Time
		select {
		case called = <-d.called:
		case <-ctx.Done():
			return out, ctx.Err()
		}
		if o, err := s.Wait(ctx, sent, nil); err != nil || o.State() != wire.StateCompleted {
			return out, fmt.Errorf("a prompt ended as %q: %w", o.State(), err)
		}
		out.post, out.whole = append(out.post, called.Sub(posted)), append(out.whole, called.Sub(began))
		out.result = append(out.result, time.Since(began))
		time.Sleep(rest)
	}
	return out, nil
}
