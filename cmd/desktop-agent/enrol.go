package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	ucli "github.com/urfave/cli/v2"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/pairing"
)

func enrolCommand() *ucli.Command {
	return &ucli.Command{
		Name: "enrol", Usage: "make this desktop known to a broker", ArgsUsage: "[-|FILE]",
		Description: "Asks for the code that the broker's operator issued (`broker codes issue`), or reads it from standard input (-)\n" +
			"or a file that only you can read. Nothing on this desktop can be reached before you link a device.",
		Flags: append(networkFlags(),
			cli.JSONFlag(),
			&ucli.StringFlag{Name: "broker", EnvVars: []string{cli.EnvName(program, "broker")}, Usage: "the broker's `URL`; a code in link form knows it"},
			&ucli.StringFlag{Name: "host", EnvVars: []string{cli.EnvName(program, "host")}, Usage: "what this desktop is called (default: the host name)"},
			executorFlag(),
		),
		Action: enrol,
	}
}

// networkFlags are what it takes to get out of some networks.
func networkFlags() []ucli.Flag {
	return []ucli.Flag{
		&ucli.PathFlag{Name: "ca", EnvVars: []string{cli.EnvName(program, "ca")}, Usage: "trust the certificates in this PEM `FILE` beside the system's"},
		&ucli.StringFlag{
			Name: "proxy", EnvVars: []string{cli.EnvName(program, "proxy")},
			Usage: "dial through this proxy `URL` (http, https, socks5), or \"direct\" (default: the environment's)",
		},
	}
}

// enrolled is what `enrol --json` prints.
type enrolled struct {
	Pairing string `json:"pairing"`
	Broker  string `json:"broker"`
	Key     string `json:"broker_key"`
	Host    string `json:"host"`
}

func enrol(c *ucli.Context) (err error) {
	dir, err := cli.StateDir(c, program)
	if err != nil {
		return err
	}
	if err := cli.MakeDir(dir); err != nil {
		return err
	}
	secret, err := cli.SecretArg(c, "the enrolment code")
	if err != nil {
		return err
	}
	code, err := pairing.ParseCode(secret.Reveal())
	if err != nil {
		return cli.Fail(cli.Usage, err, "a code looks like BCDF-GHJK-LMNP-QRSTV-WXZBC; ask the operator for one")
	}
	if c.String("broker") == "" && code.Origin == "" {
		return cli.Fail(cli.Usage, errors.New("a typed code needs the broker's address"), "add --broker https://broker.example.com")
	}
	secrets, err := agent.OpenSecrets(c.String("keystore"), dir)
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	client, _, err := network(c)
	if err != nil {
		return err
	}
	j, err := agent.OpenJournal(c.Context, dir, agent.MachineID(), telemetry.Now())
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	progress := cli.StartProgress(c.App.ErrWriter, "asking the broker")
	p, err := agent.Enrol(c.Context, agent.Enrolment{
		Broker: c.String("broker"), Code: code, Host: c.String("host"), Executor: c.String("executor"), HTTP: client,
		Secrets: secrets, Journal: j, Now: telemetry.Now,
	})
	progress.Stop()
	if err != nil {
		return fail(err)
	}
	out := enrolled{Pairing: p.ID.String(), Broker: p.BrokerURL, Key: p.BrokerKey.String(), Host: p.Host}
	return cli.Print(c, out, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "enrolled as %s at %s\nbroker key: %s\n\nnext: `desktop-agent run`, then `desktop-agent link` in a second terminal\n",
			out.Host, out.Broker, out.Key)
		return err
	})
}

// network makes the HTTP client and the PEM of --ca and --proxy.
func network(c *ucli.Context) (*http.Client, []byte, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	var pem []byte
	if path := c.Path("ca"); path != "" {
		var err error
		if pem, err = os.ReadFile(path); err != nil {
			return nil, nil, cli.Fail(cli.Usage, err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, nil, cli.Fail(cli.Usage, fmt.Errorf("%s holds no PEM certificate", path))
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	}
	switch proxy := c.String("proxy"); proxy {
	case "":
	case "direct":
		t.Proxy = nil
	default:
		u, err := url.Parse(proxy)
		if err != nil || u.Host == "" {
			return nil, nil, cli.Usagef("--proxy is not the address of a proxy")
		}
		t.Proxy = http.ProxyURL(u)
	}
	return &http.Client{Transport: t}, pem, nil
}
