package main

import (
	"context"
	"time"
)

// idle: the real broker in a process of its own, with desktops that have enrolled through its API and said hello over
// plain WebSockets, and do nothing. Its memory is read before they come and after a time of quiet; nothing asks it to
// collect garbage. The baseline is a process that holds as many links of the same libraries, as they are shipped.
func (b *bench) idle(ctx context.Context) ([]figure, error) {
	if err := needFiles(b.desktops + 200); err != nil {
		return nil, err
	}
	memory := figure{what: "memory (RSS) of the broker for each idle desktop", unit: "KiB", goal: atMost(34)}
	routines := figure{what: "goroutines of the broker for each idle desktop", goal: atMost(4)}
	total := figure{what: "the whole broker process with all of them", unit: "MiB"}
	bare := figure{what: "baseline: WebSocket + yamux as shipped, for each link", unit: "KiB"}
	n, err := b.newNode()
	if err != nil {
		return nil, err
	}
	defer n.close()
	if err := n.start(); err != nil {
		return nil, err
	}
	f, err := n.enrol(ctx, b.desktops)
	if err != nil {
		return nil, err
	}
	for range b.samples {
		s, err := b.idleSample(ctx, n, f)
		if err != nil {
			return nil, err
		}
		base, err := b.bareSample(ctx)
		if err != nil {
			return nil, err
		}
		each := float64(b.desktops)
		memory.samples, routines.samples = append(memory.samples, s.kib/each), append(routines.samples, s.routines/each)
		total.samples, bare.samples = append(total.samples, s.total/1024), append(bare.samples, base/each)
	}
	return []figure{memory, routines, total, bare}, nil
}

// idleSample is what all desktops together added.
type idleSample struct{ kib, routines, total float64 }

// startRate is how many desktops dial in a second.
const startRate = 250

// idleSample restarts the broker, so that each sample begins with a fresh process.
func (b *bench) idleSample(ctx context.Context, n *node, f *fleet) (s idleSample, err error) {
	if err := n.proc.Stop(time.Minute); err != nil {
		return s, err
	}
	if err := n.start(); err != nil {
		return s, err
	}
	before, err := n.read()
	if err != nil {
		return s, err
	}
	f.start(ctx, startRate)
	defer f.end()
	if _, err := f.await(ctx, time.Now(), 3*time.Minute); err != nil {
		return s, err
	}
	if err := quiet(ctx, b.settle); err != nil {
		return s, err
	}
	after, err := n.read()
	if err != nil {
		return s, err
	}
	if err := b.save(n, "idle.heap.pprof", "/debug/pprof/heap?gc=1"); err != nil {
		return s, err
	}
	if err := b.save(n, "idle.goroutine.pprof", "/debug/pprof/goroutine"); err != nil {
		return s, err
	}
	if err := b.save(n, "idle.metrics.txt", "/metrics"); err != nil {
		return s, err
	}
	return idleSample{after.kib - before.kib, after.routines - before.routines, after.kib}, nil
}

// read reads goroutines before memory, since being asked costs some.
func (n *node) read() (s idleSample, err error) {
	if s.routines, err = n.gauge("go_goroutines"); err != nil {
		return s, err
	}
	s.kib, err = rss(n.proc.PID())
	return s, err
}

func quiet(ctx context.Context, seconds int) error {
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bareSample is the KiB that as many bare links add to their process.
func (b *bench) bareSample(ctx context.Context) (float64, error) {
	s, err := startBareLinks(ctx)
	if err != nil {
		return 0, err
	}
	defer s.close()
	before, err := rss(s.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	if err := s.dial(ctx, b.desktops, 16); err != nil {
		return 0, err
	}
	if err := quiet(ctx, b.settle/9); err != nil {
		return 0, err
	}
	after, err := rss(s.cmd.Process.Pid)
	return after - before, err
}
