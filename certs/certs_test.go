package certs

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func initDir(t *testing.T, hosts ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	if err := Init(dir, hosts, start); err != nil {
		t.Fatal(err)
	}
	return dir
}

func path(dir, name string) string { return filepath.Join(dir, name) }

// clock is wall time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// reports collects what a Loader reports.
type reports struct {
	mu   sync.Mutex
	list []error
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, err)
}

func (r *reports) take() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

// server answers TLS on loopback until the test ends.
func server(t *testing.T, dir string, c *clock, r *reports) (*Loader, string) {
	t.Helper()
	l, err := Load(path(dir, LeafFile), path(dir, LeafKey), c.Now, r.add)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", l.Config("h2", "http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); all.Wait() })
	return l, listener.Addr().String()
}

// dial makes one handshake as a device that trusts the authority of dir.
func dial(t *testing.T, dir, addr, name string, change func(*tls.Config)) (tls.ConnectionState, error) {
	t.Helper()
	pool, err := ReadPool(path(dir, CAFile))
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: pool, ServerName: name, Time: func() time.Time { return start }, NextProtos: []string{"http/1.1"}}
	if change != nil {
		change(config)
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", addr, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState(), nil
}

func serial(t *testing.T, state tls.ConnectionState) string {
	t.Helper()
	return state.PeerCertificates[0].SerialNumber.String()
}

func TestHandshakes(t *testing.T) {
	dir := initDir(t, "broker.example.com", "192.0.2.7")
	_, addr := server(t, dir, &clock{now: start}, &reports{})
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "broker.example.com", "192.0.2.7"} {
		state, err := dial(t, dir, addr, name, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("%s: version %x, protocol %q", name, state.Version, state.NegotiatedProtocol)
		}
	}
	if _, err := dial(t, dir, addr, "other.example.com", nil); err == nil {
		t.Error("a name that is not in the leaf was accepted")
	}
	if _, err := dial(t, initDir(t), addr, "localhost", nil); err == nil {
		t.Error("another authority was accepted")
	}
	if _, err := dial(t, dir, addr, "localhost", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
	if _, err := dial(t, dir, addr, "localhost", func(c *tls.Config) { c.NextProtos = []string{"gopher"} }); err == nil {
		t.Error("an unknown protocol was accepted")
	}
	if _, err := dial(t, dir, addr, "localhost", func(c *tls.Config) {
		c.Time = func() time.Time { return start.Add(leafLife + time.Minute) }
	}); err == nil {
		t.Error("an expired leaf was accepted")
	}
}

func TestInitKeepsTheAuthority(t *testing.T) {
	dir := initDir(t, "a.example.com", "b.example.com")
	before, _ := os.ReadFile(path(dir, CAFile))
	leaf, _ := os.ReadFile(path(dir, LeafFile))
	if err := Init(dir, []string{"B.example.com "}, start); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(path(dir, CAFile))
	if string(before) != string(after) {
		t.Error("the authority changed")
	}
	if again, _ := os.ReadFile(path(dir, LeafFile)); string(again) == string(leaf) {
		t.Error("the leaf is still the old one")
	}
	kept, _ := os.ReadFile(path(dir, LeafFile))
	if err := Init(dir, []string{"evil.example.org"}, start); !errors.Is(err, ErrHosts) {
		t.Errorf("a host beyond the authority: %v", err)
	}
	if now, _ := os.ReadFile(path(dir, LeafFile)); string(now) != string(kept) {
		t.Error("a refused leaf was written")
	}
	if err := os.Remove(path(dir, CAKey)); err != nil {
		t.Fatal(err)
	}
	if err := Init(dir, nil, start); err == nil || !strings.Contains(err.Error(), "its key") {
		t.Errorf("an authority without its key: %v", err)
	}
}

func TestAuthorityVouchesForItsHostsOnly(t *testing.T) {
	dir := initDir(t, "broker.example.com")
	ca, err := readAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"example.com", "bank.example.org", "192.0.2.8"} {
		// As a thief of the key would: without Init's own check.
		if err := ca.issue(t.TempDir(), []string{host}, start); !errors.Is(err, ErrHosts) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if !ca.cert.MaxPathLenZero || ca.cert.MaxPathLen != 0 {
		t.Error("it may make further authorities")
	}
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		return
	}
	dir := initDir(t)
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("folder %o", info.Mode().Perm())
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		info, _ := e.Info()
		names = append(names, e.Name())
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %o", e.Name(), info.Mode().Perm())
		}
	}
	if want := []string{CAKey, CAFile, LeafFile, LeafKey}; !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o604: false, 0o620: false, 0o602: false} {
		if err := os.Chmod(path(dir, LeafKey), mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path(dir, LeafFile), path(dir, LeafKey), time.Now, func(error) {})
		if (err == nil) != ok {
			t.Errorf("key of mode %o: %v", mode, err)
		}
	}
}

func TestHosts(t *testing.T) {
	for _, bad := range []string{"", "a b", "https://x.example", "x.example:443", "-x.example", "x..example", strings.Repeat("a", 64) + ".example", "ü.example", "*"} {
		if err := Init(t.TempDir(), []string{bad}, start); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	dir := initDir(t, "*.example.com")
	pair, err := readPair(path(dir, LeafFile), path(dir, LeafKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Leaf.VerifyHostname("x.example.com"); err != nil {
		t.Error(err)
	}
	if _, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok {
		t.Errorf("key %T", pair.PrivateKey)
	}
	if got := pair.Leaf.ExtKeyUsage; !slices.Equal(got, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("usage %v", got)
	}
}

func TestRenewalWithoutRestart(t *testing.T) {
	dir := initDir(t)
	c, r := &clock{now: start}, &reports{}
	l, addr := server(t, dir, c, r)
	hello := func() string {
		t.Helper()
		state, err := dial(t, dir, addr, "localhost", nil)
		if err != nil {
			t.Fatal(err)
		}
		return serial(t, state)
	}
	first := hello()
	expires := l.Expires()
	if err := Init(dir, nil, start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if hello() != first {
		t.Error("it looked at the files within CheckEvery")
	}
	c.add(CheckEvery)
	second := hello()
	if second == first || !l.Expires().After(expires) {
		t.Error("the new certificate is not served")
	}
	if got := r.take(); len(got) != 1 || got[0] != nil {
		t.Errorf("reports %v, want one success", got)
	}

	// Each way to break the pair keeps the old one and is told once.
	key, _ := os.ReadFile(path(dir, LeafKey))
	otherKey, _ := os.ReadFile(path(initDir(t), LeafKey))
	breakage := []func() error{
		func() error { return writeFile(path(dir, LeafKey), otherKey) },
		func() error { return writeFile(path(dir, LeafKey), []byte("garbage")) },
		func() error { return writeFile(path(dir, LeafKey), make([]byte, MaxPEM+1)) },
		func() error { return os.Remove(path(dir, LeafKey)) },
	}
	for i, b := range breakage {
		if err := b(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c.add(CheckEvery)
			if hello() != second {
				t.Errorf("breakage %d: another certificate is served", i)
			}
		}
		if got := r.take(); len(got) != 1 || got[0] == nil {
			t.Errorf("breakage %d: reports %v, want one error", i, got)
		}
	}

	// It heals by itself.
	if err := writeFile(path(dir, LeafKey), key); err != nil {
		t.Fatal(err)
	}
	c.add(CheckEvery)
	if hello() != second {
		t.Error("the healed pair is not served")
	}
	if got := r.take(); len(got) != 1 || got[0] != nil {
		t.Errorf("reports %v, want one success", got)
	}
}

func TestHandshakesDuringRenewals(t *testing.T) {
	dir := initDir(t)
	c, r := &clock{now: start}, &reports{}
	_, addr := server(t, dir, c, r)
	before := runtime.NumGoroutine()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 10 {
				if _, err := dial(t, dir, addr, "localhost", nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		if err := Init(dir, nil, start); err != nil {
			t.Fatal(err)
		}
		c.add(CheckEvery)
	}
	all.Wait()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := initDir(t)
	for _, pair := range [][2]string{{"none.pem", LeafKey}, {LeafFile, "none.key"}, {LeafFile, CAKey}, {LeafKey, LeafFile}} {
		if _, err := Load(path(dir, pair[0]), path(dir, pair[1]), time.Now, func(error) {}); err == nil {
			t.Errorf("%v was loaded", pair)
		}
	}
	if _, err := ReadPool(path(dir, LeafKey)); err == nil {
		t.Error("a key is no pool")
	}
}
