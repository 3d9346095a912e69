package sqlitedb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// maxBatch is the most callers that share one transaction; it bounds how long
// the first of them waits for its fsync.
const maxBatch = 256

// Stats counts since Open. Writes/Commits is the mean size of a batch.
type Stats struct {
	Writes  uint64 // calls of Write whose function ran
	Commits uint64 // transactions committed, one fsync each
}

// request is one caller's function on its way through the writer.
type request struct {
	fn    func(*Tx) error
	taken atomic.Bool // set by whoever wins: the writer (runs it) or the caller (withdraws it)
	done  chan struct{}
	err   error
	panic any
}

// writer owns the one writing connection. Callers meet in a channel; while one
// batch waits for its fsync the next one gathers, so that no timer is needed.
type writer struct {
	c        *conn
	requests chan *request
	stopped  chan struct{}
	failed   chan struct{}
	stopOnce sync.Once
	wg       sync.WaitGroup
	fatal    error // set once, before failed is closed
	writes   atomic.Uint64
	commits  atomic.Uint64
}

func startWriter(c *conn) *writer {
	w := &writer{
		c: c, requests: make(chan *request, maxBatch),
		stopped: make(chan struct{}), failed: make(chan struct{}),
	}
	w.wg.Go(w.run)
	return w
}

func (w *writer) stop() {
	w.stopOnce.Do(func() { close(w.stopped) })
	w.wg.Wait()
}

// Write runs fn inside the writer's next transaction and returns when that is
// on the disk. fn's changes are in a savepoint of their own: when it returns an
// error or panics they are undone, and Write returns that error (or panics),
// without harm to the callers that share the transaction. fn runs on another
// goroutine, must not call Write or Read, and must be quick. When ctx ends
// before fn began, fn never runs; afterwards the result is awaited.
//
// A full disk is ErrFull, and the whole batch is undone; any other I/O error is
// ErrFatal, after which every Write fails: what is on the disk is unknown until
// the file is opened anew.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	w := db.writer
	r := &request{fn: fn, done: make(chan struct{})}
	select {
	case w.requests <- r:
	case <-w.stopped:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-r.done
	case <-w.stopped:
		w.wg.Wait() // the writer answers all it took and all it found waiting
		if r.taken.CompareAndSwap(false, true) {
			return ErrClosed
		}
		<-r.done
	}
	if r.panic != nil {
		panic(r.panic)
	}
	return r.err
}

// Stats says how well writes were batched.
func (db *DB) Stats() Stats {
	return Stats{Writes: db.writer.writes.Load(), Commits: db.writer.commits.Load()}
}

// Failed is closed when the store has met an error after which it accepts no
// write (ErrFatal). The owner should stop the program.
func (db *DB) Failed() <-chan struct{} { return db.writer.failed }

func (w *writer) run() {
	for {
		select {
		case r := <-w.requests:
			w.batch(r)
		case <-w.stopped:
			return
		}
	}
}

// batch runs one transaction and answers everyone in it.
func (w *writer) batch(first *request) {
	var batch []*request
	err := w.fatal
	if err == nil {
		_, err = w.c.Exec("BEGIN IMMEDIATE")
	}
	for r := first; r != nil; r = w.next(len(batch)) {
		if !r.taken.CompareAndSwap(false, true) {
			continue
		}
		batch = append(batch, r)
		if err == nil {
			err = w.one(r)
		}
	}
	w.finish(batch, err)
}

// next takes a waiting request, if there is one and room for it.
func (w *writer) next(have int) *request {
	if have >= maxBatch {
		return nil
	}
	select {
	case r := <-w.requests:
		return r
	default:
		return nil
	}
}

// one runs a caller's function in its savepoint. The error it returns is one
// that ends the whole batch; the caller's own is kept in the request.
func (w *writer) one(r *request) error {
	if _, err := w.c.Exec("SAVEPOINT one"); err != nil {
		return err
	}
	w.writes.Add(1)
	r.err = mapError(w.call(r))
	if r.err == nil && r.panic == nil {
		_, err := w.c.Exec("RELEASE one")
		return err
	}
	if errors.Is(r.err, ErrFull) || errors.Is(r.err, ErrFatal) {
		return r.err // SQLite may have undone everything by itself
	}
	if _, err := w.c.Exec("ROLLBACK TO one"); err != nil {
		return err
	}
	_, err := w.c.Exec("RELEASE one")
	return err
}

func (w *writer) call(r *request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.panic = p
		}
	}()
	return r.fn(&Tx{w.c})
}

// finish commits, or undoes everything, and answers.
func (w *writer) finish(batch []*request, err error) {
	if err == nil {
		_, err = w.c.Exec("COMMIT")
	}
	if err == nil {
		w.commits.Add(1)
	} else if w.fatal == nil {
		err = w.undo(err)
	}
	for _, r := range batch {
		if r.err == nil && err != nil {
			r.err = err
		}
		close(r.done)
	}
}

// undo ends the transaction after an error that is nobody's own. Whatever is
// not a full disk leaves the state unknown, so the writer closes for good.
func (w *writer) undo(err error) error {
	w.c.Exec("ROLLBACK") //nolint:errcheck // fails when SQLite has already rolled back
	if errors.Is(err, ErrFull) {
		return err
	}
	if !errors.Is(err, ErrFatal) {
		err = fmt.Errorf("%w: %w", ErrFatal, err)
	}
	w.fatal = err
	close(w.failed)
	return err
}
