// Package sqlite is the broker's embedded store: the rows of internal/mailbox, the stores of pkg/pairing and the
// audit log, in one SQLite file, so that a change and its line are one transaction.
package sqlite

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"time"

	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/wire"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is an open store. All methods are safe for concurrent use.
type Store struct {
	db    *sqlitedb.DB
	waker *waker
}

var (
	_ mailbox.Store        = (*Store)(nil)
	_ mailbox.Waker        = (*waker)(nil)
	_ pairing.CodeStore    = (*Store)(nil)
	_ pairing.PairingStore = (*Store)(nil)
	_ pairing.SurfaceStore = (*Store)(nil)
	_ pairing.LinkStore    = (*Store)(nil)
)

// Open opens or makes the store at path, whose folder must exist. See sqlitedb.Open for what it refuses: a second
// process, and a file of a newer version, each with one line.
func Open(ctx context.Context, path string) (*Store, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	db, err := sqlitedb.Open(ctx, sqlitedb.Options{Path: path, Migrations: files})
	if err != nil {
		return nil, err
	}
	return &Store{db: db, waker: newWaker()}, nil
}

// Close finishes what was begun and releases the file. Closing twice is safe.
func (s *Store) Close() error { return s.db.Close() }

// Waker returns the waker that belongs to this store.
func (s *Store) Waker() mailbox.Waker { return s.waker }

// SubscribeLog returns a channel that holds at most one hint that the audit log has grown, and the function that ends
// the subscription, which may be called more than once.
func (s *Store) SubscribeLog() (hints <-chan struct{}, cancel func()) { return s.waker.subscribeLog() }

// Failed is closed when the disk has failed; the broker should stop.
func (s *Store) Failed() <-chan struct{} { return s.db.Failed() }

// Stats says how well writes were batched.
func (s *Store) Stats() sqlitedb.Stats { return s.db.Stats() }

// Update implements mailbox.Store.
func (s *Store) Update(ctx context.Context, fn func(mailbox.Tx) error) error {
	return s.write(ctx, func(t *tx) error { return fn(t) })
}

// View implements mailbox.Store.
func (s *Store) View(ctx context.Context, fn func(mailbox.Reader) error) error {
	return s.read(ctx, func(r reader) error { return fn(r) })
}

// write is the only way to change anything. When lines were written, whoever follows the log is woken.
func (s *Store) write(ctx context.Context, fn func(*tx) error) error {
	t := &tx{}
	err := s.db.Write(ctx, func(w *sqlitedb.Tx) error {
		t.w, t.reader = w, reader{w}
		return fn(t)
	})
	if err != nil {
		return mapError(err)
	}
	if t.lines > 0 {
		s.waker.wakeLog()
	}
	return nil
}

func (s *Store) read(ctx context.Context, fn func(reader) error) error {
	return mapError(s.db.Read(ctx, func(q sqlitedb.Queryer) error { return fn(reader{q}) }))
}

// errFull is a full disk in the words of both packages whose stores these are.
var errFull = errors.Join(
	&mailbox.Error{Code: mailbox.Full, Message: "the broker's disk is full"},
	&pairing.Error{Code: wire.CodeFull, Message: "the broker's disk is full"},
)

func mapError(err error) error {
	if errors.Is(err, sqlitedb.ErrFull) {
		return errFull
	}
	return err
}

// reader reads from one snapshot.
type reader struct{ q sqlitedb.Queryer }

// tx is one transaction.
type tx struct {
	reader
	w     *sqlitedb.Tx
	lines int
}

// ms and at keep times as Unix milliseconds; the zero time is 0.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// blob never is NULL, which STRICT columns refuse.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
