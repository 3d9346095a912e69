package broker

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// job is one thing that is done again and again in the background.
type job struct {
	name  string
	every time.Duration
	do    func(ctx context.Context, now time.Time) error
}

// jobs are those of a running broker.
func (b *running) jobs() []job {
	return []job{
		{"expire commands", time.Second, b.mailbox.Expire},
		{"expire linking sessions", time.Second, b.sweepLinks},
		{"prune", time.Minute, b.mailbox.Prune},
		{"give memory back", restEvery, new(rest).job},
	}
}

// sweepLinks ends linking sessions whose time is over; both ends are told.
func (b *running) sweepLinks(ctx context.Context, now time.Time) error {
	ended, err := b.linking.Sweep(ctx, now)
	for _, l := range ended {
		b.api.LinkEnded(l)
	}
	return err
}

// runJobs runs each job in a goroutine of its own until ctx ends, and returns when all have ended. A job that fails is
// logged when it begins to fail, and runs again.
func runJobs(ctx context.Context, jobs []job, now func() time.Time, log *slog.Logger) {
	var group sync.WaitGroup
	for _, j := range jobs {
		group.Go(func() { j.run(ctx, now, log) })
	}
	group.Wait()
}

func (j job) run(ctx context.Context, now func() time.Time, log *slog.Logger) {
	tick := time.NewTicker(j.every)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := j.do(ctx, now())
		if err != nil && ctx.Err() == nil && !failing {
			log.Error("a background job fails", "job", j.name, "error", err)
		}
		if err == nil && failing {
			log.Info("a background job works again", "job", j.name)
		}
		failing = err != nil
	}
}
