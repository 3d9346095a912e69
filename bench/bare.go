package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/yamux"
	"nhooyr.io/websocket"
)

// barePost is what a tap cannot do without: a POST over loopback, one fsync, a second POST over loopback, another
// fsync. No database, no signature, no seal.
type barePost struct {
	near, far *http.Server
	url       string
	ran       chan time.Time
}

func newBarePost(dir string) (*barePost, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b := &barePost{ran: make(chan time.Time, 1)}
	var far string
	var err error
	if b.far, far, err = serveLog(dir+"/far", func([]byte) error { b.ran <- time.Now(); return nil }); err != nil {
		return nil, err
	}
	b.near, b.url, err = serveLog(dir+"/near", func(body []byte) error { return postBytes(far, body) })
	return b, err
}

// serveLog serves POSTs on loopback: each body is appended and synced, and then handed on.
func serveLog(path string, then func([]byte) error) (*http.Server, string, error) {
	l, err := openLog(path)
	if err != nil {
		return nil, "", err
	}
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err = errors.Join(err, l.append(body), then(body)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})}
	s.RegisterOnShutdown(func() { _ = l.Close() })
	go func() { _ = s.Serve(listen) }()
	return s, "http://" + listen.Addr().String(), nil
}

func postBytes(url string, body []byte) error {
	res, err := http.Post(url, "application/octet-stream", strings.NewReader(string(body))) //nolint:noctx // loopback
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(res.Status))
	}
	return errors.Join(err, res.Body.Close())
}

func (b *barePost) close() {
	_ = b.near.Shutdown(context.Background())
	_ = b.far.Shutdown(context.Background())
}

func (b *barePost) sample(ctx context.Context, n int) (all []time.Duration, err error) {
	body := make([]byte, 900) // about what a sealed short prompt has
	for range n {
		began := time.Now()
		if err := postBytes(b.url, body); err != nil {
			return nil, err
		}
		all = append(all, (<-b.ran).Sub(began))
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return all, nil
}

// bareRole is the hidden subcommand of the process that serves bare links.
const bareRole = "bare-links"

// serveBareLinks accepts WebSockets with a yamux session in each, both as their libraries ship them: what an idle
// link costs before anything of this project is added.
func serveBareLinks(ctx context.Context) error {
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		session, err := yamux.Server(websocket.NetConn(ctx, ws, websocket.MessageBinary), quietYamux())
		if err == nil {
			_, _ = session.Accept()
		}
	})}
	go func() {
		<-ctx.Done()
		_ = s.Close()
	}()
	if _, err := os.Stdout.WriteString(listen.Addr().String() + "\n"); err != nil {
		return err
	}
	if err := s.Serve(listen); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func quietYamux() *yamux.Config {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	return c
}

// bareLinks is that process, seen from here.
type bareLinks struct {
	cmd   *exec.Cmd
	addr  string
	links []*yamux.Session
}

func startBareLinks(ctx context.Context) (*bareLinks, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &bareLinks{cmd: exec.CommandContext(ctx, self, bareRole)}
	b.cmd.Stderr = os.Stderr
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	line := make([]byte, 64)
	n, err := out.Read(line)
	b.addr = strings.TrimSpace(string(line[:n]))
	return b, err
}

// dial opens n links, some at once.
func (b *bareLinks) dial(ctx context.Context, n, atOnce int) error {
	b.links = make([]*yamux.Session, n)
	return each(n, atOnce, func(i int) error {
		d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: address(20, i)}, Timeout: 30 * time.Second}
		c := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
		ws, _, err := websocket.Dial(ctx, "ws://"+b.addr, &websocket.DialOptions{HTTPClient: c})
		if err != nil {
			return err
		}
		b.links[i], err = yamux.Client(websocket.NetConn(ctx, ws, websocket.MessageBinary), quietYamux())
		return err
	})
}

func (b *bareLinks) close() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	for _, l := range b.links {
		if l != nil {
			_ = l.Close()
		}
	}
}
