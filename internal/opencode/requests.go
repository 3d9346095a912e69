package opencode

import (
	"maps"
	"slices"

	"cowork.example.com/broker/pkg/wire"
)

// openRequest adds a request; false when it is open already or was closed before. The
// bytes of the first sight stay.
func (t *tracker) openRequest(r wire.ExecRequest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, over := t.closed.get(r.ID); over {
		return false
	}
	if _, open := t.requests[r.ID]; open {
		return false
	}
	t.requests[r.ID] = r
	return true
}

// closeRequest takes a request out; ok is false when it was not open.
func (t *tracker) closeRequest(id, decision string) (r wire.ExecRequest, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok = t.requests[id]
	delete(t.requests, id)
	t.closed.put(id, decision)
	return r, ok
}

// decision returns what became of a request whose end was seen.
func (t *tracker) decision(id string) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed.get(id)
}

// request returns an open request as it was first seen.
func (t *tracker) request(id string) (wire.ExecRequest, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.requests[id]
	return r, ok
}

// openRequests lists what is open, by id and thereby by age.
func (t *tracker) openRequests() []wire.ExecRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]wire.ExecRequest, 0, len(t.requests))
	for _, id := range slices.Sorted(maps.Keys(t.requests)) {
		list = append(list, t.requests[id])
	}
	return list
}
