package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Deadlines and bounds of every listener. Streams, waiting calls and tunnels set deadlines of their own.
const (
	headerTime = 10 * time.Second
	readTime   = 30 * time.Second
	writeTime  = 30 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 16 << 10
)

// endpoint is one listener and what it serves.
type endpoint struct {
	url    string
	listen net.Listener
	server *http.Server
}

func newEndpoint(url string, l net.Listener, h http.Handler, log *slog.Logger) *endpoint {
	return &endpoint{url, l, &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// listen opens a public address, with TLS if conf is given.
func listen(ctx context.Context, addr string, conf *tls.Config, h http.Handler, log *slog.Logger) (*endpoint, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	if conf == nil {
		return newEndpoint("http://"+l.Addr().String(), l, h, log), nil
	}
	e := newEndpoint("https://"+l.Addr().String(), l, h, log)
	e.server.TLSConfig = conf
	return e, nil
}

// listenSocket opens the operator's socket. The caller holds the store's lock, so that a socket which is there already
// is what a dead broker left behind. The folder is its owner's alone, and so is the socket.
func listenSocket(ctx context.Context, path string, h http.Handler, log *slog.Logger) (*endpoint, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("the operator's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return newEndpoint(path, l, h, log), nil
}

func (e *endpoint) serve() error {
	serve := e.server.Serve
	if e.server.TLSConfig != nil {
		serve = func(l net.Listener) error { return e.server.ServeTLS(l, "", "") }
	}
	if err := serve(e.listen); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s: %w", e.url, err)
	}
	return nil
}

// serveAll serves until ctx ends or one endpoint fails; ending is then for the caller.
func serveAll(ctx context.Context, list []*endpoint, group *sync.WaitGroup) error {
	failed := make(chan error, len(list))
	for _, e := range list {
		group.Go(func() {
			if err := e.serve(); err != nil {
				failed <- err
			}
		})
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// shutdown lets calls in progress end until ctx does, and cuts the rest.
func shutdown(ctx context.Context, list []*endpoint) {
	var group sync.WaitGroup
	for _, e := range list {
		group.Go(func() {
			if e.server.Shutdown(ctx) != nil {
				_ = e.server.Close()
			}
		})
	}
	group.Wait()
}
