package main

import (
	"context"
	"time"

	"cowork.example.com/broker/e2e/lab"
)

// restart: agents that are connected lose their broker and get it back. The clock starts with the signal that ends the
// old process and stops when the last agent's hello was answered by the new one. Stopped: SIGTERM, the broker tells its
// agents when to come back. Killed: SIGKILL, they find out.
func (b *bench) restart(ctx context.Context) ([]figure, error) {
	stopped := figure{what: "all agents back after SIGTERM", unit: "s", goal: atMost(15)}
	most := figure{what: "99 % of them", unit: "s"}
	killed := figure{what: "all agents back after SIGKILL", unit: "s", goal: atMost(15)}
	bare := figure{what: "baseline: as many bare WebSocket + yamux dials, all at once", unit: "s"}
	n, err := b.newNode()
	if err != nil {
		return nil, err
	}
	defer n.close()
	if err := n.start(); err != nil {
		return nil, err
	}
	f, err := n.enrol(ctx, b.agents)
	if err != nil {
		return nil, err
	}
	f.start(ctx, startRate)
	defer f.end()
	if _, err := f.await(ctx, time.Now(), time.Minute); err != nil {
		return nil, err
	}
	for range b.samples {
		back, err := n.restarted(ctx, f, func(p *lab.Proc) error { return p.Stop(time.Minute) })
		if err != nil {
			return nil, err
		}
		again, err := n.restarted(ctx, f, (*lab.Proc).Kill)
		if err != nil {
			return nil, err
		}
		dials, err := b.bareDials(ctx)
		if err != nil {
			return nil, err
		}
		stopped.samples, most.samples = append(stopped.samples, last(back)), append(most.samples, back[len(back)*99/100].Seconds())
		killed.samples, bare.samples = append(killed.samples, last(again)), append(bare.samples, dials.Seconds())
	}
	return []figure{stopped, most, killed, bare}, nil
}

func last(all []time.Duration) float64 { return all[len(all)-1].Seconds() }

// between is the quiet before a restart: longer than an agent must be connected for its backoff to begin anew.
const between = 32

// restarted ends the broker, starts it, and waits for everyone.
func (n *node) restarted(ctx context.Context, f *fleet, end func(*lab.Proc) error) ([]time.Duration, error) {
	if err := quiet(ctx, between); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := end(n.proc); err != nil {
		return nil, err
	}
	if err := n.start(); err != nil {
		return nil, err
	}
	return f.await(ctx, began, 3*time.Minute)
}

// bareDials is how long as many bare dials take.
func (b *bench) bareDials(ctx context.Context) (time.Duration, error) {
	s, err := startBareLinks(ctx)
	if err != nil {
		return 0, err
	}
	defer s.close()
	began := time.Now()
	err = s.dial(ctx, b.agents, b.agents)
	return time.Since(began), err
}
