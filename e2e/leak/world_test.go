//go:build leak

package leak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

// patience bounds one cycle on a busy machine.
const patience = time.Minute

// world is a real broker and its desktops, all in this process but over loopback sockets and real stores.
type world struct {
	t     *testing.T
	off   atomic.Int64 // of everybody's clock
	desks []*desk
}

// now is everybody's clock. A second passes between two cycles, so that what is kept for a while is over at the same
// cycle on any machine.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.off.Load())) }

// folder makes a state folder: on tmpfs where there is one, since the disk must not set the pace of ten thousand cycles.
func folder(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	parent := ""
	if info, err := os.Stat(memory); err == nil && info.IsDir() {
		parent = memory
	}
	dir, err := os.MkdirTemp(parent, "leak")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

// keep runs something until the test ends.
func keep(t *testing.T, run func(context.Context) error, end func() error) <-chan error {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, end()); err != nil {
			t.Error(err)
		}
	})
	return ended
}

// newWorld starts the broker, with limits that let ten thousand cycles pass, and enrols the desktops.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	up := make(chan *broker.Started, 1)
	cfg := broker.Config{
		Listen: []string{"127.0.0.1:0"}, StateDir: folder(t), Version: "test", Now: w.now, Logger: logger(), Limits: map[string]int{},
		Started: func(_ context.Context, s *broker.Started) { up <- s },
	}
	for _, rule := range []limits.Name{limits.Requests, limits.Sign, limits.Dial, limits.DialBroker, limits.Commands, limits.Reads} {
		cfg.Limits[string(rule)] = 1_000_000
	}
	ended := keep(t, func(ctx context.Context) error { return broker.Run(ctx, cfg) }, func() error { return nil })
	select {
	case s := <-up:
		for range desks {
			w.desks = append(w.desks, w.newDesk(s))
		}
	case err := <-ended:
		t.Fatalf("the broker did not start: %v", err)
	}
	return w
}

// desk is a desktop with its agent, and a surface that is linked to it.
type desk struct {
	w       *world
	agent   *agent.Agent
	owner   *agent.Client
	pairing string
	opts    surface.Options
	conn    atomic.Pointer[net.Conn] // of the newest dial
	err     error                    // of the digits that were typed
}

func (w *world) newDesk(s *broker.Started) *desk {
	w.t.Helper()
	dir := folder(w.t)
	d := &desk{w: w, owner: agent.NewClient(dir)}
	secrets, err := agent.OpenSecrets("file", dir)
	check(w.t, err)
	check(w.t, d.enrol(s, dir, secrets))
	network := agent.Network(nil, "direct")
	network.DialContext = d.dial
	d.agent, err = agent.New(w.t.Context(), agent.Config{
		StateDir: dir, Secrets: secrets, Machine: "machine", Version: "test", Dial: network, Now: w.now, Logger: logger(),
		Executor: func(agent.Seed) (agent.Executor, error) { return agent.NewEcho(w.now), nil },
	})
	check(w.t, err)
	keep(w.t, d.agent.Run, d.agent.Close)
	check(w.t, d.link())
	return d
}

func (d *desk) enrol(s *broker.Started, dir string, secrets agent.Secrets) error {
	ctx := d.w.t.Context()
	issued, err := s.IssueCode(ctx, wire.CodeIssue{})
	if err != nil {
		return err
	}
	code, err := pairing.ParseCode(issued.Link)
	if err != nil {
		return err
	}
	j, err := agent.OpenJournal(ctx, dir, "machine", d.w.now())
	if err != nil {
		return err
	}
	row, err := agent.Enrol(ctx, agent.Enrolment{
		Broker: s.Addresses[0], Code: code, Host: "desk", Executor: agent.ExecutorEcho, Secrets: secrets, Journal: j, Now: d.w.now,
	})
	d.pairing = row.ID.String()
	return errors.Join(err, j.Close())
}

// dial remembers the connection, to cut it.
func (d *desk) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		d.conn.Store(&c)
	}
	return c, err
}

// ShowDigits is the owner, who types what the surface shows.
func (d *desk) ShowDigits(shown, _, _ string) { d.err = d.owner.LinkDigits(d.w.t.Context(), "", shown) }

// FinishCode is asked only of who links by a code.
func (d *desk) FinishCode(context.Context, int) (string, error) {
	return "", errors.New("asked for a code")
}

// link links the surface and leaves the desktop disconnected. Each exchange of the surface is a connection of its own.
func (d *desk) link() error {
	ctx, cancel := context.WithTimeout(d.w.t.Context(), patience)
	defer cancel()
	if err := until(ctx, "connected", d.phase("connected")); err != nil {
		return err
	}
	ticket, err := d.owner.LinkStart(ctx, "", "link", false)
	if err != nil {
		return err
	}
	dir := folder(d.w.t)
	secrets, err := agent.OpenSecrets("file", dir)
	if err != nil {
		return err
	}
	d.opts = surface.Options{
		Dir: dir, Secrets: secrets, Now: d.w.now, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
	s, err := surface.Link(ctx, d.opts, surface.LinkRequest{Text: ticket.Link, Label: "phone", Scope: "prompt"}, d)
	if err := errors.Join(err, d.err); err != nil {
		return err
	}
	return d.part(ctx, s)
}

// cycle is one meeting.
func (d *desk) cycle() error {
	ctx, cancel := context.WithTimeout(d.w.t.Context(), patience)
	defer cancel()
	d.agent.RetryNow()
	s, err := surface.Open(ctx, d.opts, d.pairing)
	if err != nil {
		return err
	}
	if o, err := s.Status(ctx, nil); err != nil || o.State() != wire.StateCompleted {
		return fmt.Errorf("a command ended as %q: %w", o.State(), err)
	}
	d.w.off.Add(int64(time.Second))
	return d.part(ctx, s)
}

// part cuts the connection below the tunnel and waits until both ends know.
func (d *desk) part(ctx context.Context, s *surface.Surface) error {
	if err := (*d.conn.Load()).Close(); err != nil {
		return err
	}
	return errors.Join(until(ctx, "waiting", d.phase("waiting")), until(ctx, "offline", func() (bool, error) {
		state, err := s.State(ctx)
		return !state.Online, err
	}))
}

// phase says whether the agent's link is in this state.
func (d *desk) phase(want string) func() (bool, error) {
	return func() (bool, error) {
		st, err := d.owner.Status(d.w.t.Context())
		if errors.Is(err, agent.ErrNotRunning) { // its socket comes a moment after it
			return false, nil
		}
		return err == nil && st.Pairings[0].Link.State == want, err
	}
}

// until asks again and again: nothing announces what it waits for.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if yes, err := ok(); yes || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("never %s: %w", what, ctx.Err())
		}
	}
}
