package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/wire"
)

// node is the real broker as a process of its own, with the state folder of a lab that outlives it.
type node struct {
	lab     *lab.Lab
	proc    *lab.Proc
	metrics string // host:port
	op      *http.Client
}

// newNode makes the state folder; start starts the broker on it.
func (b *bench) newNode() (*node, error) {
	l, err := lab.New(b.bin)
	if err != nil {
		return nil, err
	}
	n := &node{lab: l}
	n.op = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", broker.SocketPath(l.BrokerDir()))
	}}}
	n.metrics, err = free()
	return n, err
}

func free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (n *node) start() (err error) {
	if n.proc, err = n.lab.StartBroker("--metrics", n.metrics, "--log-level", "error"); err != nil {
		return err
	}
	_, err = n.proc.Await("(?m)^ready$", lab.StartTime)
	return err
}

func (n *node) close() { _ = n.lab.Close() }

// code issues an enrolment code over the operator's socket.
func (n *node) code(ctx context.Context) (pairing.Code, error) {
	var out wire.CodeIssued
	if err := exchange(ctx, n.op, "http://operator"+wire.PathOpCodes, "", wire.CodeIssue{}, &out); err != nil {
		return pairing.Code{}, err
	}
	return pairing.ParseCode(out.Text)
}

// gauge reads one value of the broker's metrics.
func (n *node) gauge(name string) (float64, error) {
	raw, err := n.admin("/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

func (n *node) admin(path string) ([]byte, error) {
	res, err := http.Get("http://" + n.metrics + path) //nolint:noctx // a local page
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	return io.ReadAll(res.Body)
}

// save keeps a profile of the broker, if profiles are wanted.
func (b *bench) save(n *node, name, path string) error {
	if b.profile == "" {
		return nil
	}
	raw, err := n.admin(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.profile, name), raw, 0o644)
}

// client speaks to the broker from a loopback address of its own: desktops and surfaces do not share a network, and
// the broker's limits for one network stay in force.
func client(addr net.IP, keep bool) *http.Client {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: addr}, Timeout: 30 * time.Second}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: !keep}}
}

// address is the i-th of the loopback addresses, from 127.x.0.0 on.
func address(x byte, i int) net.IP { return net.IPv4(127, x, byte(i>>8), byte(i)) }

// maxBody bounds an answer.
const maxBody = 4 << 20

// exchange posts JSON and decodes the answer.
func exchange(ctx context.Context, c *http.Client, url, token string, in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return err
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s: %s %s", url, res.Status, body)
	}
	return json.Unmarshal(body, out)
}
