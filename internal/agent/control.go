package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// The control socket speaks JSON over HTTP on a unix socket that only its owner can open. It is how `desktop-agent
// status` and the like reach the running agent.

// SocketName is the control socket in the state folder.
const SocketName = "agent.sock"

const (
	maxControlBody  = wire.MaxSmallBody
	maxSocketPath   = 103 // bytes, on the platforms we support
	controlMode     = 0o600
	controlHeader   = 5 * time.Second
	controlShutdown = 2 * time.Second
	maxControlWait  = 30 * time.Second // of a long poll
)

// codeAmbiguous says that a pairing must be named.
const codeAmbiguous = "ambiguous"

// ControlError is what the agent refuses its owner with. Code is one of wire's problem codes or ambiguous, and stable.
type ControlError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error returns the message.
func (e *ControlError) Error() string { return e.Message }

// Requests of the control socket. An empty pairing is the only one.
type (
	pairingRequest struct {
		Pairing string `json:"pairing"`
	}
	surfaceRequest struct {
		Pairing string `json:"pairing"`
		Surface string `json:"surface"`
	}
	policyRequest struct {
		Pairing string          `json:"pairing"`
		Policy  json.RawMessage `json:"policy"`
	}
	commandRequest struct {
		Pairing string `json:"pairing"`
		Command string `json:"command"`
	}
	auditRequest struct {
		After uint64 `json:"after"`
		Limit int    `json:"limit"`
		Wait  int    `json:"wait"` // seconds
	}
	linkRequest struct {
		Pairing string `json:"pairing"`
		Mode    string `json:"mode"`
		Decide  bool   `json:"decide"`
	}
	linkEventsRequest struct {
		Pairing string `json:"pairing"`
		After   int    `json:"after"`
		Wait    int    `json:"wait"` // seconds
	}
	digitsRequest struct {
		Pairing string `json:"pairing"`
		Digits  string `json:"digits"`
	}
	none struct{}
)

// Paths of the control socket.
const (
	pathStatus     = "/v1/status"
	pathSurfaces   = "/v1/surfaces"
	pathRevoke     = "/v1/surfaces/revoke"
	pathPolicy     = "/v1/policy"
	pathPolicySet  = "/v1/policy/set"
	pathPending    = "/v1/pending"
	pathAllow      = "/v1/allow"
	pathDeny       = "/v1/deny"
	pathAudit      = "/v1/audit"
	pathRecover    = "/v1/recover"
	pathRetry      = "/v1/retry"
	pathLinkStart  = "/v1/link/start"
	pathLinkEvents = "/v1/link/events"
	pathLinkDigits = "/v1/link/digits"
	pathLinkCancel = "/v1/link/cancel"
)

// serveControl listens on the control socket until ctx ends.
func (a *Agent) serveControl(ctx context.Context) error {
	path := filepath.Join(a.cfg.StateDir, SocketName)
	if len(path) > maxSocketPath {
		return fmt.Errorf("the control socket would have a path of %d bytes, at most %d are possible: choose a state folder with a shorter path", len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of an agent that was killed; the journal's lock says that none runs
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", path, err)
	}
	if err := os.Chmod(path, controlMode); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: a.controlHandler(), ReadHeaderTimeout: controlHeader, BaseContext: func(net.Listener) context.Context { return ctx }}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		shutdown, cancel := context.WithTimeout(context.Background(), controlShutdown)
		defer cancel()
		if server.Shutdown(shutdown) != nil {
			server.Close() //nolint:errcheck // nothing more can be done
		}
	})
	err = server.Serve(listener)
	if !stop() {
		<-closed
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (a *Agent) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+pathStatus, control(func(ctx context.Context, _ none) (Status, error) { return a.status(ctx) }))
	mux.Handle("POST "+pathSurfaces, control(a.controlSurfaces))
	mux.Handle("POST "+pathRevoke, control(a.controlRevoke))
	mux.Handle("POST "+pathPolicy, control(a.controlPolicy))
	mux.Handle("POST "+pathPolicySet, control(a.controlPolicySet))
	mux.Handle("POST "+pathPending, control(func(ctx context.Context, _ none) ([]PendingCommand, error) { return a.pending(ctx) }))
	mux.Handle("POST "+pathAllow, control(a.controlAllow))
	mux.Handle("POST "+pathDeny, control(a.controlDeny))
	mux.Handle("POST "+pathAudit, control(a.controlAudit))
	mux.Handle("POST "+pathRecover, control(func(ctx context.Context, _ none) (none, error) { return none{}, a.recover(ctx) }))
	mux.Handle("POST "+pathRetry, control(func(context.Context, none) (none, error) { a.RetryNow(); return none{}, nil }))
	mux.Handle("POST "+pathLinkStart, control(a.controlLinkStart))
	mux.Handle("POST "+pathLinkEvents, control(a.controlLinkEvents))
	mux.Handle("POST "+pathLinkDigits, control(a.controlLinkDigits))
	mux.Handle("POST "+pathLinkCancel, control(a.controlLinkCancel))
	return mux
}

// control is a handler that takes and gives JSON.
func control[Q, A any](handle func(context.Context, Q) (A, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
		if err != nil {
			controlRefuse(w, &ControlError{Code: wire.CodeTooLarge, Message: "the request is too large"})
			return
		}
		q, err := strictly[Q](raw)
		if err != nil {
			controlRefuse(w, &ControlError{Code: wire.CodeMalformed, Message: "the request is malformed; are agent and command of the same version?"})
			return
		}
		answer, err := handle(r.Context(), q)
		if err != nil {
			controlRefuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer) //nolint:errcheck // the owner has gone
	})
}

// controlRefuse says why. The owner sits at this desktop: an unexpected error is shown as it is.
func controlRefuse(w http.ResponseWriter, err error) {
	out := ControlError{Code: wire.CodeInternal, Message: err.Error()}
	if known, ok := errors.AsType[*ControlError](err); ok {
		out = *known
	} else if p, ok := errors.AsType[*wire.Problem](err); ok {
		out = ControlError{Code: p.Code, Message: p.Title}
	} else if errors.Is(err, errOffline) {
		out = ControlError{Code: wire.CodeAsleep, Message: "this desktop is not connected to its broker"}
	} else if isGone(err) {
		out = ControlError{Code: wire.CodeNotFound, Message: "there is nothing of that id"}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusConflict)
	json.NewEncoder(w).Encode(out) //nolint:errcheck // the owner has gone
}

// waitFor bounds a long poll.
func waitFor(ctx context.Context, seconds int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(max(time.Duration(seconds)*time.Second, 0), maxControlWait))
}
