package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
)

// ErrNotRunning means that no agent answers on the state folder's control socket.
var ErrNotRunning = errors.New("desktop-agent is not running on this state folder")

// maxControlReply bounds an answer of the agent: a page of audit lines.
const maxControlReply = 8 << 20

// Client speaks to the running agent of this desktop over its control socket. All methods may be called concurrently.
// A refusal is a *ControlError.
type Client struct{ http *http.Client }

// NewClient returns a client of the agent that runs on a state folder. It connects when it is used.
func NewClient(stateDir string) *Client {
	path := filepath.Join(stateDir, SocketName)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// call is one exchange.
func call[A any](ctx context.Context, c *Client, path string, q any) (A, error) {
	var answer A
	raw, err := json.Marshal(q)
	if err != nil {
		return answer, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(raw))
	if err != nil {
		return answer, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return answer, ctx.Err()
		}
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return answer, ErrNotRunning
		}
		return answer, fmt.Errorf("asking the agent: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxControlReply))
	if err != nil {
		return answer, fmt.Errorf("asking the agent: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		refused := &ControlError{}
		if json.Unmarshal(body, refused) != nil || refused.Code == "" {
			return answer, fmt.Errorf("the agent answered %s", res.Status)
		}
		return answer, refused
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer, fmt.Errorf("reading the agent's answer: %w", err)
	}
	return answer, nil
}

// Status says how the agent is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, pathStatus, none{})
}

// Surfaces lists the surfaces of a pairing, revoked ones too; of all when pairing is empty.
func (c *Client) Surfaces(ctx context.Context, pairing string) ([]SurfaceView, error) {
	return call[[]SurfaceView](ctx, c, pathSurfaces, pairingRequest{pairing})
}

// RevokeSurface ends a surface.
func (c *Client) RevokeSurface(ctx context.Context, surface string) error {
	_, err := call[none](ctx, c, pathRevoke, surfaceRequest{Surface: surface})
	return err
}

// Policy shows a pairing's policy; an empty pairing is the only one, here and below.
func (c *Client) Policy(ctx context.Context, pairing string) (PolicyView, error) {
	return call[PolicyView](ctx, c, pathPolicy, pairingRequest{pairing})
}

// SetPolicy replaces a pairing's policy by a JSON document.
func (c *Client) SetPolicy(ctx context.Context, pairing string, document []byte) (PolicyView, error) {
	if !json.Valid(document) {
		return PolicyView{}, &ControlError{Code: "malformed", Message: "the policy is not JSON"}
	}
	return call[PolicyView](ctx, c, pathPolicySet, policyRequest{pairing, document})
}

// Pending lists the commands that wait for a person at this desktop.
func (c *Client) Pending(ctx context.Context) ([]PendingCommand, error) {
	return call[[]PendingCommand](ctx, c, pathPending, none{})
}

// Allow lets a waiting command run.
func (c *Client) Allow(ctx context.Context, command string) error {
	_, err := call[none](ctx, c, pathAllow, commandRequest{Command: command})
	return err
}

// Deny ends a waiting command.
func (c *Client) Deny(ctx context.Context, command string) error {
	_, err := call[none](ctx, c, pathDeny, commandRequest{Command: command})
	return err
}

// AuditTail returns up to limit lines after a number; when there are none it waits up to wait seconds for one.
func (c *Client) AuditTail(ctx context.Context, after uint64, limit, wait int) ([]AuditView, error) {
	return call[[]AuditView](ctx, c, pathAudit, auditRequest{after, limit, wait})
}

// Recover lets locked pairings go on (pairing-protocol.md section 6).
func (c *Client) Recover(ctx context.Context) error {
	_, err := call[none](ctx, c, pathRecover, none{})
	return err
}

// Retry dials every broker at once.
func (c *Client) Retry(ctx context.Context) error {
	_, err := call[none](ctx, c, pathRetry, none{})
	return err
}

// LinkStart begins a linking session; mode is "link" or "code". decide is the owner's answer to the one question.
func (c *Client) LinkStart(ctx context.Context, pairing, mode string, decide bool) (LinkTicket, error) {
	return call[LinkTicket](ctx, c, pathLinkStart, linkRequest{pairing, mode, decide})
}

// LinkEvents returns the session's events after a number; when there are none it waits up to wait seconds for one.
func (c *Client) LinkEvents(ctx context.Context, pairing string, after, wait int) ([]LinkEvent, error) {
	return call[[]LinkEvent](ctx, c, pathLinkEvents, linkEventsRequest{pairing, after, wait})
}

// LinkDigits hands over the digits that the person read from the new device.
func (c *Client) LinkDigits(ctx context.Context, pairing, digits string) error {
	_, err := call[none](ctx, c, pathLinkDigits, digitsRequest{pairing, digits})
	return err
}

// LinkCancel ends the live session.
func (c *Client) LinkCancel(ctx context.Context, pairing string) error {
	_, err := call[none](ctx, c, pathLinkCancel, pairingRequest{pairing})
	return err
}
