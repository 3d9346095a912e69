package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The names of the files that Init makes in its folder.
const (
	CAFile   = "ca.pem"   // to be trusted by the devices
	CAKey    = "ca.key"   // stays here, to issue the next leaf
	LeafFile = "cert.pem" // for --tls-cert: leaf and authority
	LeafKey  = "key.pem"  // for --tls-key
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 397 * 24 * time.Hour // more is refused by some browsers
	backdate = time.Hour            // for a device whose clock is behind
)

// ErrHosts is returned by Init when the authority in the folder was made for
// other hosts: it may vouch for no others.
var ErrHosts = errors.New("the authority in this folder does not cover these hosts")

// always are the names of the machine itself, part of every leaf.
var always = []string{"localhost", "127.0.0.1", "::1"}

// Init makes a development authority in dir, if there is none, and issues a
// leaf under it for hosts (names or addresses) and the machine itself. An
// existing authority is kept, so that devices which trust it go on to; a leaf
// is replaced. The authority is constrained to its hosts: its key, if stolen,
// vouches for nothing else. Files are 0600, dir is 0700. now is wall time.
func Init(dir string, hosts []string, now time.Time) error {
	hosts, err := checkHosts(hosts)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := readAuthority(dir)
	if errors.Is(err, fs.ErrNotExist) {
		ca, err = newAuthority(dir, hosts, now)
	}
	if err != nil {
		return err
	}
	return ca.issue(dir, hosts, now)
}

// checkHosts adds the machine's own names and refuses what is no host.
func checkHosts(hosts []string) ([]string, error) {
	all := slices.Clone(always)
	for _, h := range hosts {
		h = strings.ToLower(strings.TrimSpace(h))
		if net.ParseIP(h) == nil && !isName(h) {
			return nil, fmt.Errorf("%q is neither a host name nor an address", h)
		}
		if !slices.Contains(all, h) {
			all = append(all, h)
		}
	}
	return all, nil
}

func isName(h string) bool {
	const longest = 253
	if h == "" || len(h) > longest {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(h, "*."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// authority is the development CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(dir string, hosts []string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:  pkix.Name{CommonName: "Pairing broker development authority " + now.UTC().Format("2006-01-02")},
		NotAfter: now.Add(caLife), KeyUsage: x509.KeyUsageCertSign,
		IsCA: true, MaxPathLenZero: true, PermittedDNSDomainsCritical: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.PermittedIPRanges = append(t.PermittedIPRanges, exactly(ip))
			continue
		}
		t.PermittedDNSDomains = append(t.PermittedDNSDomains, strings.TrimPrefix(h, "*."))
	}
	der, err := sign(t, t, &key.PublicKey, key, now)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The key first: a certificate without its key could issue no leaf.
	if err := writeKey(filepath.Join(dir, CAKey), key); err != nil {
		return nil, err
	}
	return &authority{cert, key}, writeCerts(filepath.Join(dir, CAFile), der)
}

func exactly(ip net.IP) *net.IPNet {
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}
}

// issue makes the leaf, and checks it as a device would before it replaces one.
func (ca *authority) issue(dir string, hosts []string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: hosts[len(hosts)-1]}, NotAfter: earlier(now.Add(leafLife), ca.cert.NotAfter),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		t.DNSNames = append(t.DNSNames, h)
	}
	der, err := sign(t, ca.cert, &key.PublicKey, ca.key, now)
	if err != nil {
		return err
	}
	if err := ca.verify(der, now); err != nil {
		return err
	}
	if err := writeKey(filepath.Join(dir, LeafKey), key); err != nil {
		return err
	}
	return writeCerts(filepath.Join(dir, LeafFile), der, ca.cert.Raw)
}

func (ca *authority) verify(der []byte, now time.Time) error {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now})
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.CANotAuthorizedForThisName {
		return ErrHosts
	}
	return err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func sign(t, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t.SerialNumber, t.NotBefore, t.BasicConstraintsValid = serial, now.Add(-backdate), true
	return x509.CreateCertificate(rand.Reader, t, parent, pub, key)
}
