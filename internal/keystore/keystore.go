// Package keystore keeps a few small secrets, such as a surface's private
// keys, in the keyring of the operating system or in 0600 files.
//
// The keyring is only as reliable as the session it belongs to: in a service,
// a container or over SSH there is none. Whatever it answers but success and
// "not found" sends the secret to a file, and a file is where it is looked for.
package keystore

import (
	"errors"
	"fmt"
	"regexp"

	"cowork.example.com/broker/internal/redact"
)

// Secret is text or bytes that no way of printing shows; see redact.Secret.
type Secret = redact.Secret

// Kind names a place for secrets, as --keystore does.
type Kind string

// The kinds.
const (
	File Kind = "file" // 0600 files; for tests and services
	OS   Kind = "os"   // the keyring of the operating system, files where it fails
)

// MaxSecret is the most one secret may hold, in bytes.
const MaxSecret = 64 << 10

// The errors of a Store. Others are those of the file system.
var (
	// ErrNotFound: there is no secret of that name.
	ErrNotFound = errors.New("keystore: not found")
	// ErrUnavailable: the secret is in a keyring that does not answer now. It
	// is not lost: nothing may be put in its place.
	ErrUnavailable = errors.New("keystore: the keyring that holds this secret does not answer")
	// ErrLoose: a folder or file of secrets is open to other users.
	ErrLoose = errors.New("keystore: open to other users")
	// ErrInvalid: the name or the secret is not one the store takes.
	ErrInvalid = errors.New("keystore: invalid name or secret")
)

// Store keeps secrets by name. Names are 1 to 64 of a-z, 0-9, dot, dash and
// underscore, and begin with a letter or digit. Methods are safe for
// concurrent use, also by several processes.
type Store interface {
	// Get returns the secret, or ErrNotFound, or ErrUnavailable.
	Get(name string) (Secret, error)
	// Set stores the secret durably before it returns; an older one is gone.
	Set(name string, secret Secret) error
	// Delete removes the secret; that it is not there is no error.
	Delete(name string) error
}

// Open returns the store of a kind. service is the program's name in the
// keyring; dir is the folder for files, made when it is needed.
func Open(kind Kind, service, dir string) (Store, error) {
	f := files{dir: dir}
	switch kind {
	case File:
		return f, nil
	case OS:
		return ring{service: service, files: f, backend: systemKeyring{}}, nil
	}
	return nil, fmt.Errorf("unknown keystore %q: file or os", kind)
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%w: name %q", ErrInvalid, name)
	}
	return nil
}

func check(name string, secret Secret) error {
	if len(secret) == 0 || len(secret) > MaxSecret {
		return fmt.Errorf("%w: %d bytes, 1 to %d may be stored", ErrInvalid, len(secret), MaxSecret)
	}
	return checkName(name)
}
