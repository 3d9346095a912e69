package surface

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

const (
	// maxReply bounds any answer but a stream: the largest is a page of open requests.
	maxReply = 8 << 20
	// callTimeout bounds one call; a ?wait= is added to it.
	callTimeout = 20 * time.Second
)

// ErrUnreachable means that no broker answered. The request may or may not have arrived; every request of this
// package can be repeated.
var ErrUnreachable = errors.New("the broker cannot be reached")

// api is the broker's HTTP API with its errors as *wire.Problem.
type api struct {
	base string // scheme://host[:port]/prefix, no slash at the end
	http *http.Client
}

func newAPI(broker string, client *http.Client) (*api, error) {
	u, err := url.Parse(broker)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("the broker's address is not a web address")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("the broker's address must start with https:// (plain http is for this machine only)")
	}
	own := http.Client{}
	if client != nil {
		own = *client
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // tokens go nowhere else
	return &api{base: strings.TrimRight(u.Scheme+"://"+u.Host+u.Path, "/"), http: &own}, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// call is one exchange: in (nil for none) is sent as JSON, out (nil for none) is filled.
func (a *api) call(ctx context.Context, method, path, token string, wait time.Duration, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout+wait)
	defer cancel()
	res, err := a.send(ctx, method, withWait(path, wait), token, in)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	if err != nil {
		return fmt.Errorf("%w: the answer was cut off", ErrUnreachable)
	}
	if len(body) > maxReply {
		return fmt.Errorf("the broker's answer is larger than %d bytes", maxReply)
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return problemOf(res, body)
	}
	if out == nil || res.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("the broker's answer is not the JSON of its API")
	}
	return nil
}

// send makes the request and returns any answer, also a refusal.
func (a *api) send(ctx context.Context, method, path, token string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := a.http.Do(req)
	if err != nil {
		if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w at %s: %s", ErrUnreachable, a.base, plain(err))
	}
	return res, nil
}

// plain takes the address out of a URL error: it is named already.
func plain(err error) string {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err.Error()
	}
	return err.Error()
}

func problemOf(res *http.Response, body []byte) error {
	var p wire.Problem
	if json.Unmarshal(body, &p) != nil || p.Code == "" {
		p = wire.Problem{Code: wire.CodeInternal, Title: "the broker (or what stands before it) answered " + res.Status}
	}
	p.Status = res.StatusCode
	if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && p.RetryAfter == 0 {
		p.RetryAfter = n
	}
	return &p
}

// IsCode reports whether err is the broker's refusal with this code (wire.Code constants).
func IsCode(err error, code string) bool {
	var p *wire.Problem
	return errors.As(err, &p) && p.Code == code
}

func withWait(path string, wait time.Duration) string {
	if s := int(wait / time.Second); s > 0 {
		return path + "?wait=" + strconv.Itoa(min(s, wire.MaxWaitSeconds))
	}
	return path
}

// at fills the {names} of a path constant in their order.
func at(path string, values ...string) string {
	for _, v := range values {
		i, j := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
		path = path[:i] + url.PathEscape(v) + path[j+1:]
	}
	return path
}
