//go:build unix

package sqlitedb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

// The environment variable that turns the test binary into a second process.
const childEnv = "SQLITEDB_TEST_CHILD"

func TestMain(m *testing.M) {
	if child := os.Getenv(childEnv); child != "" {
		verb, path, _ := strings.Cut(child, ":")
		os.Exit(runChild(verb, path))
	}
	os.Exit(m.Run())
}

// runChild opens the file and, for "write", writes rows for ever, printing each
// number only once Write has returned.
func runChild(verb, path string) int {
	db, err := Open(context.Background(), Options{Path: path, Migrations: schema(1)})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if verb == "fail" {
		fmt.Println(failingDisk(db))
		return 0
	}
	var mu sync.Mutex
	for w := 0; verb == "write"; w++ {
		if w < 8 {
			go writeForever(db, w, &mu)
			continue
		}
		select {}
	}
	return 0
}

func writeForever(db *DB, worker int, mu *sync.Mutex) {
	for i := 0; ; i++ {
		v := fmt.Sprintf("%d-%d", worker, i)
		if err := insert(db, v); err != nil {
			panic(err)
		}
		mu.Lock()
		fmt.Println(v)
		mu.Unlock()
	}
}

func schema(versions int) fs.FS {
	files := fstest.MapFS{}
	for v := 1; v <= versions; v++ {
		sql := fmt.Sprintf("-- +goose Up\nCREATE TABLE t%d (v TEXT PRIMARY KEY) STRICT;\n", v)
		files[fmt.Sprintf("%05d_t.sql", v)] = &fstest.MapFile{Data: []byte(sql)}
	}
	return files
}

func open(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), Options{Path: path, Migrations: schema(1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func insert(db *DB, v string) error {
	return db.Write(context.Background(), func(tx *Tx) error {
		_, err := tx.Exec("INSERT INTO t1 (v) VALUES (?)", v)
		return err
	})
}

func count(t *testing.T, db *DB) (n int) {
	t.Helper()
	err := db.Read(t.Context(), func(q Queryer) error {
		return q.QueryRow("SELECT count(*) FROM t1").Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPragmasHoldOnEveryConnection(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a b#c?d%41.db"))
	check := func(q Queryer) error {
		for pragma, want := range map[string]string{
			"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "fullfsync": "1",
		} {
			var got string
			if err := q.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
				return fmt.Errorf("%s = %q, %v; want %q", pragma, got, err, want)
			}
		}
		return nil
	}
	for range DefaultReaders {
		if err := db.Read(t.Context(), check); err != nil {
			t.Error(err)
		}
	}
	if err := db.Write(t.Context(), func(tx *Tx) error { return check(tx) }); err != nil {
		t.Error(err)
	}
}

func TestFilesAreOursAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db := open(t, path)
	if err := insert(db, "a"); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		fi, err := os.Stat(path + suffix)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", suffix, fi.Mode(), err)
		}
	}
}

func TestReaderCannotWrite(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	err := db.Read(t.Context(), func(q Queryer) error {
		_, err := q.(*conn).Exec("INSERT INTO t1 (v) VALUES ('x')")
		return err
	})
	if err == nil || count(t, db) != 0 {
		t.Fatalf("a reader wrote: %v", err)
	}
}

func TestReadIsOneSnapshot(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	err := db.Read(t.Context(), func(q Queryer) error {
		var before, after int
		if err := q.QueryRow("SELECT count(*) FROM t1").Scan(&before); err != nil {
			return err
		}
		if err := insert(db, "between"); err != nil {
			return err
		}
		if err := q.QueryRow("SELECT count(*) FROM t1").Scan(&after); err != nil {
			return err
		}
		if before != after {
			return fmt.Errorf("read %d, then %d", before, after)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if count(t, db) != 1 {
		t.Error("the write in between is lost")
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db := open(t, path)
	out, err := child("open", path).CombinedOutput()
	if err == nil || !strings.Contains(string(out), ErrLocked.Error()) || strings.Count(string(out), "\n") != 1 {
		t.Fatalf("second process: %v, %q; want one line with %q", err, out, ErrLocked)
	}
	if _, err := Open(t.Context(), Options{Path: path, Migrations: schema(1)}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second Open in this process: %v", err)
	}
	db.Close()
	if out, err := child("open", path).CombinedOutput(); err != nil {
		t.Fatalf("after Close: %v, %s", err, out)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := Open(t.Context(), Options{Path: path, Migrations: schema(2)})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, err = Open(t.Context(), Options{Path: path, Migrations: schema(1)})
	if !errors.Is(err, ErrNewerSchema) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("older program: %v; want one line with %q", err, ErrNewerSchema)
	}
	db, err = Open(t.Context(), Options{Path: path, Migrations: schema(3)})
	if err != nil {
		t.Fatalf("newer program: %v", err)
	}
	db.Close()
}

// TestKillKeepsWhatWasAcknowledged kills a writing process without warning and
// looks for every row whose Write had returned.
func TestKillKeepsWhatWasAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	for round, acks := range []int{20, 200} {
		acked := writeAndKill(t, path, acks)
		db := open(t, path)
		for _, v := range acked {
			var n int
			err := db.Read(t.Context(), func(q Queryer) error {
				return q.QueryRow("SELECT count(*) FROM t1 WHERE v = ?", v).Scan(&n)
			})
			if err != nil || n != 1 {
				t.Fatalf("round %d: acknowledged row %s: found %d, %v", round, v, n, err)
			}
		}
		err := db.Write(t.Context(), func(tx *Tx) error { _, err := tx.Exec("DELETE FROM t1"); return err })
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
}

// writeAndKill returns what a child acknowledged before it was killed, which is
// at least n rows.
func writeAndKill(t *testing.T, path string, n int) (acked []string) {
	t.Helper()
	cmd := child("write", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		acked = append(acked, s.Text())
		if len(acked) == n {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if len(acked) < n {
		t.Fatalf("the child died early: %s", strings.Join(acked, " "))
	}
	last := acked[len(acked)-1]
	if _, i, ok := strings.Cut(last, "-"); !ok || strings.Trim(i, "0123456789") != "" || i == "" {
		acked = acked[:len(acked)-1] // a line cut short by the kill
	}
	return acked
}

func child(verb, path string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+verb+":"+path)
	return cmd
}

func TestClose(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	var wg sync.WaitGroup
	results := make([]error, 64)
	for i := range results {
		wg.Go(func() { results[i] = insert(db, strconv.Itoa(i)) })
	}
	db.Close()
	wg.Wait()
	if err := errors.Join(db.Close(), insert(db, "late")); !errors.Is(err, ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	kept := 0
	for _, err := range results {
		if err == nil {
			kept++
		} else if !errors.Is(err, ErrClosed) {
			t.Errorf("Write during Close: %v", err)
		}
	}
	if err := db.Read(t.Context(), func(Queryer) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if got := count(t, open(t, filepath.Join(filepath.Dir(db.lock.Name()), "x.db"))); got != kept {
		t.Errorf("%d acknowledged, %d kept", kept, got)
	}
}
