//go:build unix

package sqlitedb

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// blockWriter keeps the writer busy until the returned function is called, so
// that what is written meanwhile meets in one batch.
func blockWriter(t *testing.T, db *DB) (release func()) {
	t.Helper()
	began, end := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- db.Write(context.Background(), func(*Tx) error { close(began); <-end; return nil })
	}()
	<-began
	return func() {
		close(end)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// waitQueued returns when n requests wait in the channel.
func waitQueued(db *DB, n int) {
	for len(db.writer.requests) < n {
		runtime.Gosched()
	}
}

func TestGroupCommit(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	release := blockWriter(t, db)
	const n = 100
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := insert(db, strconv.Itoa(i)); err != nil {
				t.Error(err)
			}
		})
	}
	waitQueued(db, n)
	release()
	wg.Wait()
	if s := db.Stats(); s.Writes != n+1 || s.Commits != 1 {
		t.Errorf("%d writes in %d commits; want %d in 1", s.Writes, s.Commits, n+1)
	}
	if got := count(t, db); got != n {
		t.Errorf("%d rows", got)
	}
}

func TestBatchIsBounded(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	var wg sync.WaitGroup
	for i := range 3 * maxBatch {
		wg.Go(func() {
			if err := insert(db, strconv.Itoa(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := db.Stats(); s.Commits < 3 {
		t.Errorf("%d commits for %d writes", s.Commits, s.Writes)
	}
}

func TestSavepointIsolation(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	release := blockWriter(t, db)
	mine := errors.New("mine")
	results := make([]error, 10)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					results[i] = fmt.Errorf("panic: %v", p)
				}
			}()
			results[i] = db.Write(context.Background(), func(tx *Tx) error {
				if _, err := tx.Exec("INSERT INTO t1 (v) VALUES (?)", strconv.Itoa(i)); err != nil {
					return err
				}
				switch i {
				case 3:
					return mine
				case 5:
					panic("five")
				case 7:
					_, err := tx.Exec("INSERT INTO t1 (v) VALUES (?)", "7")
					return err
				}
				return nil
			})
		})
	}
	waitQueued(db, len(results))
	release()
	wg.Wait()
	for i, err := range results {
		switch {
		case i == 3 && !errors.Is(err, mine),
			i == 5 && (err == nil || err.Error() != "panic: five"),
			i == 7 && !errors.Is(err, ErrUnique),
			i != 3 && i != 5 && i != 7 && err != nil:
			t.Errorf("caller %d: %v", i, err)
		}
	}
	if got := count(t, db); got != 7 {
		t.Errorf("%d rows; want 7: those of 3, 5 and 7 undone, the others kept", got)
	}
	if s := db.Stats(); s.Commits != 1 {
		t.Errorf("%d commits; want 1", s.Commits)
	}
}

func TestCancelledBeforeItBegan(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	release := blockWriter(t, db)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		result <- db.Write(ctx, func(tx *Tx) error {
			_, err := tx.Exec("INSERT INTO t1 (v) VALUES ('withdrawn')")
			return err
		})
	}()
	waitQueued(db, 1)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	release()
	if err := insert(db, "after"); err != nil {
		t.Error(err)
	}
	if got := count(t, db); got != 1 {
		t.Errorf("%d rows; the withdrawn function ran", got)
	}
}

// TestDiskFull fills the disk: a real one of 2 MB where that can be mounted, a
// limit inside SQLite elsewhere, which ends in the same code.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	small := smallDisk(t, dir)
	db := open(t, filepath.Join(dir, "x.db"))
	if !small {
		err := db.Write(t.Context(), func(tx *Tx) error {
			return tx.QueryRow("PRAGMA max_page_count = 300").Scan(new(int))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	kept := 0
	for ; kept < 100 && err == nil; kept++ {
		err = insert(db, strconv.Itoa(kept)+strings.Repeat("x", 64<<10))
	}
	kept--
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d rows: %v; want %v", kept, err, ErrFull)
	}
	if got := count(t, db); got != kept || kept == 0 {
		t.Errorf("%d rows acknowledged, %d kept", kept, got)
	}
	select {
	case <-db.Failed():
		t.Error("a full disk is not the end of the store")
	default:
	}
	if err := insert(db, "small"); err != nil && !errors.Is(err, ErrFull) {
		t.Errorf("after the disk was full: %v", err)
	}
}

func TestLostTransactionIsFatal(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	err := db.Write(t.Context(), func(tx *Tx) error { // stands for SQLite giving up on its own
		_, err := tx.Exec("ROLLBACK")
		return err
	})
	if !errors.Is(err, ErrFatal) {
		t.Fatalf("got %v", err)
	}
	select {
	case <-db.Failed():
	default:
		t.Error("Failed is not closed")
	}
	if err := insert(db, "late"); !errors.Is(err, ErrFatal) {
		t.Errorf("a later write: %v", err)
	}
}

// failingDisk lets the kernel refuse writes beyond a size, which SQLite takes for an I/O error, and says what became
// of the writes. It runs in a child, whose limit it is.
func failingDisk(db *DB) string {
	signal.Ignore(unix.SIGXFSZ)
	if err := insert(db, "kept"); err != nil {
		return err.Error()
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 128 << 10, Max: 128 << 10}); err != nil {
		return err.Error()
	}
	err := insert(db, strings.Repeat("x", 256<<10))
	failed := false
	select {
	case <-db.Failed():
		failed = true
	default:
	}
	later := insert(db, "later")
	return fmt.Sprint(errors.Is(err, ErrFatal), failed, errors.Is(later, ErrFatal))
}

func TestFailingDiskIsFatal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	out, err := child("fail", path).CombinedOutput()
	if err != nil || string(out) != "true true true\n" {
		t.Fatalf("a failing disk: %v, %s", err, out)
	}
	if got := count(t, open(t, path)); got != 1 {
		t.Errorf("%d rows after the failure; want the one that was acknowledged", got)
	}
}

func BenchmarkWrite(b *testing.B) {
	db, err := Open(b.Context(), Options{Path: filepath.Join(b.TempDir(), "x.db"), Migrations: schema(1)})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	b.SetParallelism(100)
	var mu sync.Mutex
	n := 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			v := strconv.Itoa(n)
			mu.Unlock()
			if err := insert(db, v); err != nil {
				b.Error(err)
			}
		}
	})
	s := db.Stats()
	b.ReportMetric(float64(s.Writes)/float64(s.Commits), "writes/commit")
}
