package broker

import "sync"

// pump runs work after each kick, never twice at once, and holds no goroutine while there is nothing to do: an idle
// desktop costs none of ours.
type pump struct {
	group *sync.WaitGroup
	work  func()

	mu             sync.Mutex
	running, again bool
	stopped        bool
}

// kick asks for a run of work that begins after this call. It never blocks.
func (p *pump) kick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.stopped:
	case p.running:
		p.again = true
	default:
		p.running = true
		p.group.Go(p.loop)
	}
}

func (p *pump) loop() {
	for {
		p.work()
		p.mu.Lock()
		if !p.again || p.stopped {
			p.running = false
			p.mu.Unlock()
			return
		}
		p.again = false
		p.mu.Unlock()
	}
}

// stop lets the run in progress end and begins no other.
func (p *pump) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
}
