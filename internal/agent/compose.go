package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"cowork.example.com/broker/internal/keystore"
	"cowork.example.com/broker/internal/opencode"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// OpenSecrets opens the keystore of a state folder: kind is os (the keyring of the operating system, files where it
// fails) or file.
func OpenSecrets(kind, stateDir string) (Secrets, error) {
	store, err := keystore.Open(keystore.Kind(kind), "desktop-agent", filepath.Join(stateDir, "keys"))
	if err != nil {
		return nil, err
	}
	return keystore.Bytes{Store: store}, nil
}

// OpenCode says which OpenCode runs commands.
type OpenCode struct {
	Mode         string // own, isolated or attach
	Binary       string // of own and isolated
	URL          string // of attach
	PasswordFile string // of attach
	StateDir     string // the agent's
	Projects     []wire.ExecProject
	Logger       *slog.Logger
}

// Executor makes the executor once the journal is open.
func (o OpenCode) Executor(s Seed) (Executor, error) {
	return opencode.New(opencode.Options{
		Mode: o.Mode, Binary: o.Binary, URL: o.URL, PasswordFile: o.PasswordFile, StateDir: filepath.Join(o.StateDir, "opencode"),
		Projects: o.Projects, Environ: os.Environ(), Turns: s.Turns, Requests: s.Requests, Since: s.Since, Logger: o.Logger,
	})
}

// Loosened lists what the projects' own configurations let OpenCode do without asking.
func Loosened(projects []wire.ExecProject) []string {
	var all []string
	for _, p := range projects {
		for _, line := range opencode.LoosenedBy(p.Dir) {
			all = append(all, p.Name+": "+line)
		}
	}
	return all
}

// MachineID names this machine without telling its id to anyone: a hash of what the system says it is. Empty when the
// system does not say; then a copied journal is noticed by its counter only.
func MachineID() string {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if raw, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(raw))) > 0 {
			sum := sha256.Sum256([]byte("odp/machine\x00" + strings.TrimSpace(string(raw))))
			return hex.EncodeToString(sum[:16])
		}
	}
	return ""
}

// Network is how the tunnels get out: PEM of more authorities, and a proxy ("" is the environment's, "direct" none).
func Network(extraCA []byte, proxy string) tunnel.DialConfig {
	return tunnel.DialConfig{ExtraCA: extraCA, Proxy: proxy}
}
