package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/keystore"
	"cowork.example.com/broker/pkg/surface"
)

func certPool(path string) (*tls.Config, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, cli.Fail(cli.Usage, fmt.Errorf("%s holds no PEM certificate", path))
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

func keystoreFlag() ucli.Flag {
	return &ucli.StringFlag{
		Name: "keystore", EnvVars: []string{cli.EnvName(program, "keystore")}, Value: "file",
		Usage: "keep keys in the `os` keyring, or in a `file` that only you can read",
	}
}

func openSecrets(c *ucli.Context, dir string) (surface.Secrets, error) {
	store, err := keystore.Open(keystore.Kind(c.String("keystore")), program, filepath.Join(dir, "keys"))
	if err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	return keystore.Bytes{Store: store}, nil
}
