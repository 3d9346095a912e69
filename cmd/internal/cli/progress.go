package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	progressAfter = 2 * time.Second        // quicker work stays silent
	progressEvery = 200 * time.Millisecond // how often a terminal is redrawn
)

// Progress tells a person what takes long, once it has taken two seconds. A
// terminal gets one line that is redrawn: what, how far, elapsed. Anything
// else gets one plain line per phase. Its methods are safe for concurrent use.
type Progress struct {
	w        io.Writer
	terminal bool
	start    time.Time
	quit     chan struct{}
	ended    chan struct{}
	stop     sync.Once

	mu          sync.Mutex
	what        string
	done, total int64
	unit        string
	drawn       bool // a line stands on the terminal
	told        bool // the phase has its plain line
}

// StartProgress begins with a first phase on w, which is standard error. The
// caller must call Stop, before it prints anything else.
func StartProgress(w io.Writer, what string) *Progress {
	return startProgress(w, IsTerminal(w), what)
}

func startProgress(w io.Writer, terminal bool, what string) *Progress {
	p := &Progress{
		w: w, terminal: terminal, start: time.Now(), what: what,
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
	go p.run()
	return p
}

// Phase says what is being done from now on.
func (p *Progress) Phase(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.done, p.total, p.unit, p.told = what, 0, 0, "", false
	p.tick()
}

// Far says how much of the phase is done. A total of 0 means not known; unit
// may be empty.
func (p *Progress) Far(done, total int64, unit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total, p.unit = done, total, unit
}

// Stop takes the line away. Stopping twice is safe.
func (p *Progress) Stop() {
	p.stop.Do(func() { close(p.quit) })
	<-p.ended
}

func (p *Progress) run() {
	defer close(p.ended)
	every := time.NewTicker(progressEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			p.mu.Lock()
			p.tick()
			p.mu.Unlock()
		case <-p.quit:
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.drawn {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		}
	}
}

// tick shows the phase if it is time to. The caller holds mu.
func (p *Progress) tick() {
	elapsed := time.Since(p.start)
	if elapsed < progressAfter {
		return
	}
	switch {
	case p.terminal:
		p.drawn = true
		fmt.Fprintf(p.w, "\r%s\x1b[K", p.line(elapsed))
	case !p.told:
		p.told = true
		fmt.Fprintln(p.w, p.line(elapsed))
	}
}

func (p *Progress) line(elapsed time.Duration) string {
	parts := []string{Clean(p.what)}
	unit := strings.TrimSpace(" " + p.unit)
	switch {
	case p.total > 0:
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d of %d %s", p.done, p.total, unit)))
	case p.done > 0:
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d %s", p.done, unit)))
	}
	return strings.Join(append(parts, Duration(elapsed)), ", ")
}
