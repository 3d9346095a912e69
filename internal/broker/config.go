// Package broker is the composition root of the server: it opens the store, makes the services, serves the public and
// the operator API, and moves commands between the mailbox and the desktops' tunnels. It holds the broker's own key
// and pepper as 0600 files beside the store, and contains nothing that could open a sealed byte.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// DefaultListen is where the broker listens without configuration: this machine only.
const DefaultListen = "127.0.0.1:8787"

// Names inside the state folder.
const (
	StoreFile  = "broker.db"
	KeyFile    = "broker.key"
	PepperFile = "pepper.key"
	SocketFile = "operator.sock"
)

// maxSocketPath is the longest path of a unix socket on the platforms we support, in bytes.
const maxSocketPath = 103

// Config says how a broker runs. The zero value of a field is the safest choice.
type Config struct {
	Listen         []string       // host:port; empty: DefaultListen
	StateDir       string         // an existing folder of mode 0700; required
	TLSCert        string         // PEM file, reloaded when it changes; empty: plain HTTP
	TLSKey         string         // PEM file
	TrustedProxies []netip.Prefix // whose X-Forwarded-For and -Host are believed
	PageOrigin     string         // what links start with; empty: the first address
	AllowedOrigins []string       // other origins whose pages may call the API
	MetricsAddr    string         // loopback host:port of the metrics; empty: none
	Version        string         // shown in BrokerInfo
	Limits         map[string]int // other figures for rules of limits.Table, by name
	Now            func() time.Time
	Logger         *slog.Logger

	// Started is called once, when everything listens. It may be nil.
	Started func(ctx context.Context, s *Started)

	opened func(*running) // for this package's own tests
}

// Started is what a running broker says of itself to whoever started it.
type Started struct {
	Addresses []string // base URLs, for example http://127.0.0.1:8787
	Metrics   string   // base URL of the metrics, or ""
	Socket    string   // the operator's socket
	StateDir  string
	Key       proof.SigKey
	// PageOrigin is what links start with.
	PageOrigin string
	// First says that no pairing and no enrolment code exists yet. Whoever started the broker at a terminal may show
	// a code then; anyone else should print the command that makes one.
	First bool
	// Missing is what stands between this broker and the internet, one sentence each.
	Missing []string
	// IssueCode makes an enrolment code.
	IssueCode func(context.Context, wire.CodeIssue) (wire.CodeIssued, error)
}

// SocketPath returns the operator's socket of a state folder.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, SocketFile) }

// ConfigError is a configuration with which the broker does not start. Hint says what to do.
type ConfigError struct{ Text, Hint string }

// Error returns the text.
func (e *ConfigError) Error() string { return e.Text }

// complete fills what was left out and refuses what would be unsafe.
func (c *Config) complete() error {
	if c.Now == nil || c.Logger == nil {
		return errors.New("broker: Config needs Now and Logger")
	}
	if len(c.Listen) == 0 {
		c.Listen = []string{DefaultListen}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return &ConfigError{"a TLS certificate needs its key, and a key its certificate", "give both --tls-cert and --tls-key"}
	}
	if n := len(SocketPath(c.StateDir)); n > maxSocketPath {
		return &ConfigError{
			fmt.Sprintf("the operator's socket would have a path of %d bytes, at most %d are possible", n, maxSocketPath),
			"choose a state folder with a shorter path",
		}
	}
	for _, addr := range c.Listen {
		if err := c.checkListen(addr); err != nil {
			return err
		}
	}
	if host, _, _ := net.SplitHostPort(c.Listen[0]); c.PageOrigin == "" && !local(host) {
		return &ConfigError{"links need a name that others can open, and " + c.Listen[0] + " is not one", "give --page-origin https://YOUR-NAME"}
	}
	if c.MetricsAddr != "" && !loopback(c.MetricsAddr) {
		return &ConfigError{"metrics are served on loopback only, not on " + c.MetricsAddr, "use 127.0.0.1:PORT and a scraper on this machine"}
	}
	if _, err := limits.Change(limits.Table(), c.Limits); err != nil {
		return &ConfigError{err.Error(), "the table is at GET /op/v1/limits of the operator's socket"}
	}
	return c.checkOrigins()
}

// checkListen refuses to face a network in clear.
func (c *Config) checkListen(addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return &ConfigError{"not an address to listen on: " + addr, "write HOST:PORT, for example " + DefaultListen}
	}
	if loopback(addr) || c.TLSCert != "" || len(c.TrustedProxies) > 0 {
		return nil
	}
	return &ConfigError{
		addr + " can be reached by other machines, and there is no TLS",
		"give --tls-cert and --tls-key (for a trial: broker certs init), or --trusted-proxies when a proxy does TLS in front, or listen on " + DefaultListen,
	}
}

func (c *Config) checkOrigins() error {
	all := c.AllowedOrigins
	if c.PageOrigin != "" {
		all = append([]string{c.PageOrigin}, all...)
	}
	for _, o := range all {
		if clean, err := proof.Origin(o); err != nil || clean != o {
			return &ConfigError{"not an origin: " + o, "write it as https://host or https://host:port, lower case, nothing behind it"}
		}
	}
	return nil
}

// missing lists what a person should do before the broker faces the internet.
func (c *Config) missing() []string {
	var list []string
	if c.TLSCert == "" && len(c.TrustedProxies) == 0 {
		list = append(list, "no TLS: give --tls-cert and --tls-key, or put a TLS proxy in front and name it with --trusted-proxies")
	}
	if !strings.HasPrefix(c.PageOrigin, "https://") {
		list = append(list, "links start with "+c.PageOrigin+", which is not https: give --page-origin https://YOUR-NAME")
	} else if u, err := url.Parse(c.PageOrigin); err == nil && local(u.Hostname()) {
		list = append(list, "links start with "+c.PageOrigin+", which only this machine can open: give --page-origin https://YOUR-NAME")
	}
	everyLocal := true
	for _, addr := range c.Listen {
		everyLocal = everyLocal && loopback(addr)
	}
	if everyLocal && len(c.TrustedProxies) == 0 {
		list = append(list, "it listens on this machine only: give --listen HOST:PORT")
	}
	return list
}

// loopback says whether an address to listen on can be reached from this machine only. A name is not resolved.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && local(host)
}

func local(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
