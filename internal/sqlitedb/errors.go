package sqlitedb

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
)

// The errors of this package; compare with errors.Is.
var (
	// ErrFull means the disk is full: nothing was changed, later writes may succeed.
	ErrFull = errors.New("the disk is full")
	// ErrFatal means the file can no longer be trusted to keep what is written.
	ErrFatal = errors.New("the store has failed")
	// ErrLocked means another process has the file open.
	ErrLocked = errors.New("in use by another process")
	// ErrNewerSchema means a newer binary has migrated the file.
	ErrNewerSchema = errors.New("written by a newer version of this program")
	// ErrClosed is the answer after Close.
	ErrClosed = errors.New("the store is closed")
	// ErrUnique means that a row with this key exists already.
	ErrUnique = errors.New("exists already")
)

// SQLite's result codes that matter here; the low byte is the family.
const (
	codeIOErr            = 10
	codeCorrupt          = 11
	codeFull             = 13
	codeNotADB           = 26
	codeUnique           = 2067
	codeUniquePrimaryKey = 1555
)

// mapError gives a driver's error the identity that callers may test for. Other
// errors pass unchanged.
func mapError(err error) error {
	var e *sqlite.Error
	if err == nil || !errors.As(err, &e) || isMapped(err) {
		return err
	}
	switch c := e.Code(); {
	case c == codeUnique || c == codeUniquePrimaryKey:
		return fmt.Errorf("%w: %w", ErrUnique, err)
	case c&0xff == codeFull:
		return fmt.Errorf("%w: %w", ErrFull, err)
	case c&0xff == codeIOErr, c&0xff == codeCorrupt, c&0xff == codeNotADB:
		return fmt.Errorf("%w: %w", ErrFatal, err)
	}
	return err
}

func isMapped(err error) bool {
	return errors.Is(err, ErrUnique) || errors.Is(err, ErrFull) || errors.Is(err, ErrFatal)
}
