package keystore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/zalando/go-keyring"
)

// fake is a keyring that can fail and hang.
type fake struct {
	texts map[string]string
	err   error
	hang  chan struct{} // until it is closed
}

func (f *fake) fail() error {
	if f.hang != nil {
		<-f.hang
		return errNoBus
	}
	return f.err
}

func (f *fake) get(_, name string) (string, error) {
	if err := f.fail(); err != nil {
		return "", err
	}
	if text, ok := f.texts[name]; ok {
		return text, nil
	}
	return "", keyring.ErrNotFound
}

func (f *fake) set(_, name, text string) error {
	if err := f.fail(); err != nil {
		return err
	}
	f.texts[name] = text
	return nil
}

func (f *fake) remove(_, name string) error {
	if err := f.fail(); err != nil {
		return err
	}
	if _, ok := f.texts[name]; !ok {
		return keyring.ErrNotFound
	}
	delete(f.texts, name)
	return nil
}

// errNoBus is what the library answers where there is no session bus.
var errNoBus = errors.New(`exec: "dbus-launch": executable file not found in $PATH`)

func newRing(t *testing.T) (ring, *fake) {
	f := &fake{texts: map[string]string{}}
	return ring{service: "test", files: files{filepath.Join(t.TempDir(), "keys")}, backend: f}, f
}

// must holds that Get gives a secret or an error.
func must(t *testing.T, s Store, name string, want Secret, wantErr error) {
	t.Helper()
	got, err := s.Get(name)
	if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) || !got.Equal(want) {
		t.Errorf("Get(%s) = %.20q, %v; want %.20q, %v", name, got.Reveal(), err, want.Reveal(), wantErr)
	}
}

func set(t *testing.T, s Store, name string, secret Secret) {
	t.Helper()
	if err := s.Set(name, secret); err != nil {
		t.Fatalf("Set(%s): %v", name, err)
	}
}

// TestStores is the contract of Store, for each way to keep it.
func TestStores(t *testing.T) {
	keyring.MockInit()
	stores := map[string]func(dir string) (Store, error){
		"file": func(dir string) (Store, error) { return Open(File, "test", dir) },
		"os":   func(dir string) (Store, error) { return Open(OS, "test", dir) },
		"os without a bus": func(dir string) (Store, error) {
			return ring{service: "test", files: files{dir}, backend: &fake{err: errNoBus}}, nil
		},
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "keys")
			s, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			must(t, s, "one", "", ErrNotFound)
			if err := s.Delete("one"); err != nil {
				t.Errorf("deleting nothing: %v", err)
			}
			set(t, s, "one", "first")
			set(t, s, "one", "\x00bytes\n\xff")
			set(t, s, "two", Secret(strings.Repeat("x", MaxSecret)))
			must(t, s, "one", "\x00bytes\n\xff", nil)
			again, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			must(t, again, "two", Secret(strings.Repeat("x", MaxSecret)), nil)
			if err := s.Delete("one"); err != nil {
				t.Error(err)
			}
			must(t, s, "one", "", ErrNotFound)
			for _, bad := range []string{"", "../x", "a/b", "A", "-x", ".x", strings.Repeat("a", 65)} {
				if _, err := s.Get(bad); !errors.Is(err, ErrInvalid) {
					t.Errorf("Get(%q): %v", bad, err)
				}
				if err := s.Set(bad, "x"); !errors.Is(err, ErrInvalid) {
					t.Errorf("Set(%q): %v", bad, err)
				}
				if err := s.Delete(bad); !errors.Is(err, ErrInvalid) {
					t.Errorf("Delete(%q): %v", bad, err)
				}
			}
			for _, bad := range []Secret{"", Secret(strings.Repeat("x", MaxSecret+1))} {
				if err := s.Set("ok", bad); !errors.Is(err, ErrInvalid) {
					t.Errorf("a secret of %d bytes: %v", len(bad), err)
				}
			}
			modes(t, dir)
		})
	}
}

// modes holds that nobody else can read anything.
func modes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		if strings.HasPrefix(d.Name(), ".new-") {
			t.Errorf("%s was left behind", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestKeyringIsUsedWhenItWorks(t *testing.T) {
	r, f := newRing(t)
	set(t, r, "k", "hunter2")
	if _, err := os.Stat(r.files.path("k", secretExt)); err == nil {
		t.Error("the secret is in a file as well")
	}
	if len(f.texts) != 1 || strings.Contains(f.texts["k"], "hunter2") {
		t.Errorf("the keyring holds %v", f.texts)
	}
}

func TestKeyringThatComesAndGoes(t *testing.T) {
	r, f := newRing(t)
	set(t, r, "k", "old")
	f.err = errNoBus
	must(t, r, "k", "", ErrUnavailable)
	must(t, r, "other", "", ErrNotFound)
	if err := r.Delete("k"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Delete: %v", err)
	}
	set(t, r, "k", "new") // to a file
	must(t, r, "k", "new", nil)
	f.err = nil
	must(t, r, "k", "new", nil) // and not the old one
	set(t, r, "k", "newest")
	if _, err := os.Stat(r.files.path("k", secretExt)); err == nil {
		t.Error("the file was kept")
	}
	must(t, r, "k", "newest", nil)
	if err := r.Delete("k"); err != nil {
		t.Error(err)
	}
	f.err = errNoBus
	must(t, r, "k", "", ErrNotFound)
	f.err = nil
	f.texts["k"] = "not base64!"
	must(t, r, "k", "", ErrInvalid)
}

func TestKeyringThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRing(t)
		f.hang = make(chan struct{})
		defer close(f.hang)
		set(t, r, "k", "hunter2")
		must(t, r, "k", "hunter2", nil)
		if !r.holds("k") {
			t.Error("what may yet arrive in the keyring is not noted")
		}
		must(t, r, "other", "", ErrNotFound)
		if err := r.Delete("k"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Delete: %v", err)
		}
	})
}

func TestLoosePermissionsAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	s, err := Open(File, "test", dir)
	if err != nil {
		t.Fatal(err)
	}
	set(t, s, "k", "hunter2")
	path := filepath.Join(dir, "k.key")
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		must(t, s, "k", "", ErrLoose)
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	must(t, s, "k", "hunter2", nil)
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	must(t, s, "k", "", ErrLoose)
	if err := s.Set("k", "x"); !errors.Is(err, ErrLoose) {
		t.Errorf("Set in a loose folder: %v", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "big.key"), make([]byte, MaxSecret+1), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, s, "big", "", ErrInvalid)
	if err := os.Mkdir(filepath.Join(dir, "d.key"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("d"); err == nil {
		t.Error("a folder was read as a secret")
	}
}

func TestOpenRefusesUnknownKind(t *testing.T) {
	if _, err := Open("cloud", "test", t.TempDir()); err == nil {
		t.Error("opened")
	}
}

// TestWritersNeverTear lets two stores rewrite one name: a reader sees one of
// the values, whole.
func TestWritersNeverTear(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a, b := Secret(strings.Repeat("a", 5000)), Secret(strings.Repeat("b", 7000))
	set(t, files{dir}, "k", a)
	var all sync.WaitGroup
	for _, v := range []Secret{a, b} {
		all.Go(func() {
			for range 50 {
				if err := (files{dir}).Set("k", v); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for range 500 {
			if got, err := (files{dir}).Get("k"); err != nil || !got.Equal(a) && !got.Equal(b) {
				t.Errorf("read %d bytes, %v", len(got), err)
				return
			}
		}
	})
	all.Wait()
	modes(t, dir)
}

func TestErrorsHoldNoSecret(t *testing.T) {
	r, f := newRing(t)
	set(t, r, "k", "hunter2")
	f.err = errNoBus
	_, err := r.Get("k")
	tooLong := r.Set("k", Secret(strings.Repeat("hunter2", MaxSecret)))
	if text := fmt.Sprint(err, tooLong); strings.Contains(text, "hunter2") {
		t.Errorf("an error shows it: %.80s", text)
	}
}
