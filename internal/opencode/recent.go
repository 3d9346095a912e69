package opencode

// recent is a map that forgets its oldest keys beyond a limit.
type recent[V any] struct {
	limit int
	order []string
	items map[string]V
}

// newRecent returns an empty map for at most limit keys.
func newRecent[V any](limit int) *recent[V] {
	return &recent[V]{limit: limit, items: map[string]V{}}
}

// put sets a key; setting it again keeps its age.
func (r *recent[V]) put(key string, v V) {
	if _, known := r.items[key]; !known {
		r.order = append(r.order, key)
	}
	r.items[key] = v
	if len(r.order) > r.limit {
		delete(r.items, r.order[0])
		r.order = r.order[1:]
	}
}

// get returns a key's value, if it is still known.
func (r *recent[V]) get(key string) (V, bool) {
	v, ok := r.items[key]
	return v, ok
}
