// Package sqlitedb opens one SQLite file the way both programs need it: a
// single writer that batches its callers into one fsync, a few readers that
// never wait for it, a lock that keeps a second process out, and migrations
// that only go forward. It is the only importer of the SQLite driver.
package sqlitedb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	_ "modernc.org/sqlite" // registers the "sqlite" driver
)

// DefaultReaders is the number of reading connections when Options.Readers is 0.
const DefaultReaders = 4

// Options say which file to open and what its schema must be.
type Options struct {
	// Path of the database file. Its folder must exist; the file is made with
	// mode 0600. Neighbours with the suffixes -wal, -shm and .lock belong to it.
	Path string
	// Migrations holds goose SQL files (NNNNN_name.sql) at its root, applied
	// forward only. A file whose schema is newer than the last of them is refused.
	Migrations fs.FS
	// Readers is the number of reading connections; 0 means DefaultReaders.
	Readers int
}

// DB is an open database. All methods are safe for concurrent use.
type DB struct {
	pool    *sql.DB
	lock    *os.File
	conns   []*conn    // all of them: the pool closes only those that are idle
	readers chan *conn // those which nobody uses
	writer  *writer

	closeOnce sync.Once
	closeErr  error
}

// Open locks, opens and migrates the file. It fails with ErrLocked when another
// process has it open, and with ErrNewerSchema when a newer binary wrote it.
// ctx bounds only the opening.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Readers <= 0 {
		o.Readers = DefaultReaders
	}
	lock, err := lockFile(o.Path + ".lock")
	if err != nil {
		return nil, err
	}
	db := &DB{lock: lock, readers: make(chan *conn, o.Readers)}
	if err := db.open(ctx, o); err != nil {
		return nil, errors.Join(err, db.release())
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, o Options) (err error) {
	if err := createFile(o.Path); err != nil {
		return err
	}
	if db.pool, err = sql.Open("sqlite", dsn(o.Path)); err != nil {
		return fmt.Errorf("opening %s: %w", o.Path, err)
	}
	db.pool.SetMaxOpenConns(o.Readers + 1)
	db.pool.SetMaxIdleConns(o.Readers + 1)
	if err := migrate(ctx, db.pool, o.Migrations); err != nil {
		return fmt.Errorf("%s: %w", o.Path, mapError(err))
	}
	for range o.Readers {
		r, err := db.connect(ctx)
		if err != nil {
			return err
		}
		if _, err := r.Exec("PRAGMA query_only = 1"); err != nil {
			return err
		}
		db.readers <- r
	}
	w, err := db.connect(ctx)
	if err != nil {
		return err
	}
	db.writer = startWriter(w)
	return nil
}

// Close waits for the writes already begun, refuses later ones, and releases
// the lock. Closing twice is safe. Readers in progress are waited for.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		db.writer.stop()
		for range cap(db.readers) {
			<-db.readers
		}
		db.closeErr = db.release()
	})
	return db.closeErr
}

// release undoes a complete or a partial open. The lock goes last, so that the
// next owner never meets our checkpoint.
func (db *DB) release() error {
	var err error
	for _, c := range db.conns {
		err = errors.Join(err, c.close())
	}
	if db.pool != nil {
		err = errors.Join(err, db.pool.Close())
	}
	return errors.Join(err, db.lock.Close())
}

// dsn carries the pragmas in the data source name: set by a statement they
// would hold for one pooled connection only.
func dsn(path string) string {
	pragmas := []string{
		"journal_mode(wal)",
		"synchronous(full)",
		"fullfsync(1)",
		"checkpoint_fullfsync(1)",
		"busy_timeout(5000)",
		"foreign_keys(1)",
		"trusted_schema(0)",
		"temp_store(memory)",
		"wal_autocheckpoint(2000)",
		"journal_size_limit(67108864)",
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": pragmas}
	p := filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" {
		p = "/" + p
	}
	return "file:" + (&url.URL{Path: p}).EscapedPath() + "?" + q.Encode()
}

// createFile makes the file before SQLite does, so that it and its -wal and
// -shm neighbours, which copy its mode, are never readable by others; and syncs
// the folder, so that a power cut cannot take the new name away.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
