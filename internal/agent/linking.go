package agent

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// linkCooldown is the pause after a session that burned: whoever burns them learns nothing faster.
	linkCooldown = 20 * time.Second
	linkDay      = 24 * time.Hour
)

// CodeLinkDigits is the code of a *ControlError for wrong digits while entries are left.
const CodeLinkDigits = "link_digits"

// Codes of a *ControlError from linking.
const (
	codeLinkLive     = "link_live"
	codeLinkNone     = "link_none"
	codeLinkCap      = "link_cap"
	codeLinkCooldown = "link_cooldown"
	codeLinkBurned   = "link_burned"
	codeLinkOffline  = "link_offline"
)

// linker is the desktop's side of linking (pairing-protocol.md section 3): one live session, each step of it journalled
// with its audit line before the next message is sent. The session's secrets are in memory only.
type linker struct {
	deps
	id  identityAPI
	pub publisherAPI

	mu      sync.Mutex // one step at a time
	live    *seal.DesktopLink
	row     journal.LinkSession // as it is in the journal
	left    int                 // entries of digits
	timer   *time.Timer         // expires the live session
	burned  time.Time           // when a session burned last
	surface proof.SurfaceID

	events  sync.Mutex
	list    []LinkEvent // of the live session, or of the last one
	changed chan struct{}
}

// newLinker ends what an earlier agent left behind. When that fails the journal fails, and with it the agent.
func newLinker(d deps, id identityAPI, pub publisherAPI) *linker {
	ctx, cancel := context.WithTimeout(context.Background(), journalTimeout)
	defer cancel()
	l := &linker{deps: d, id: id, pub: pub, changed: make(chan struct{})}
	if err := l.tidy(ctx); err != nil {
		l.log.Error("ending the linkings of an earlier run", "error", err)
	}
	return l
}

// tell adds an event of the session.
func (l *linker) tell(e LinkEvent) {
	l.events.Lock()
	defer l.events.Unlock()
	e.Seq = len(l.list) + 1
	l.list = append(l.list, e)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *linker) Events(ctx context.Context, after int) ([]LinkEvent, error) {
	for {
		l.events.Lock()
		list, changed := l.list, l.changed
		l.events.Unlock()
		if after >= 0 && after < len(list) {
			return list[after:], nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil // nothing new is an answer
		}
	}
}

func (l *linker) Start(ctx context.Context, mode string, decide bool) (LinkTicket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.mayStart(ctx); err != nil {
		return LinkTicket{}, err
	}
	cfg, err := l.config(mode, decide)
	if err != nil {
		return LinkTicket{}, err
	}
	session, open, err := l.id.Keys().OpenLink(cfg, l.now())
	if err != nil {
		return LinkTicket{}, err
	}
	l.row = journal.LinkSession{
		Pairing: l.pairing.ID, Pid: session.Pid(), Mode: mode, State: proof.LinkOpen.String(), Decide: decide,
		Opened: l.now(), Expires: session.Expires(),
	}
	if err := l.journal.Record(ctx, l.now(), []journal.Line{l.linkLine(audit.LinkOpened, "")}, journal.OpenLink(l.row)); err != nil {
		return LinkTicket{}, err
	}
	l.live, l.left = session, proof.MaxDigitEntries
	l.events.Lock()
	l.list = nil
	l.events.Unlock()
	return l.announce(ctx, session, open)
}

// announce tells the broker, and makes what the owner shows.
func (l *linker) announce(ctx context.Context, session *seal.DesktopLink, open proof.Open) (LinkTicket, error) {
	raw, err := json.Marshal(open)
	if err != nil {
		return LinkTicket{}, err
	}
	var opened wire.LinkOpened
	err = l.link().Call(ctx, tunnel.Control, wire.FrameLinkOpen, wire.LinkOpen{Open: raw}, &opened)
	if err == nil && session.Mode() == proof.ModeCode {
		err = proof.CheckNameplate(opened.Nameplate) // it is shown to the owner
	}
	if err != nil {
		session.Cancel()
		l.end(ctx, audit.LinkCancelled, "broker_unreachable")
		return LinkTicket{}, &ControlError{Code: codeLinkOffline, Message: "the broker could not open a linking session: " + err.Error()}
	}
	l.arm(session)
	l.tell(LinkEvent{Type: LinkWaiting})
	t := LinkTicket{Mode: l.row.Mode, Expires: session.Expires()}
	if session.Mode() == proof.ModeLink {
		t.Link = session.Text("")
	} else {
		t.Code = session.Text(opened.Nameplate)
	}
	return t, nil
}

// mayStart holds the desktop's own limits.
func (l *linker) mayStart(ctx context.Context) error {
	if l.live != nil && !l.live.State().Final() {
		if !l.live.Expire(l.now()) {
			return &ControlError{Code: codeLinkLive, Message: "a device is being linked already; finish or cancel that first"}
		}
		l.end(ctx, audit.LinkExpired, "expired")
	}
	if _, off := l.link().(offline); off {
		return &ControlError{Code: codeLinkOffline, Message: "this desktop is not connected to its broker; `desktop-agent status` says why"}
	}
	if wait := linkCooldown - l.now().Sub(l.burned); wait > 0 {
		return &ControlError{Code: codeLinkCooldown, Message: "the last linking failed; try again in " + wait.Round(time.Second).String()}
	}
	n, err := l.journal.LinksSince(ctx, l.pairing.ID, l.now().Add(-linkDay))
	if err != nil {
		return err
	}
	if n >= proof.MaxLinksPerDay {
		return &ControlError{Code: codeLinkCap, Message: "this desktop has begun 10 linkings in 24 hours; wait before the next"}
	}
	return nil
}

func (l *linker) config(mode string, decide bool) (seal.LinkConfig, error) {
	origin, err := proof.Origin(l.pairing.BrokerURL)
	if err != nil {
		return seal.LinkConfig{}, err
	}
	cfg := seal.LinkConfig{
		Origin: origin, Page: l.pairing.PageOrigin, Host: l.pairing.Host, Highest: proof.ScopePrompt, Mode: proof.ModeLink,
	}
	policy := l.policy()
	if decide {
		cfg.Highest = proof.ScopeDecide
		policy = withDecide(policy)
	}
	cfg.Policy = policy.Summary()
	switch mode {
	case proof.ModeLink.String():
	case proof.ModeCode.String():
		cfg.Mode = proof.ModeCode
	default:
		return cfg, &ControlError{Code: wire.CodeMalformed, Message: "a linking is by link or by code"}
	}
	return cfg, nil
}

// linkLine is an audit line about the live session.
func (l *linker) linkLine(t audit.Type, reason string) journal.Line {
	line := l.line(t, wire.AuditTarget{Kind: audit.Link, ID: l.row.Pid.String()})
	line.Reason = reason
	if reason != "" && t != audit.LinkCancelled && t != audit.LinkExpired {
		line.Outcome = audit.Refused
	}
	return line
}

// step journals that the live session moved on, with what else changes.
func (l *linker) step(ctx context.Context, t audit.Type, lines []journal.Line, changes ...journal.Change) error {
	next := l.row
	next.State = l.live.State().String()
	lines = append([]journal.Line{l.linkLine(t, l.row.Reason)}, lines...)
	changes = append([]journal.Change{journal.MoveLink(next, l.row.State)}, changes...)
	if err := l.journal.Record(ctx, l.now(), lines, changes...); err != nil {
		return err
	}
	l.row = next
	return nil
}
