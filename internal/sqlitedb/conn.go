package sqlitedb

import (
	"context"
	"database/sql"
	"fmt"
)

// Queryer reads from one consistent snapshot. Statements are prepared once per
// connection and kept, so query must be a constant text, never one built from
// values. It is valid only inside the function it was given to, and not for
// concurrent use. Rows must be closed before the next statement.
type Queryer interface {
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *sql.Row
}

// Tx is one caller's share of the writer's transaction. See Queryer for how
// long it lives.
type Tx struct{ c *conn }

// Query reads; the caller's own uncommitted changes are visible.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) { return tx.c.Query(query, args...) }

// QueryRow reads at most one row.
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row { return tx.c.QueryRow(query, args...) }

// Exec changes rows and says how many.
func (tx *Tx) Exec(query string, args ...any) (changed int64, err error) {
	return tx.c.Exec(query, args...)
}

// conn is one connection and its prepared statements. Statements run without a
// context: one in flight is never interrupted, since an interrupted write would
// take its neighbours in the batch with it.
type conn struct {
	sql   *sql.Conn
	stmts map[string]*sql.Stmt
}

func (db *DB) connect(ctx context.Context) (*conn, error) {
	c, err := db.pool.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening a connection: %w", mapError(err))
	}
	db.conns = append(db.conns, &conn{sql: c, stmts: map[string]*sql.Stmt{}})
	return db.conns[len(db.conns)-1], nil
}

func (c *conn) close() error {
	for _, s := range c.stmts {
		s.Close() // an error would only repeat that of the statement's last run
	}
	return c.sql.Close()
}

func (c *conn) prepare(query string) (*sql.Stmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, nil
	}
	s, err := c.sql.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, mapError(err)
	}
	c.stmts[query] = s
	return s, nil
}

func (c *conn) Query(query string, args ...any) (*sql.Rows, error) {
	s, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	rows, err := s.Query(args...)
	return rows, mapError(err)
}

func (c *conn) QueryRow(query string, args ...any) *sql.Row {
	s, err := c.prepare(query)
	if err != nil { // only QueryRow itself can make a Row that carries an error
		return c.sql.QueryRowContext(context.Background(), query, args...)
	}
	return s.QueryRow(args...)
}

func (c *conn) Exec(query string, args ...any) (int64, error) {
	s, err := c.prepare(query)
	if err != nil {
		return 0, err
	}
	r, err := s.Exec(args...)
	if err != nil {
		return 0, mapError(err)
	}
	return r.RowsAffected()
}

// Read runs fn on a reading connection, in one snapshot of what was committed
// when it began. ctx bounds the wait for a free connection, not fn; fn should
// read a bounded number of rows.
func (db *DB) Read(ctx context.Context, fn func(q Queryer) error) error {
	var c *conn
	select {
	case c = <-db.readers:
	case <-db.writer.stopped:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { db.readers <- c }()
	if _, err := c.Exec("BEGIN DEFERRED"); err != nil {
		return err
	}
	defer c.Exec("ROLLBACK") //nolint:errcheck // nothing was written
	return mapError(fn(c))
}
