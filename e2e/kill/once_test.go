//go:build e2e

package kill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// The load: every lane works in a session of its own, and takes its steps from one pool. With the sessions of the lanes
// these are 200 commands: 20 create_session, 100 prompts, 20 decisions, 10 aborts, 50 status.
const (
	surfaces = 4
	lanes    = 3  // of each surface
	kills    = 20 // of each program
)

// step is one thing that a lane does.
type step struct {
	name string
	do   func(*lane, context.Context, string) error
	n    int
}

func allSteps() []step {
	return []step{
		{"create", (*lane).create, 8},
		{"say", (*lane).say, 70},
		{"run", (*lane).run, 20},
		{"slow", (*lane).slow, 10},
		{"status", (*lane).status, 50},
	}
}

// TestAtMostOnce sends 200 commands while broker and agent are killed 20 times each (product.md, invariants 3 and 4).
func TestAtMostOnce(t *testing.T) {
	t.Parallel() // they wait more than they work
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	began := time.Now()
	r := newRig(ctx, t, isolated(t))
	hands := r.hands(ctx, surfaces)
	runtime := r.onlyRuntime()
	up := time.Since(began)

	l := newLoad(t, hands)
	k := &killer{rig: r, load: l, runtime: runtime}
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return k.killAgents(running) })
	group.Go(func() error { return k.killBrokers(running) })
	for i := range surfaces * lanes {
		group.Go(func() error { return l.newLane(i).work(running) })
	}
	check(t, group.Wait())
	sent := time.Since(began)
	check(t, r.desktop.AwaitOnline(ctx, r.agent))
	check(t, settle(ctx, hands))

	v := verify(ctx, t, r, hands, runtime)
	status, err := r.control.Status(ctx)
	check(t, err)
	left := r.stop()
	v.compareFiles(ctx, t, r)
	if k.between < 5 || status.Recovered < 5 {
		t.Errorf("%d kills of the agent found a command between started and done, and %d were recovered; at least 5 are wanted", k.between, status.Recovered)
	}
	if left > 0 {
		t.Errorf("%d OpenCode processes are left after the agent was stopped", left)
	}
	t.Logf("at most once: seed=%d agent_kills=%d broker_kills=%d between_started_and_done=%d recovered=%d %s runtimes_left=%d up=%s sent=%s took=%s",
		seed(t), kills, kills, k.between, status.Recovered, v, left, up.Round(time.Second), sent.Round(time.Second), time.Since(began).Round(time.Second))
}

// hands links surfaces.
func (r *rig) hands(ctx context.Context, n int) (all []*hand) {
	r.t.Helper()
	for i := range n {
		h, err := r.link(ctx, fmt.Sprintf("s%d", i))
		check(r.t, err)
		all = append(all, h)
	}
	return all
}

// onlyRuntime is the pid of the one OpenCode of the lab.
func (r *rig) onlyRuntime() int {
	r.t.Helper()
	pids := r.runtimes()
	if len(pids) != 1 {
		r.t.Fatalf("OpenCode processes: %v", pids)
	}
	return pids[0]
}

// settle waits for the end of every command that was sent; waiting for one that was only kept sends another.
func settle(ctx context.Context, hands []*hand) error {
	for {
		group, running := errgroup.WithContext(ctx)
		open := 0
		for _, h := range hands {
			for _, o := range h.all() {
				if o.over {
					continue
				}
				open++
				group.Go(func() error {
					_, err := h.await(running, o)
					return err
				})
			}
		}
		if err := group.Wait(); err != nil || open == 0 {
			return err
		}
	}
}

// load hands steps out no faster than the kills go on, so that each kill meets commands.
type load struct {
	t     *testing.T
	hands []*hand
	kills atomic.Int64

	mu    sync.Mutex
	steps []step
	given int
}

func newLoad(t *testing.T, hands []*hand) *load {
	l := &load{t: t, hands: hands}
	for _, s := range allSteps() {
		for range s.n {
			l.steps = append(l.steps, s)
		}
	}
	rng := newRand(t, 1)
	rng.Shuffle(len(l.steps), func(i, j int) { l.steps[i], l.steps[j] = l.steps[j], l.steps[i] })
	return l
}

// next waits until a step may be taken; ok is false when there is none left.
func (l *load) next(ctx context.Context) (s step, n int, ok bool) {
	for {
		l.mu.Lock()
		if l.given == len(l.steps) {
			l.mu.Unlock()
			return s, 0, false
		}
		if due := len(l.steps) * int(l.kills.Load()+3) / (2 * kills); l.given < due {
			s, n = l.steps[l.given], l.given
			l.given++
			l.mu.Unlock()
			return s, n, true
		}
		l.mu.Unlock()
		if pause(ctx, look) != nil {
			return s, 0, false
		}
	}
}

// lane is one session of one surface, in which things happen one after another.
type lane struct {
	*hand
	load    *load
	name    string
	session string
	rng     *rand.Rand
}

func (l *load) newLane(i int) *lane {
	return &lane{hand: l.hands[i%len(l.hands)], load: l, name: fmt.Sprintf("lane%d", i), rng: newRand(l.t, uint64(100+i))}
}

// work takes steps until there are none.
func (l *lane) work(ctx context.Context) (err error) {
	if l.session, err = l.hand.create(ctx, l.name); err != nil {
		return err
	}
	for {
		s, n, ok := l.load.next(ctx)
		if !ok {
			return ctx.Err()
		}
		if err := pause(ctx, upTo(l.rng, 200*time.Millisecond)); err != nil {
			return err
		}
		if err := s.do(l, ctx, fmt.Sprintf("%s-%d-%s", s.name, n, l.name)); err != nil {
			return fmt.Errorf("%s, step %d (%s): %w", l.name, n, s.name, err)
		}
	}
}

func (l *lane) create(ctx context.Context, word string) error {
	_, err := l.send(ctx, proof.CreateSession, wire.CreateSession{Title: word}, word)
	return err
}

func (l *lane) say(ctx context.Context, word string) error {
	_, err := l.prompt(ctx, l.session, "say: "+word)
	return err
}

func (l *lane) status(ctx context.Context, word string) error {
	_, err := l.send(ctx, proof.Status, wire.Status{}, word)
	return err
}

// run sends a prompt that asks for a shell command, and decides: three times of four it may.
func (l *lane) run(ctx context.Context, word string) error {
	prompted, err := l.prompt(ctx, l.session, "run: "+shell(word))
	if err != nil {
		return err
	}
	if _, err := l.await(ctx, prompted); err != nil {
		return err
	}
	r, err := l.request(ctx, l.session, shell(word))
	if err != nil {
		return err
	}
	decision := "allow"
	if l.rng.IntN(4) == 0 {
		decision = "deny"
	}
	o, err := l.decide(ctx, r, decision)
	if err != nil {
		return err
	}
	_, err = l.await(ctx, o)
	return err
}

// slow sends a prompt that takes eight seconds, and aborts its turn. It waits for that: OpenCode's abort also drops what was
// sent into the session meanwhile.
func (l *lane) slow(ctx context.Context, word string) error {
	o, err := l.prompt(ctx, l.session, "slow: 4\n"+word)
	if err != nil {
		return err
	}
	end, err := l.await(ctx, o)
	if err != nil {
		return err
	}
	_, err = l.do(ctx, proof.Abort, wire.Abort{SessionID: l.session, MessageID: end.Body.TurnID}, word)
	return err
}

// killer ends the programs and starts them again.
type killer struct {
	*rig
	load    *load
	runtime int // pid of the OpenCode that must live through it all
	between int // kills of the agent that found a command between started and done
}

// killAgents aims every second kill at a command that has started and is not done; the others fall anywhere, also into
// the agent's start.
func (k *killer) killAgents(ctx context.Context) error {
	rng := newRand(k.t, 2)
	for i := range kills {
		if err := k.moment(ctx, rng, i%2 == 0); err != nil {
			return err
		}
		if err := k.killAgent(); err != nil {
			return err
		}
		n, err := k.inFlight(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			k.between++
		}
		if pids := k.runtimes(); len(pids) != 1 || pids[0] != k.runtime {
			return fmt.Errorf("kill %d of the agent: OpenCode is %v, was %d", i, pids, k.runtime)
		}
		if err := k.startAgent(); err != nil {
			return err
		}
		k.load.kills.Add(1)
	}
	return nil
}

// moment waits for the time of the next kill.
func (k *killer) moment(ctx context.Context, rng *rand.Rand, aimed bool) error {
	if !aimed {
		return pause(ctx, upTo(rng, 2*time.Second))
	}
	if _, err := k.ready(ctx); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		n, err := k.inFlight(waiting)
		if n > 0 || waiting.Err() != nil && ctx.Err() == nil {
			return pause(ctx, upTo(rng, 40*time.Millisecond)) // before, in and after the call of OpenCode
		}
		if err != nil {
			return err
		}
		if err := pause(waiting, 2*time.Millisecond); err != nil && ctx.Err() != nil {
			return err
		}
	}
}

func (k *killer) killBrokers(ctx context.Context) error {
	rng := newRand(k.t, 3)
	for range kills {
		if err := pause(ctx, 300*time.Millisecond+upTo(rng, 2500*time.Millisecond)); err != nil {
			return err
		}
		if err := k.restartBroker(); err != nil {
			return errors.Join(errors.New("restarting the broker"), err)
		}
		k.load.kills.Add(1)
	}
	return nil
}
