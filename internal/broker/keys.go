package broker

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"cowork.example.com/broker/pkg/pairing"
)

// secrets are the two things that a stolen store must not contain.
type secrets struct {
	key    ed25519.PrivateKey
	pepper pairing.Pepper
}

// loadSecrets reads the broker's key and pepper, or makes them at the first start.
func loadSecrets(dir string) (secrets, error) {
	seed, err := secretFile(filepath.Join(dir, KeyFile), ed25519.SeedSize)
	if err != nil {
		return secrets{}, err
	}
	pepper, err := secretFile(filepath.Join(dir, PepperFile), len(pairing.Pepper{}))
	if err != nil {
		return secrets{}, err
	}
	return secrets{ed25519.NewKeyFromSeed(seed), pairing.Pepper(pepper)}, nil
}

// secretFile returns the size bytes of a file that only its owner can read. A missing file is made, and is on the
// disk before this returns.
func secretFile(path string, size int) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newSecret(path, size)
	}
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, &ConfigError{path + " can be read by others", "chmod 600 " + path + ", and think about who may have read it"}
	}
	if len(raw) != size {
		return nil, &ConfigError{fmt.Sprintf("%s has %d bytes, want %d", path, len(raw), size), "put it back from a backup; without it every desktop must be enrolled again"}
	}
	return raw, nil
}

func newSecret(path string, size int) ([]byte, error) {
	secret := make([]byte, size)
	_, _ = rand.Read(secret) // crypto/rand never fails
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone when all went well
	if _, err = f.Write(secret); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), path); err != nil { // CreateTemp made it 0600
		return nil, err
	}
	return secret, syncDir(filepath.Dir(path))
}

// syncDir makes a new name in a folder last.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // folders cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
