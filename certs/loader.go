package certs

import (
	"crypto/tls"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// CheckEvery is how often at most a Loader looks whether its files changed.
const CheckEvery = time.Second

// Loader serves a certificate from two PEM files and follows their renewal: a
// handshake looks at them, at most once in CheckEvery. It has no goroutine and
// needs no close. It is safe for concurrent use.
type Loader struct {
	certFile, keyFile string
	now               func() time.Time
	report            func(error)
	current           atomic.Pointer[tls.Certificate]

	mu      sync.Mutex // held by the handshake that looks; others do not wait
	checked time.Time
	seen    stamp
}

// stamp is what tells one state of the two files from another.
type stamp struct{ cert, key os.FileInfo }

// Load reads the pair, which must be good now. Later, a pair that cannot be
// read or does not fit together leaves the one in use and is told to report,
// once for each change; report also gets nil after a successful renewal. It is
// called from a handshake and must not block.
func Load(certFile, keyFile string, now func() time.Time, report func(error)) (*Loader, error) {
	l := &Loader{certFile: certFile, keyFile: keyFile, now: now, report: report}
	seen, err := l.stat()
	if err != nil {
		return nil, err
	}
	pair, err := readPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	l.seen, l.checked = seen, now()
	l.current.Store(pair)
	return l, nil
}

// Config returns a configuration for a server: TLS 1.3 only, with the
// protocols in their order of preference ("h2", "http/1.1").
func (l *Loader) Config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		Time:       l.now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			l.check()
			return l.current.Load(), nil
		},
	}
}

// Expires returns the end of the certificate in use, for status and metrics.
func (l *Loader) Expires() time.Time { return l.current.Load().Leaf.NotAfter }

// check reloads the pair if a file changed. A handshake that finds another one
// at it goes on with what there is.
func (l *Loader) check() {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	now := l.now()
	if now.Sub(l.checked).Abs() < CheckEvery {
		return
	}
	l.checked = now
	seen, err := l.stat()
	if err == nil && seen.same(l.seen) {
		return
	}
	// The state is taken before the files are read: what changes meanwhile
	// looks different next time.
	if err == nil {
		var pair *tls.Certificate
		if pair, err = readPair(l.certFile, l.keyFile); err == nil {
			l.current.Store(pair)
		}
	} else if l.seen.cert == nil {
		return // still missing, and told before
	}
	l.seen = seen
	l.report(err)
}

// stat returns the zero stamp with its error.
func (l *Loader) stat() (stamp, error) {
	cert, err := os.Stat(l.certFile)
	if err != nil {
		return stamp{}, err
	}
	key, err := os.Stat(l.keyFile)
	if err != nil {
		return stamp{}, err
	}
	return stamp{cert, key}, nil
}

func (s stamp) same(other stamp) bool {
	return sameFile(s.cert, other.cert) && sameFile(s.key, other.key)
}

func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
