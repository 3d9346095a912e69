package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cowork.example.com/broker/internal/httpapi"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// storeCall is the deadline of what is written on behalf of a link outside of a call.
const storeCall = 15 * time.Second

// desktops is the dispatcher: it holds the connected desktops, answers their frames, and moves commands from the
// mailbox onto their links. It is the mailbox's Waker, so that a change starts work at once and idle links need no
// goroutine of ours.
type desktops struct {
	key      proof.SigKey
	now      func() time.Time
	log      *slog.Logger
	mailbox  *mailbox.Service
	rows     httpapi.Rows
	registry *pairing.Registry
	linking  *pairing.Linking
	feed     *httpapi.Feed
	api      *httpapi.Server
	tunnel   *tunnel.Server
	inner    mailbox.Waker

	mu    sync.Mutex
	live  map[proof.PairingID]*desk
	ahead map[proof.PairingID]time.Duration
	group sync.WaitGroup // the pumps
	links sync.WaitGroup // from onLink to the end of onClose
}

// Wake implements mailbox.Waker.
func (d *desktops) Wake(p proof.PairingID) {
	d.inner.Wake(p)
	d.feed.Wake(p)
	if k := d.desk(p); k != nil {
		k.kick()
	}
}

// Subscribe implements mailbox.Waker.
func (d *desktops) Subscribe(p proof.PairingID) (<-chan struct{}, func()) {
	return d.inner.Subscribe(p)
}

func (d *desktops) desk(p proof.PairingID) *desk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live[p]
}

// attached is told by the feed how many streams a pairing has.
func (d *desktops) attached(p proof.PairingID, _ int) {
	if k := d.desk(p); k != nil {
		k.tend.kick()
	}
}

// Online implements httpapi.Desktops.
func (d *desktops) Online(p proof.PairingID) (time.Time, bool) {
	k := d.desk(p)
	if k == nil {
		return time.Time{}, false
	}
	return k.since, true
}

// Ahead implements httpapi.Desktops.
func (d *desktops) Ahead(p proof.PairingID) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ahead[p]
}

// setAhead remembers a desktop's clock, also beyond its link: surfaces write to one that sleeps.
func (d *desktops) setAhead(p proof.PairingID, by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ahead[p] = by
}

// Call implements httpapi.Desktops.
func (d *desktops) Call(ctx context.Context, p proof.PairingID, frame string, body, reply any) error {
	k := d.desk(p)
	if k == nil || !k.ready.Load() {
		return httpapi.ErrOffline
	}
	return k.call(ctx, tunnel.Control, frame, body, reply)
}

// Cut implements httpapi.Desktops.
func (d *desktops) Cut(p proof.PairingID, reason string) { d.tunnel.Disconnect(p.String(), reason) }

// Unlock implements httpapi.Desktops.
func (d *desktops) Unlock(p proof.PairingID) { d.tunnel.Unlock(p.String()) }

// admit gives a new link its fencing epoch.
func (d *desktops) admit(ctx context.Context, peer tunnel.Peer) (uint64, error) {
	p, err := proof.ParsePairingID(peer.ID)
	if err != nil {
		return 0, err
	}
	epoch, err := d.mailbox.Connect(ctx, p, httpapi.SourceOf(ctx), d.now())
	if mailbox.CodeOf(err) == mailbox.Closed {
		return 0, &tunnel.HTTPError{Status: 403, Body: "revoked"}
	}
	return uint64(epoch), err
}

// onLink takes a link that won its place.
func (d *desktops) onLink(link *tunnel.Link) {
	d.links.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), storeCall)
	defer cancel()
	p, err := proof.ParsePairingID(link.Peer().ID)
	var row pairing.Pairing
	if err == nil {
		row, err = d.registry.Pairings.Pairing(ctx, p)
	}
	if err != nil || row.State != pairing.Active {
		d.log.Error("a link without an active pairing", "pairing", link.Peer().ID, "error", err)
		link.Close("refused")
		return
	}
	k := newDesk(d, link, row, d.now())
	d.mu.Lock()
	old := d.live[p]
	if old == nil || old.epoch < k.epoch {
		d.live[p] = k
	} else {
		old = k // a newer link was quicker
	}
	d.mu.Unlock()
	if old != nil {
		old.stop()
	}
	link.Serve(k.serve)
	d.feed.Presence(p)
}

// onClose records that a link has ended.
func (d *desktops) onClose(link *tunnel.Link) {
	defer d.links.Done()
	p, err := proof.ParsePairingID(link.Peer().ID)
	if err != nil {
		return
	}
	d.forget(p, link)
	ctx, cancel := context.WithTimeout(context.Background(), storeCall)
	defer cancel()
	if err := d.mailbox.Disconnect(ctx, p, mailbox.Epoch(link.Epoch()), endOf(link.Err()), d.now()); err != nil {
		d.log.Error("recording the end of a link", "pairing", p, "error", err)
	}
	d.feed.Presence(p)
}

// forget takes a link that has ended out of the live ones, unless another has taken its place.
func (d *desktops) forget(p proof.PairingID, link *tunnel.Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.live[p]; k != nil && k.link == link {
		delete(d.live, p)
		k.stop()
	}
}

// endOf is the stable code of why a link ended.
func endOf(err error) string {
	if c, ok := errors.AsType[*tunnel.CloseError](err); ok {
		return c.Reason
	}
	if errors.Is(err, tunnel.ErrKeepalive) {
		return tunnel.ReasonKeepalive
	}
	return "lost"
}

// onConflict locks a pairing whose identity is used by two agents that replace each other.
func (d *desktops) onConflict(peer tunnel.Peer) {
	ctx, cancel := context.WithTimeout(context.Background(), storeCall)
	defer cancel()
	p, err := proof.ParsePairingID(peer.ID)
	if err == nil {
		err = d.registry.Lock(ctx, p, tunnel.ReasonConflict, pairing.Origin{Kind: "broker"}, d.now())
	}
	if err != nil {
		d.log.Error("locking a pairing", "pairing", peer.ID, "error", err)
		return
	}
	d.log.Warn("two agents use one identity: the pairing is locked", "pairing", peer.ID)
	d.api.PairingLocked(p)
}

// call makes one exchange on a lane of a link.
func call(ctx context.Context, link *tunnel.Link, class tunnel.Class, frame string, body, reply any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	raw, err = json.Marshal(wire.Frame{Type: frame, Body: raw})
	if err != nil {
		return err
	}
	answer, err := link.Call(ctx, class, raw)
	if err != nil || reply == nil {
		return err
	}
	var f wire.Frame
	if err := json.Unmarshal(answer, &f); err != nil {
		return fmt.Errorf("the desktop's answer to %s is not a frame", frame)
	}
	if err := json.Unmarshal(f.Body, reply); err != nil {
		return fmt.Errorf("the desktop's answer to %s is not of its form", frame)
	}
	return nil
}
