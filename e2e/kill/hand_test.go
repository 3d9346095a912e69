//go:build e2e

package kill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cowork.example.com/broker/internal/keystore"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

// hand is a surface which goes on sending while the programs die, and writes down everything that it sent.
type hand struct {
	*surface.Surface
	profile string // its file

	mu     sync.Mutex // one command at a time, so that what was kept is known to be whose
	orders []*order
}

// order is one command that left a hand.
type order struct {
	hand *hand
	kind proof.Kind
	text string // of the prompt, title of the session, or what is decided
	hash proof.Digest
	id   string          // the broker's; empty while it is only kept
	over bool            // await has returned ...
	end  surface.Outcome // ... this
}

// link links a surface that may decide, and opens it in this process.
func (r *rig) link(ctx context.Context, name string) (*hand, error) {
	s := r.Surface(name)
	if err := s.Link(ctx, r.desktop, true); err != nil {
		return nil, err
	}
	keys, err := keystore.Open(keystore.File, "surface", filepath.Join(s.Dir(), "keys"))
	if err != nil {
		return nil, err
	}
	all, err := surface.List(s.Dir())
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%d desktops are linked", len(all))
	}
	open, err := surface.Open(ctx, surface.Options{Dir: s.Dir(), Secrets: keystore.Bytes{Store: keys}}, all[0].Pairing)
	return &hand{Surface: open, profile: filepath.Join(s.Dir(), all[0].Pairing+".json")}, err
}

// kept is what a surface keeps of what it sent.
type kept struct {
	Unposted struct {
		Hash proof.Digest `json:"hash"`
	} `json:"unposted"`
	Sent []struct {
		Hash    proof.Digest `json:"hash"`
		Command string       `json:"command"`
	} `json:"sent"`
}

func (h *hand) kept() (k kept, err error) {
	raw, err := os.ReadFile(h.profile)
	if err != nil {
		return k, err
	}
	return k, json.Unmarshal(raw, &k)
}

// send sends one command, however often the broker is away. When it returns, the envelope is at the broker or kept.
func (h *hand) send(ctx context.Context, kind proof.Kind, payload any, text string) (*order, error) {
	for {
		o, err := h.sendOnce(ctx, kind, payload, text)
		if o != nil {
			return o, nil
		}
		if !passes(err) {
			return nil, fmt.Errorf("%s %q: %w", kind, text, err)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// sendOnce returns no order when no envelope was made.
func (h *hand) sendOnce(ctx context.Context, kind proof.Kind, payload any, text string) (*order, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, err := h.kept()
	if err != nil {
		return nil, err
	}
	sent, err := h.Send(ctx, kind, payload)
	after, readErr := h.kept()
	if readErr != nil {
		return nil, readErr
	}
	h.learn(after)
	o := &order{hand: h, kind: kind, text: text, hash: sent.Hash, id: sent.Command.ID}
	if err != nil {
		if o.hash = after.Unposted.Hash; o.hash == before.Unposted.Hash {
			return nil, err
		}
	}
	h.orders = append(h.orders, o)
	return o, nil
}

// learn takes the broker's ids of commands that were kept and have arrived since. A surface keeps the last hundred.
func (h *hand) learn(k kept) {
	for _, o := range h.orders {
		for _, s := range k.Sent {
			if o.id == "" && s.Hash == o.hash {
				o.id = s.Command
			}
		}
	}
}

// passes reports whether an error is about a broker that is away for a moment.
func passes(err error) bool {
	p, refused := errors.AsType[*wire.Problem](err)
	return errors.Is(err, surface.ErrUnreachable) || errors.Is(err, surface.ErrKept) ||
		refused && (p.Status >= http.StatusInternalServerError || p.Status == http.StatusTooManyRequests)
}

// await waits for the end of a command, however often the broker is away.
func (h *hand) await(ctx context.Context, o *order) (surface.Outcome, error) {
	for {
		id, err := h.idOf(ctx, o)
		if err == nil {
			sent := surface.Sent{Command: wire.Command{ID: id, State: wire.StateQueued}, Hash: o.hash, Kind: o.kind}
			var end surface.Outcome
			if end, err = h.Wait(ctx, sent, nil); err == nil {
				h.mu.Lock()
				defer h.mu.Unlock()
				o.over, o.end = true, end
				return end, nil
			}
		}
		if !passes(err) {
			return surface.Outcome{}, fmt.Errorf("%s %q: %w", o.kind, o.text, err)
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return surface.Outcome{}, fmt.Errorf("%s %q has not ended: %w", o.kind, o.text, err)
		}
	}
}

// idOf is the broker's id of a command. One that is only kept is brought to the broker by the next command, so there
// is one.
func (h *hand) idOf(ctx context.Context, o *order) (string, error) {
	h.mu.Lock()
	id := o.id
	h.mu.Unlock()
	if id != "" {
		return id, nil
	}
	if _, err := h.send(ctx, proof.Status, wire.Status{}, ""); err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.id == "" {
		return "", errors.New("a command that was kept was refused when it was posted again")
	}
	return o.id, nil
}

// do is send and await.
func (h *hand) do(ctx context.Context, kind proof.Kind, payload any, text string) (surface.Outcome, error) {
	o, err := h.send(ctx, kind, payload, text)
	if err != nil {
		return surface.Outcome{}, err
	}
	return h.await(ctx, o)
}

// create makes a session and returns its id.
func (h *hand) create(ctx context.Context, title string) (string, error) {
	o, err := h.do(ctx, proof.CreateSession, wire.CreateSession{Title: title}, title)
	if err == nil && o.Body.Session == nil {
		err = fmt.Errorf("create_session ended as %s %s", o.State(), o.Body.Message)
	}
	if err != nil {
		return "", err
	}
	return o.Body.Session.ID, nil
}

// prompt sends a prompt and does not wait.
func (h *hand) prompt(ctx context.Context, session, text string) (*order, error) {
	return h.send(ctx, proof.Prompt, wire.Prompt{SessionID: session, Text: text}, text)
}

// requestTime is how long a request may take to be shown after its prompt was admitted: the turn before it may have to
// end, and the agent may die a few times.
const requestTime = time.Minute

// request waits for the request that a command in a session waits for.
func (h *hand) request(ctx context.Context, session, command string) (surface.Request, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	for {
		all, err := h.Requests(ctx)
		for _, r := range all {
			if r.Full != nil && r.Full.SessionID == session && r.Full.Command == command {
				return r, nil
			}
		}
		if err != nil && !passes(err) {
			return surface.Request{}, err
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return surface.Request{}, fmt.Errorf("nobody asks about %q: %w", command, err)
		}
	}
}

// decide answers a request and does not wait.
func (h *hand) decide(ctx context.Context, r surface.Request, decision string) (*order, error) {
	return h.send(ctx, proof.PermissionRespond, wire.Decision{
		SessionID: r.Full.SessionID, RequestID: r.ID, RequestSHA256: r.Digest[:], Decision: decision, ShownAt: r.Shown.UnixMilli(),
	}, decision+" "+r.Full.Command)
}

// all returns the orders so far.
func (h *hand) all() []*order {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*order(nil), h.orders...)
}
