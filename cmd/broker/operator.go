package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"cowork.example.com/broker/cmd/internal/cli"
	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/internal/telemetry"
	"cowork.example.com/broker/pkg/wire"
	ucli "github.com/urfave/cli/v2"
)

const (
	// maxReply bounds an answer of the operator API.
	maxReply = 16 << 20
	// callTime is the deadline of one call, beside what it was asked to wait.
	callTime = 15 * time.Second
)

// operator speaks the operator API over the socket of a running broker.
type operator struct {
	http   *http.Client
	socket string
}

func connect(c *ucli.Context) (*operator, error) {
	dir, err := cli.StateDir(c, program)
	if err != nil {
		return nil, err
	}
	socket := broker.SocketPath(dir)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &operator{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}, socket}, nil
}

// call makes one exchange: in (nil: none) is sent, out (nil: none) is filled.
func (o *operator) call(ctx context.Context, method, path string, wait time.Duration, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime+wait)
	defer cancel()
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://operator"+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := o.http.Do(req)
	if err != nil {
		return o.unreachable(err)
	}
	defer res.Body.Close()
	return answer(res, out)
}

func (o *operator) unreachable(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return cli.Fail(cli.NotReachable, errors.New("no broker runs here: "+o.socket+" does not answer"),
			"start it: broker serve", "or name the state folder of the one that runs: --state DIR")
	case errors.Is(err, fs.ErrPermission):
		return cli.Fail(cli.Refused, errors.New("this user may not speak to the broker: "+o.socket),
			"run it as the user that runs the broker")
	}
	return cli.Fail(cli.NotReachable, fmt.Errorf("the broker does not answer: %w", err))
}

func answer(res *http.Response, out any) error {
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	if err != nil || len(raw) > maxReply {
		return cli.Fail(cli.Failed, errors.New("the broker's answer was cut off or too large"))
	}
	if res.StatusCode >= http.StatusBadRequest {
		return problem(res.Status, raw)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

func problem(status string, raw []byte) error {
	var p wire.Problem
	if json.Unmarshal(raw, &p) != nil || p.Title == "" {
		return errors.New("the broker answered " + status)
	}
	var hints []string
	if p.Hint != "" {
		hints = append(hints, p.Hint)
	}
	switch p.Code {
	case wire.CodeForbidden, wire.CodeUnauthorized:
		return cli.Fail(cli.Refused, &p, hints...)
	}
	return cli.Fail(cli.Failed, &p, hints...)
}

// at puts ids into a path constant.
func at(path string, ids ...string) (string, error) {
	for _, id := range ids {
		if id == "" || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return "", cli.Usagef("not an id: %q", id)
		}
		begin, end := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
		path = path[:begin] + id + path[end+1:]
	}
	return path, nil
}

// post calls a path that takes ids and answers nothing, and says what was done.
func post(c *ucli.Context, path, did string) error {
	path, err := at(path, c.Args().Slice()...)
	if err != nil {
		return err
	}
	op, err := connect(c)
	if err != nil {
		return err
	}
	if err := op.call(c.Context, http.MethodPost, path, 0, nil, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, did)
	return err
}

// get fills out from a path that takes ids.
func get(c *ucli.Context, path string, out any, ids ...string) error {
	path, err := at(path, ids...)
	if err != nil {
		return err
	}
	op, err := connect(c)
	if err != nil {
		return err
	}
	return op.call(c.Context, http.MethodGet, path, 0, nil, out)
}

// when shows a time in unix milliseconds to a person.
func when(ms int64) string {
	if ms == 0 {
		return "never"
	}
	return cli.Relative(telemetry.Now(), time.UnixMilli(ms))
}
