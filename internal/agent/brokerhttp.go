package agent

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
	"strings"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

const (
	brokerTimeout = 20 * time.Second
	maxBrokerBody = wire.MaxSmallBody
)

// brokerHTTP is what the agent asks of its broker outside the tunnel: who it is, enrolment, a nonce.
type brokerHTTP struct {
	base   string // scheme://host[:port]/prefix
	client *http.Client
}

// newBrokerHTTP takes the broker's address as a person gives it.
func newBrokerHTTP(address string, client *http.Client) (*brokerHTTP, error) {
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" || u.User != nil {
		return nil, errors.New("the broker's address is not a web address such as https://broker.example.com")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, errors.New("the broker's address must start with https:// (plain http is for this machine only)")
	}
	own := http.Client{}
	if client != nil {
		own = *client
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // a code goes nowhere else
	return &brokerHTTP{base: strings.TrimRight(u.Scheme+"://"+u.Host+u.Path, "/"), client: &own}, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// host is host[:port] as it is dialled: what SignTunnel covers.
func (b *brokerHTTP) host() string {
	_, rest, _ := strings.Cut(b.base, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// tunnelURL is where the WebSocket is dialled.
func (b *brokerHTTP) tunnelURL() string {
	return "ws" + strings.TrimPrefix(b.base, "http") + wire.PathTunnel
}

// info asks who the broker is.
func (b *brokerHTTP) info(ctx context.Context) (wire.BrokerInfo, error) {
	var info wire.BrokerInfo
	return info, b.do(ctx, http.MethodGet, wire.PathBroker, nil, &info)
}

// nonce asks for what the next upgrade signs.
func (b *brokerHTTP) nonce(ctx context.Context, pairing string) (wire.Nonce, error) {
	var n wire.Nonce
	return n, b.do(ctx, http.MethodPost, wire.PathTunnelNonce, wire.TunnelNonceRequest{Pairing: pairing}, &n)
}

// do is one exchange; in may be nil. A refusal is a *wire.Problem.
func (b *brokerHTTP) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	req, err := b.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	res, err := b.client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return fmt.Errorf("the broker at %s cannot be reached: %w", b.base, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBrokerBody))
	if err != nil {
		return fmt.Errorf("the broker's answer was cut off: %w", err)
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return problem(res, body)
	}
	if json.Unmarshal(body, out) != nil {
		return fmt.Errorf("%s does not answer like a broker", b.base)
	}
	return nil
}

func (b *brokerHTTP) request(ctx context.Context, method, path string, in any) (*http.Request, error) {
	if in == nil {
		return http.NewRequestWithContext(ctx, method, b.base+path, nil)
	}
	raw, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, b.base+path, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

func problem(res *http.Response, body []byte) error {
	p := &wire.Problem{}
	if json.Unmarshal(body, p) != nil || p.Code == "" {
		*p = wire.Problem{Code: wire.CodeInternal, Title: "the broker answered " + res.Status}
	}
	p.Status = res.StatusCode
	return p
}
