package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cowork.example.com/broker/certs"
	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/httpapi"
	"cowork.example.com/broker/internal/limits"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/internal/store/sqlite"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// comeBackIn is what a stopping broker tells its desktops.
	comeBackIn = 2 * time.Second
	// drainTime is how long open calls and streams may take to end.
	drainTime = 5 * time.Second
	// adminTime is how long an answer of the admin listener may take.
	adminTime = 2 * time.Minute
	// startTime bounds opening the store and recovering from a crash.
	startTime = 5 * time.Minute
)

// running is a broker while it runs.
type running struct {
	cfg       Config
	secrets   secrets
	store     *sqlite.Store
	mailbox   *mailbox.Service
	registry  *pairing.Registry
	linking   *pairing.Linking
	enrolment *pairing.Enrolment
	desktops  *desktops
	feed      *httpapi.Feed
	api       *httpapi.Server
	tunnel    *tunnel.Server
	endpoints []*endpoint
	metrics   string
}

// Run runs a broker until ctx ends, which is not an error, or until it cannot go on. It owns everything it starts: when
// it returns, nothing of it runs, and everything that was acknowledged is on the disk.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	b := &running{cfg: cfg}
	if err := b.open(ctx); err != nil {
		return err
	}
	if cfg.opened != nil {
		cfg.opened(b)
	}
	err := b.serve(ctx)
	b.drain()
	note := b.note(audit.BrokerStopped)
	return errors.Join(err, note, b.store.Close())
}

// open makes everything, listeners last. What it has opened it closes again when it fails.
func (b *running) open(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := os.MkdirAll(b.cfg.StateDir, 0o700); err != nil {
		return err
	}
	if b.store, err = sqlite.Open(ctx, filepath.Join(b.cfg.StateDir, StoreFile)); err != nil {
		return explainOpen(b.cfg.StateDir, err)
	}
	defer func() {
		if err != nil {
			for _, e := range b.endpoints {
				_ = e.listen.Close()
			}
			err = errors.Join(err, b.store.Close())
		}
	}()
	if b.secrets, err = loadSecrets(b.cfg.StateDir); err != nil {
		return err
	}
	if err := b.listen(ctx); err != nil {
		return err
	}
	b.compose()
	if err := b.mailbox.Recover(ctx, b.cfg.Now()); err != nil {
		return fmt.Errorf("recovering from the last run: %w", err)
	}
	return b.note(audit.BrokerStarted)
}

// explainOpen says what to do about a store that another broker has, or had.
func explainOpen(dir string, err error) error {
	switch {
	case errors.Is(err, sqlitedb.ErrLocked):
		return &ConfigError{"another broker runs on " + dir, "end it first, or give this one a folder of its own: --state DIR"}
	case errors.Is(err, sqlitedb.ErrNewerSchema):
		return &ConfigError{"the store in " + dir + " was written by a newer version of this program", "run that version, or put the backup from before back"}
	}
	return err
}

// listen opens the addresses first: the page origin may be the first of them. Nothing is served yet.
func (b *running) listen(ctx context.Context) error {
	conf, err := b.tls()
	if err != nil {
		return err
	}
	for _, addr := range b.cfg.Listen {
		e, err := listen(ctx, addr, conf, nil, b.cfg.Logger)
		if err != nil {
			return err
		}
		b.endpoints = append(b.endpoints, e)
	}
	if b.cfg.PageOrigin == "" {
		if b.cfg.PageOrigin, err = proof.Origin(b.endpoints[0].url); err != nil {
			return err
		}
	}
	socket, err := listenSocket(ctx, SocketPath(b.cfg.StateDir), nil, b.cfg.Logger)
	if err != nil {
		return err
	}
	b.endpoints = append(b.endpoints, socket)
	return b.listenMetrics(ctx)
}

// compose makes the services; see docs/architecture.md for who knows whom.
func (b *running) compose() {
	key := proof.SigKeyOf(b.secrets.key)
	b.registry = &pairing.Registry{Pairings: b.store, Surfaces: b.store, Broker: key, Origin: b.cfg.PageOrigin}
	b.linking = &pairing.Linking{Links: b.store, Pepper: b.secrets.pepper}
	b.enrolment = &pairing.Enrolment{Codes: b.store, Pairings: b.store, Pepper: b.secrets.pepper, Broker: key}
	d := &desktops{
		key: key, now: b.cfg.Now, log: b.cfg.Logger, registry: b.registry, linking: b.linking, inner: b.store.Waker(), rows: b.store,
		live: map[proof.PairingID]*desk{}, ahead: map[proof.PairingID]time.Duration{},
	}
	b.desktops = d
	b.mailbox = mailbox.New(b.store, d)
	b.feed = httpapi.NewFeed(d.attached)
	d.mailbox, d.feed = b.mailbox, b.feed
	b.tunnel = tunnel.NewServer(tunnel.ServerConfig{
		Authenticate: func(r *http.Request) (tunnel.Peer, error) { return b.api.AuthenticateTunnel(r) },
		Admit:        d.admit, OnLink: d.onLink, OnClose: d.onClose, OnConflict: d.onConflict, Logger: b.cfg.Logger,
	})
	b.api = httpapi.New(b.apiConfig())
	d.api, d.tunnel = b.api, b.tunnel
	for i, e := range b.endpoints {
		if e.server.Handler == nil && i < len(b.cfg.Listen) {
			e.server.Handler = b.api.Public()
		} else if e.server.Handler == nil {
			e.server.Handler = b.api.Operator()
		}
	}
}

func (b *running) apiConfig() httpapi.Config {
	table, _ := limits.Change(limits.Table(), b.cfg.Limits) // complete has checked it
	return httpapi.Config{
		Enrolment: b.enrolment, Registry: b.registry, Linking: b.linking, Mailbox: b.mailbox, Rows: b.store,
		Waker: b.desktops, Desktops: b.desktops, Tunnel: b.tunnel, Feed: b.feed,
		Limits: limits.New(table, b.cfg.Now), Audit: b.store,
		Key: b.secrets.key, PageOrigin: b.cfg.PageOrigin, AllowedOrigins: b.cfg.AllowedOrigins,
		TrustedProxies: b.cfg.TrustedProxies, Version: b.cfg.Version, Now: b.cfg.Now, Log: b.cfg.Logger,
	}
}

// serve runs listeners and jobs until ctx ends or something fails for good.
func (b *running) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { runJobs(ctx, b.jobs(), b.cfg.Now, b.cfg.Logger) })
	defer group.Wait()
	var diskErr error
	group.Go(func() {
		select {
		case <-b.store.Failed():
			diskErr = errors.New("the disk has failed: nothing can be acknowledged any more")
			cancel()
		case <-ctx.Done():
		}
	})
	if b.cfg.Started != nil {
		started, err := b.started(ctx)
		if err != nil {
			return err
		}
		group.Go(func() { b.cfg.Started(ctx, started) })
	}
	var serving sync.WaitGroup
	err := serveAll(ctx, b.endpoints, &serving)
	cancel()
	b.stopServing()
	serving.Wait()
	group.Wait()
	return errors.Join(err, diskErr)
}

// stopServing ends what faces outside: streams and waits get their end, desktops are told when to come back.
func (b *running) stopServing() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { b.api.Close() })
	group.Go(func() {
		if err := b.tunnel.Drain(ctx, comeBackIn); err != nil {
			b.cfg.Logger.Warn("some links were cut", "error", err)
		}
	})
	shutdown(ctx, b.endpoints)
	group.Wait()
}

// drain waits for what the links had begun.
func (b *running) drain() {
	b.desktops.links.Wait()
	b.desktops.group.Wait()
	_ = os.Remove(SocketPath(b.cfg.StateDir)) // the listener's Close has removed it already, in most cases
}

// note writes a line about the broker itself.
func (b *running) note(t audit.Type) error {
	ctx, cancel := context.WithTimeout(context.Background(), storeCall)
	defer cancel()
	return b.store.Append(ctx, audit.Build(audit.Record{
		Type: t, Time: b.cfg.Now(), Actor: audit.Actor{Kind: audit.Broker},
		Target: wire.AuditTarget{Kind: audit.Broker, ID: proof.SigKeyOf(b.secrets.key).String()},
	}))
}

// started says what runs.
func (b *running) started(ctx context.Context) (*Started, error) {
	pairings, err := b.store.Pairings(ctx)
	if err != nil {
		return nil, err
	}
	codes, err := b.store.Codes(ctx)
	if err != nil {
		return nil, err
	}
	s := &Started{
		Socket: SocketPath(b.cfg.StateDir), StateDir: b.cfg.StateDir, Key: proof.SigKeyOf(b.secrets.key), Metrics: b.metrics,
		PageOrigin: b.cfg.PageOrigin, First: len(pairings) == 0 && len(codes) == 0, Missing: b.cfg.missing(), IssueCode: b.issueCode,
	}
	for _, e := range b.endpoints[:len(b.cfg.Listen)] {
		s.Addresses = append(s.Addresses, e.url)
	}
	return s, nil
}

func (b *running) issueCode(ctx context.Context, in wire.CodeIssue) (wire.CodeIssued, error) {
	ttl := time.Duration(in.TTLSeconds) * time.Second
	code, rec, err := b.enrolment.Issue(ctx, ttl, in.Note, pairing.Origin{Kind: "operator", ID: "terminal"}, b.cfg.Now())
	if err != nil {
		return wire.CodeIssued{}, err
	}
	return wire.CodeIssued{ID: rec.ID, Text: code.Text(), Link: code.Link(b.cfg.PageOrigin), Expires: rec.Expires.UnixMilli()}, nil
}

// tls is the configuration of the public listeners, nil for plain HTTP.
func (b *running) tls() (*tls.Config, error) {
	if b.cfg.TLSCert == "" {
		return nil, nil
	}
	loader, err := certs.Load(b.cfg.TLSCert, b.cfg.TLSKey, b.cfg.Now, b.renewed)
	if err != nil {
		return nil, err
	}
	return loader.Config("h2", "http/1.1"), nil
}

func (b *running) renewed(err error) {
	if err != nil {
		b.cfg.Logger.Error("the TLS certificate could not be read again; the old one is still used", "error", err)
		return
	}
	b.cfg.Logger.Info("the TLS certificate was renewed")
}

// listenMetrics opens the admin listener: metrics, readiness, profiles; on loopback only, with its own writing time,
// since a profile takes as long as it was asked to.
func (b *running) listenMetrics(ctx context.Context) error {
	if b.cfg.MetricsAddr == "" {
		return nil
	}
	ready := func(ctx context.Context) error {
		_, _, err := b.store.Lines(ctx, 0, 1)
		return err
	}
	build := telemetry.BuildInfo()
	e, err := listen(ctx, b.cfg.MetricsAddr, nil, telemetry.AdminHandler(telemetry.NewRegistry(build), build, ready), b.cfg.Logger)
	if err != nil {
		return err
	}
	e.server.WriteTimeout = adminTime
	b.metrics, b.endpoints = e.url, append(b.endpoints, e)
	return nil
}
