// Package journal is the agent's durable memory: which pairings and surfaces there are, every command that came and
// what became of it, the sealed events and results that the broker has not confirmed, open requests, linking sessions,
// and the desktop's own audit log. One file serves one agent; its rows carry the pairing they belong to.
//
// Whatever changes what the desktop believes goes through Record, which commits the change and its audit lines in one
// transaction and returns when both are on the disk (product.md, invariant 10). Bookkeeping of the transport (batches
// handed over, results confirmed) has methods of its own and no line.
package journal

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"cowork.example.com/broker/internal/sqlitedb"
)

//go:embed migrations/*.sql
var files embed.FS

// The errors of this package, besides those of sqlitedb; compare with errors.Is.
var (
	// ErrState: the row is not in the state that the change starts from, or does not exist. Nothing was changed.
	ErrState = errors.New("not in that state")
	// ErrDuplicate: this envelope, or this mailbox id, is in the inbox already.
	ErrDuplicate = errors.New("in the inbox already")
	// ErrChain: the envelope is not the surface's next one.
	ErrChain = errors.New("not the surface's next envelope")
	// ErrNoLine: a change without an audit line was tried, which is a mistake of the program.
	ErrNoLine = errors.New("a change needs an audit line")
)

// ID is a journal's random identity.
type ID [16]byte

// Options say which file to open.
type Options struct {
	Path    string    // its folder must exist
	Machine string    // this machine's id; kept when the file is made
	Now     time.Time // of this start
}

// Meta is what a journal knows about itself (pairing-protocol.md section 6).
type Meta struct {
	ID      ID
	Counter uint64 // raised by each Open; the one before was Counter-1
	Machine string // whose journal it is, which may not be this machine
	New     bool   // this Open made the file
}

// Journal is an open journal. All methods are safe for concurrent use.
type Journal struct {
	db       *sqlitedb.DB
	metaMu   sync.Mutex
	meta     Meta
	lastTime atomic.Int64
}

// Open opens or makes the journal and raises its counter durably. It fails with sqlitedb.ErrLocked when another agent
// has it open: one state folder, one agent.
func Open(ctx context.Context, o Options) (*Journal, error) {
	sub, err := fs.Sub(files, "migrations")
	if err != nil {
		return nil, err
	}
	db, err := sqlitedb.Open(ctx, sqlitedb.Options{Path: o.Path, Migrations: sub})
	if err != nil {
		return nil, err
	}
	j := &Journal{db: db}
	if err := db.Write(ctx, func(tx *sqlitedb.Tx) error { return j.begin(tx, o) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return j, nil
}

// begin makes the one row of meta if it is missing, raises the counter and reads it.
func (j *Journal) begin(tx *sqlitedb.Tx, o Options) error {
	var id ID
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	made, err := tx.Exec(`INSERT INTO meta (one, journal_id, counter, machine, last_time) VALUES (1, ?, 0, ?, ?) ON CONFLICT DO NOTHING`,
		id[:], o.Machine, o.Now.UnixMilli())
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE meta SET counter = counter + 1`); err != nil {
		return err
	}
	var raw []byte
	var last int64
	j.meta.New = made == 1
	err = tx.QueryRow(`SELECT journal_id, counter, machine, last_time FROM meta`).Scan(&raw, &j.meta.Counter, &j.meta.Machine, &last)
	copy(j.meta.ID[:], raw)
	j.lastTime.Store(last)
	return err
}

// Close waits for the writes already begun. Closing twice is safe.
func (j *Journal) Close() error { return j.db.Close() }

// Failed is closed when the file can no longer be trusted to keep what is written; the agent must stop.
func (j *Journal) Failed() <-chan struct{} { return j.db.Failed() }

// Meta returns what this start knows about the journal.
func (j *Journal) Meta() Meta {
	j.metaMu.Lock()
	defer j.metaMu.Unlock()
	return j.meta
}

// LastTime is the newest time ever written, by the desktop's clock. A clock behind it has been set back.
func (j *Journal) LastTime() time.Time { return time.UnixMilli(j.lastTime.Load()) }

// A Change is one part of a Record. The constructors beside each table make them; a Change is used once.
type Change func(tx *sqlitedb.Tx) error

// Record commits changes and the audit lines that describe them, all or nothing, and returns when they are on the
// disk. at is the desktop's clock and becomes the lines' time. A change's error (ErrState, ErrDuplicate, ErrChain) is
// returned and leaves nothing behind.
func (j *Journal) Record(ctx context.Context, at time.Time, lines []Line, changes ...Change) error {
	if len(lines) == 0 {
		return ErrNoLine
	}
	err := j.db.Write(ctx, func(tx *sqlitedb.Tx) error {
		for _, change := range changes {
			if err := change(tx); err != nil {
				return err
			}
		}
		for _, line := range lines {
			if err := appendLine(tx, at, line); err != nil {
				return err
			}
		}
		return touch(tx, at)
	})
	if err == nil {
		j.advanceTime(at)
	}
	return err
}

// touch keeps the newest time.
func touch(tx *sqlitedb.Tx, at time.Time) error {
	_, err := tx.Exec(`UPDATE meta SET last_time = max(last_time, ?)`, at.UnixMilli())
	return err
}

// advanceTime mirrors last_time in memory once it is durable.
func (j *Journal) advanceTime(at time.Time) {
	for ms := at.UnixMilli(); ; {
		old := j.lastTime.Load()
		if ms <= old || j.lastTime.CompareAndSwap(old, ms) {
			return
		}
	}
}

// Adopt makes the journal this machine's and gives it a new id, together with what else recover changes (section 6): to
// every broker it is a new journal from here on, and Meta says so at once.
func (j *Journal) Adopt(ctx context.Context, at time.Time, machine string, lines []Line, changes ...Change) error {
	var id ID
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	adopt := func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec(`UPDATE meta SET machine = ?, journal_id = ?`, machine, id[:])
		return err
	}
	if err := j.Record(ctx, at, lines, append(changes, adopt)...); err != nil {
		return err
	}
	j.metaMu.Lock()
	defer j.metaMu.Unlock()
	j.meta.ID, j.meta.Machine = id, machine
	return nil
}

// must turns "no row changed" into ErrState.
func must(changed int64, err error) error {
	if err == nil && changed == 0 {
		return ErrState
	}
	return err
}

// millis is a time as the tables keep it; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMillis undoes millis.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// Maybe makes a change that may find nothing to do: ErrState is no error to it.
func Maybe(c Change) Change {
	return func(tx *sqlitedb.Tx) error {
		if err := c(tx); !errors.Is(err, ErrState) {
			return err
		}
		return nil
	}
}
