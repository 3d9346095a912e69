package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cowork.example.com/broker/pkg/pairing"
)

// evenStep is the grain of the time after which a code is refused. The rules do the same work for every refused code,
// but a row that is there is read a little later than one that is not; within a grain that cannot be seen.
const evenStep = 10 * time.Millisecond

// evenly lets a refused code be answered only at whole steps after the call began.
func (s *Server) evenly(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		begin := time.Now()
		err := h(w, r)
		if errors.Is(err, pairing.ErrBadCode) {
			toNextStep(r.Context(), begin)
		}
		return err
	}
}

func toNextStep(ctx context.Context, begin time.Time) {
	rest := evenStep - time.Since(begin)%evenStep
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
