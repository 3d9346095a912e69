package keystore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// files keeps each secret in a file of its own, so that two processes never
// rewrite each other's.
type files struct{ dir string }

const (
	secretExt = ".key"
	// ringExt is the end of an empty file which says that the secret of that
	// name is in the keyring, so that a keyring that does not answer is not
	// taken for one that has nothing.
	ringExt = ".in-keyring"
)

func (f files) path(name, ext string) string { return filepath.Join(f.dir, name+ext) }

func (f files) Get(name string) (Secret, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	if err := f.checkDir(); err != nil {
		return "", notFound(err)
	}
	file, err := os.Open(f.path(name, secretExt))
	if err != nil {
		return "", notFound(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if err := checkMode(file.Name(), info); err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(file, MaxSecret+1))
	if err != nil {
		return "", err
	}
	if err := check(name, Secret(data)); err != nil {
		return "", err
	}
	return Secret(data), nil
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	return err
}

func (f files) Set(name string, secret Secret) error {
	if err := check(name, secret); err != nil {
		return err
	}
	return f.write(name, secretExt, secret)
}

// write replaces a file as a whole and durably.
func (f files) write(name, ext string, secret Secret) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	if err := f.checkDir(); err != nil {
		return err
	}
	file, err := os.CreateTemp(f.dir, ".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already, if all went well
	_, err = io.WriteString(file, secret.Reveal())
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), f.path(name, ext)); err != nil {
		return err
	}
	return syncDir(f.dir)
}

func (f files) Delete(name string) error { return f.remove(name, secretExt) }

func (f files) remove(name, ext string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := os.Remove(f.path(name, ext))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncDir(f.dir))
}

// checkDir refuses a folder that others may enter: they could replace a file.
func (f files) checkDir() error {
	info, err := os.Stat(f.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", f.dir)
	}
	return checkPerm(f.dir, info, "700")
}

func checkMode(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return checkPerm(path, info, "600")
}

func checkPerm(path string, info fs.FileInfo, want string) error {
	if runtime.GOOS == "windows" || info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s has mode %04o: chmod %s %[2]s", ErrLoose, path, info.Mode().Perm(), want)
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // its folders cannot be synced
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
