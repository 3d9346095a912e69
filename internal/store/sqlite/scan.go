package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/internal/sqlitedb"
)

// fixed scans a blob into an array's bytes. An empty blob leaves zeros.
type fixed []byte

// Scan implements sql.Scanner.
func (f fixed) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(f) && len(b) != 0 {
		return fmt.Errorf("a blob of %d bytes expected, got %T of %d", len(f), v, len(b))
	}
	copy(f, b)
	return nil
}

// moment scans Unix milliseconds.
type moment struct{ t *time.Time }

// Scan implements sql.Scanner.
func (m moment) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("a time expected, got %T", v)
	}
	*m.t = at(n)
	return nil
}

// row is what sql.Row and sql.Rows share.
type row interface{ Scan(dest ...any) error }

// list runs a query and scans each of its rows.
func list[T any](q sqlitedb.Queryer, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// found turns "no rows" into the mailbox's NotFound.
func found(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return &mailbox.Error{Code: mailbox.NotFound, Message: "there is nothing of that id here"}
	}
	return err
}

// absent says whether a row is missing, which for some reads means the zero value.
func absent(err error) bool { return errors.Is(err, sql.ErrNoRows) }
