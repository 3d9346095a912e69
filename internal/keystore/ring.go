package keystore

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/zalando/go-keyring"
)

// patience is how long a keyring may take: it may ask the person to unlock it.
const patience = 30 * time.Second

var errSlow = errors.New("no answer within " + patience.String())

// backend is the keyring of the operating system.
type backend interface {
	get(service, name string) (string, error)
	set(service, name, text string) error
	remove(service, name string) error
}

type systemKeyring struct{}

func (systemKeyring) get(service, name string) (string, error) { return keyring.Get(service, name) }
func (systemKeyring) set(service, name, text string) error     { return keyring.Set(service, name, text) }

func (systemKeyring) remove(service, name string) error { return keyring.Delete(service, name) }

// ring is the keyring with files behind it.
type ring struct {
	service string
	files   files
	backend backend
}

// Get takes the file if there is one, since the last Set then went there, else
// asks the keyring. One that fails while it holds the secret is ErrUnavailable.
func (r ring) Get(name string) (Secret, error) {
	secret, err := r.files.Get(name)
	if !errors.Is(err, ErrNotFound) {
		return secret, err
	}
	text, err := wait(func() (string, error) { return r.backend.get(r.service, name) })
	switch {
	case err == nil:
		return decode(text)
	case !errors.Is(err, keyring.ErrNotFound) && r.holds(name):
		return "", r.unavailable(name, err)
	}
	return "", ErrNotFound
}

// Set stores in the keyring, with a note of it in the folder, or in a file.
// The note comes first, so that no crash leaves a secret without it.
func (r ring) Set(name string, secret Secret) error {
	if err := check(name, secret); err != nil {
		return err
	}
	before := r.holds(name)
	if err := r.files.write(name, ringExt, ""); err != nil {
		return err
	}
	text := base64.StdEncoding.EncodeToString([]byte(secret.Reveal()))
	_, err := wait(func() (string, error) { return "", r.backend.set(r.service, name, text) })
	if err == nil {
		return r.files.Delete(name)
	}
	if err := r.files.Set(name, secret); err != nil {
		return err
	}
	if before || errors.Is(err, errSlow) {
		return nil // something may be in the keyring; the file goes before it
	}
	return r.files.remove(name, ringExt)
}

// Delete removes nothing if the keyring does not let go of what it holds: an
// older secret would come back.
func (r ring) Delete(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	_, err := wait(func() (string, error) { return "", r.backend.remove(r.service, name) })
	if err != nil && !errors.Is(err, keyring.ErrNotFound) && r.holds(name) {
		return r.unavailable(name, err)
	}
	if err := r.files.Delete(name); err != nil {
		return err
	}
	return r.files.remove(name, ringExt)
}

func (r ring) unavailable(name string, err error) error {
	return fmt.Errorf("%w (%s says so): %w", ErrUnavailable, r.files.path(name, ringExt), err)
}

func (r ring) holds(name string) bool {
	_, err := os.Stat(r.files.path(name, ringExt))
	return err == nil
}

func decode(text string) (Secret, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", fmt.Errorf("%w: what the keyring holds was not stored by this program", ErrInvalid)
	}
	return Secret(b), nil
}

// wait gives up on a keyring that does not answer. The call stays behind: the
// keyring's interface offers no way to stop it.
func wait(call func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		text, err := call()
		done <- answer{text, err}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a := <-done:
		return a.text, a.err
	case <-timer.C:
		return "", errSlow
	}
}
