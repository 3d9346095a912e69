package opencode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// callTimeout bounds every call but the event stream. A cold runtime under load
	// took up to seven seconds for its first answers.
	callTimeout = 25 * time.Second
	// maxAnswer bounds an answer; a page of a hundred messages with attachments fits.
	maxAnswer = 64 << 20
	// maxRefusal bounds the body of an error answer.
	maxRefusal = 64 << 10
	userName   = "opencode"
)

// secret is a password that does not print itself.
type secret string

// String hides the secret.
func (secret) String() string { return "[secret]" }

// GoString hides the secret from %#v as well.
func (secret) GoString() string { return "[secret]" }

// client speaks to one OpenCode. Safe for concurrent use.
type client struct {
	base     string // http://127.0.0.1:port
	password secret
	http     *http.Client
}

// newClient returns a client of the OpenCode at base. It uses no proxy and follows no
// redirect: the runtime is on this machine.
func newClient(base string, password secret) *client {
	return &client{base: base, password: password, http: &http.Client{
		Transport: &http.Transport{
			Proxy:               nil,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 8,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// refusal is an answer that is not 2xx.
type refusal struct {
	Status  int
	Name    string // NotFoundError, BadRequest, PermissionNotFoundError ...
	Message string // may hold local content
}

// Error names the status and the kind of error, but not the message, which may hold paths.
func (r *refusal) Error() string { return fmt.Sprintf("opencode answered %d %s", r.Status, r.Name) }

// notFound says whether err is OpenCode's word that the thing asked for is not there.
func notFound(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.Status == http.StatusNotFound
}

// neverSent says whether a call failed before anything of it could reach the runtime.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// call does one request. The directory chooses the runtime's project; in, when not nil, is
// sent as JSON; out, when not nil, is filled leniently from the answer. The header is
// returned for the page cursor.
func (c *client) call(ctx context.Context, method, path, directory string, query url.Values, in, out any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := c.request(ctx, method, path, directory, query, in)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return nil, readRefusal(res)
	}
	body, err := readAll(res.Body, maxAnswer)
	if err != nil || out == nil {
		return res.Header, err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return nil, fmt.Errorf("opencode: answer of %s %s is not understood: %w", method, path, err)
	}
	return res.Header, nil
}

// request builds an authenticated request.
func (c *client) request(ctx context.Context, method, path, directory string, query url.Values, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	if directory != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("directory", directory)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.SetBasicAuth(userName, string(c.password))
	return req, nil
}

// readAll reads at most limit bytes and refuses more.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("opencode: answer is larger than %d bytes", limit)
	}
	return b, nil
}

// readRefusal understands both shapes of OpenCode's errors, and bodies that are neither.
func readRefusal(res *http.Response) *refusal {
	r := &refusal{Status: res.StatusCode, Name: http.StatusText(res.StatusCode)}
	b, err := readAll(res.Body, maxRefusal)
	if err != nil {
		return r
	}
	var shape struct {
		Name    string `json:"name"`
		Tag     string `json:"_tag"`
		Message string `json:"message"`
		Data    struct {
			Message string `json:"message"`
		} `json:"data"`
	}
	if json.Unmarshal(b, &shape) != nil {
		return r
	}
	if name := shape.Name + shape.Tag; name != "" {
		r.Name = name
	}
	r.Message = shape.Data.Message + shape.Message
	return r
}

// health asks whether the runtime serves, within timeout: in the moment between its
// socket and its server a request can hang for ever.
func (c *client) health(ctx context.Context, timeout time.Duration) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var out struct {
		Healthy bool   `json:"healthy"`
		Version string `json:"version"`
	}
	if _, err := c.call(ctx, http.MethodGet, "/global/health", "", nil, nil, &out); err != nil {
		return "", err
	}
	if !out.Healthy {
		return "", errors.New("opencode: says that it is not healthy")
	}
	return out.Version, nil
}
