package tunnel

import (
	"context"
	"time"
)

const (
	wakeTick = 5 * time.Second
	wakeJump = 10 * time.Second // wall clock ahead of the monotonic one
)

// watchWake calls RetryNow after the machine slept: the wall clock has then run
// on, and the monotonic clock has not.
func (r *Redialer) watchWake(ctx context.Context) {
	t := time.NewTicker(wakeTick)
	defer t.Stop()
	mono, wall := time.Now(), r.cfg.wall()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		m, w := time.Since(mono), r.cfg.wall().Round(0).Sub(wall.Round(0))
		if w-m > wakeJump {
			r.dialer.cfg.Logger.Info("tunnel: the machine slept", "for", (w - m).Round(time.Second))
			r.RetryNow()
		}
		mono, wall = time.Now(), r.cfg.wall()
	}
}
