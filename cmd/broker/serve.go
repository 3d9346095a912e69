package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/wire"
	ucli "github.com/urfave/cli/v2"
)

func env(flag string) []string { return []string{cli.EnvName(program, flag)} }

func serveCommand() *ucli.Command {
	return &ucli.Command{
		Name: "serve", Usage: "run the broker; without settings it listens on this machine only", Action: serve,
		Flags: []ucli.Flag{
			&ucli.StringSliceFlag{Name: "listen", Usage: "`HOST:PORT` (repeatable)", EnvVars: env("listen"), DefaultText: broker.DefaultListen},
			&ucli.PathFlag{Name: "tls-cert", Usage: "PEM `FILE` with the certificate; read again when it changes", EnvVars: env("tls-cert")},
			&ucli.PathFlag{Name: "tls-key", Usage: "PEM `FILE` with its key", EnvVars: env("tls-key")},
			&ucli.StringSliceFlag{
				Name: "trusted-proxies", EnvVars: env("trusted-proxies"),
				Usage: "`ADDRESS` or network of a proxy that does TLS in front; its X-Forwarded-For is believed (repeatable)",
			},
			&ucli.StringFlag{Name: "page-origin", Usage: "`ORIGIN` that links start with, for example https://broker.example.com", EnvVars: env("page-origin")},
			&ucli.StringSliceFlag{Name: "allowed-origin", Usage: "`ORIGIN` of another page that may call (repeatable)", EnvVars: env("allowed-origin")},
			&ucli.StringFlag{Name: "metrics", Usage: "loopback `HOST:PORT` for metrics, health and profiles", EnvVars: env("metrics")},
			&ucli.StringSliceFlag{Name: "limit", Usage: "`NAME=FIGURE` of a rule in the table of limits (repeatable)", EnvVars: env("limit")},
			&ucli.StringFlag{Name: "log-format", Usage: "auto, text or json", Value: string(telemetry.LogAuto), EnvVars: env("log-format")},
			&ucli.StringFlag{Name: "log-level", Usage: "debug, info, warn or error", Value: "info", EnvVars: env("log-level")},
		},
	}
}

func serve(c *ucli.Context) error {
	if err := cli.WantArgs(c, 0, 0); err != nil {
		return err
	}
	cfg, err := serveConfig(c)
	if err != nil {
		return err
	}
	if err := cli.MakeDir(cfg.StateDir); err != nil {
		return err
	}
	cfg.Started = func(ctx context.Context, s *broker.Started) { announce(ctx, c, s) }
	err = broker.Run(c.Context, cfg)
	if bad, ok := errors.AsType[*broker.ConfigError](err); ok {
		return cli.Fail(cli.Usage, bad, bad.Hint)
	}
	return err
}

func serveConfig(c *ucli.Context) (broker.Config, error) {
	dir, err := cli.StateDir(c, program)
	if err != nil {
		return broker.Config{}, err
	}
	level, err := telemetry.ParseLevel(c.String("log-level"))
	if err != nil {
		return broker.Config{}, cli.Fail(cli.Usage, err)
	}
	log, err := telemetry.NewLogger(c.App.ErrWriter, telemetry.LogFormat(c.String("log-format")), level)
	if err != nil {
		return broker.Config{}, cli.Fail(cli.Usage, err)
	}
	cfg := broker.Config{
		Listen: c.StringSlice("listen"), StateDir: dir, TLSCert: c.Path("tls-cert"), TLSKey: c.Path("tls-key"),
		PageOrigin: c.String("page-origin"), AllowedOrigins: c.StringSlice("allowed-origin"), MetricsAddr: c.String("metrics"),
		Version: telemetry.BuildInfo().Version, Now: telemetry.Now, Logger: log,
		Limits: map[string]int{},
	}
	for _, text := range c.StringSlice("limit") {
		name, figure, _ := strings.Cut(text, "=")
		n, err := strconv.Atoi(figure)
		if err != nil {
			return broker.Config{}, cli.Usagef("--limit: %q is not NAME=FIGURE", text)
		}
		cfg.Limits[name] = n
	}
	for _, text := range c.StringSlice("trusted-proxies") {
		p, err := network(text)
		if err != nil {
			return broker.Config{}, err
		}
		cfg.TrustedProxies = append(cfg.TrustedProxies, p)
	}
	return cfg, nil
}

// network reads an address or a network in CIDR form.
func network(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, cli.Usagef("--trusted-proxies: %q is neither an address nor a network", text)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// announce says where the broker is, and what is missing before it may face the internet.
func announce(ctx context.Context, c *ucli.Context, s *broker.Started) {
	w := c.App.Writer
	for _, a := range s.Addresses {
		fmt.Fprintln(w, "listening on", a)
	}
	fmt.Fprintln(w, "links start with", s.PageOrigin)
	fmt.Fprintln(w, "state is kept in", s.StateDir)
	if s.Metrics != "" {
		fmt.Fprintln(w, "metrics are at", s.Metrics+"/metrics")
	}
	if len(s.Missing) > 0 {
		fmt.Fprintln(w, "before it may face the internet:")
	}
	for _, m := range s.Missing {
		fmt.Fprintln(w, "  -", m)
	}
	if s.First {
		first(ctx, w, s)
	}
	fmt.Fprintln(w, "ready")
}

// first helps whoever starts a broker without any desktop. A code is shown to a person only: a log would keep it.
func first(ctx context.Context, w io.Writer, s *broker.Started) {
	if !cli.IsTerminal(w) {
		fmt.Fprintf(w, "no desktop is enrolled yet; make a code with: broker --state %s codes issue\n", s.StateDir)
		return
	}
	code, err := s.IssueCode(ctx, wire.CodeIssue{Note: "first start"})
	if err != nil {
		fmt.Fprintln(w, "no code could be made:", cli.Clean(err.Error()))
		return
	}
	fmt.Fprintln(w)
	_ = showCode(w, code)
	fmt.Fprintln(w)
}
