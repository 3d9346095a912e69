package broker

import (
	"crypto/tls"
	"crypto/x509"
)

func tlsFor(pool *x509.CertPool) *tls.Config { return &tls.Config{RootCAs: pool} }
