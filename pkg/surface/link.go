package surface

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// LinkRequest is what a person gives to a new surface.
type LinkRequest struct {
	Text   string // the link, or the typed code; secret
	Broker string // address; for a link: when the page is hosted elsewhere; for a code: required
	Label  string // what this surface calls itself, at most 40 letters, digits, space and . _ -
	Scope  string // observe, prompt or decide: the most it asks for; the owner decides
}

// LinkUI is how a linking speaks to the person at the surface.
type LinkUI interface {
	// ShowDigits shows what the person types into the desktop. policy is one line on what this surface may do there.
	ShowDigits(digits, host, policy string)
	// FinishCode asks, in code mode, for the code that the desktop shows now: there is one entry.
	FinishCode(ctx context.Context, digits int) (string, error)
}

// ErrLinkEnded means that no surface was linked; its keys are erased.
var ErrLinkEnded = errors.New("not linked: the session has ended; start again at the desktop")

// linkWait is one long poll for the grant.
const linkWait = 20 * time.Second

// linking is one linking at the surface, message by message (pairing-protocol.md section 3).
type linking struct {
	opts    Options
	req     LinkRequest
	api     *api
	base    string
	key     proof.SigKey
	link    *seal.SurfaceLink
	session wire.Bytes
	origin  string
	digits  int       // of the finish code
	until   time.Time // end of the session
	granted time.Time // when the grant came, by this surface's clock
}

// Link joins the session behind a link or code, and returns the surface when the desktop's owner has typed the digits.
// Nothing is repeated by itself: whatever fails ends the session, and a new one begins at the desktop.
func Link(ctx context.Context, o Options, req LinkRequest, ui LinkUI) (*Surface, error) {
	l, err := beginLink(ctx, o, req)
	if err != nil {
		return nil, err
	}
	s, err := l.run(ctx, ui)
	if err != nil {
		l.giveUp(ctx)
		return nil, err
	}
	return s, nil
}

func beginLink(ctx context.Context, o Options, req LinkRequest) (*linking, error) {
	scope, err := proof.ParseScope(req.Scope)
	if err != nil {
		return nil, err
	}
	l := &linking{opts: o, req: req, base: req.Broker, until: o.now().Add(proof.LinkLife)}
	if l.base == "" {
		page, _, _, err := seal.ParseLink(req.Text)
		if err != nil {
			return nil, err
		}
		l.base = page
	}
	if l.origin, err = proof.Origin(l.base); err != nil {
		return nil, err
	}
	if l.api, err = newAPI(l.base, o.HTTP); err != nil {
		return nil, err
	}
	var info wire.BrokerInfo
	if err := l.api.call(ctx, http.MethodGet, wire.PathBroker, "", 0, nil, &info); err != nil {
		return nil, err
	}
	if len(info.Key) != len(l.key) {
		return nil, fmt.Errorf("%s does not answer like a broker", l.base)
	}
	l.key = proof.SigKey(info.Key)
	join := seal.JoinCode
	if strings.Contains(req.Text, "#") {
		join = seal.JoinLink
	}
	l.link, err = join(req.Text, l.origin, req.Label, scope, o.now())
	return l, err
}

func (l *linking) run(ctx context.Context, ui LinkUI) (*Surface, error) {
	if err := l.claim(ctx, ui); err != nil {
		return nil, err
	}
	needsCode, err := l.await(ctx)
	if err != nil {
		return nil, err
	}
	if needsCode {
		code, err := ui.FinishCode(ctx, l.digits)
		if err != nil {
			return nil, err
		}
		if err := l.link.FinishCode(code, l.opts.now()); err != nil {
			return nil, fmt.Errorf("that is not the code that the desktop shows: %w", err)
		}
	}
	return l.keep(ctx)
}

// claim sends messages 2 and 4 and shows the digits.
func (l *linking) claim(ctx context.Context, ui LinkUI) error {
	claim, err := l.link.Claim(l.opts.now())
	if err != nil {
		return err
	}
	var reply wire.LinkClaimReply
	if err := l.post(ctx, wire.PathLinkClaim, 0, map[string]any{"claim": claim}, &reply); err != nil {
		return err
	}
	l.session = reply.Session
	offer, err := proof.ParseMessage[proof.Offer](reply.Offer)
	if err != nil {
		return err
	}
	reveal, shown, err := l.link.Offer(offer, l.opts.now())
	if err != nil {
		return err
	}
	raw, err := json.Marshal(reveal)
	if err != nil {
		return err
	}
	if err := l.post(ctx, wire.PathLinkReveal, 0, wire.LinkRevealRequest{Session: l.session, Reveal: raw}, nil); err != nil {
		return err
	}
	l.digits = shown.Desktop.Digits
	ui.ShowDigits(shown.Digits, shown.Desktop.Host, shown.Desktop.Policy)
	return nil
}

// await polls until the desktop granted, or the session ended. A poll changes nothing, so one that was cut is repeated.
func (l *linking) await(ctx context.Context) (needsCode bool, err error) {
	for {
		var reply wire.LinkGrantReply
		err := l.post(ctx, wire.PathLinkGrant, linkWait, wire.LinkGrantRequest{Session: l.session}, &reply)
		if errors.Is(err, ErrUnreachable) && l.opts.now().Before(l.until) {
			if err := pause(ctx, firstRedial); err != nil {
				return false, err
			}
			continue
		}
		if err != nil {
			return false, err
		}
		switch {
		case len(reply.Grant) > 0:
			grant, err := proof.ParseMessage[proof.GrantMsg](reply.Grant)
			if err != nil {
				return false, err
			}
			l.granted = l.opts.now()
			return l.link.Grant(grant, l.granted)
		case reply.State != "pending":
			l.link.Lost()
			return false, ErrLinkEnded
		}
	}
}

// keep stores keys and profile, and then tells the desktop that the grant was taken.
func (l *linking) keep(ctx context.Context) (*Surface, error) {
	joined, err := l.link.Joined()
	if err != nil {
		return nil, err
	}
	g := joined.Grant
	p := &profile{
		Version: profileVersion, Broker: l.base, Origin: l.origin, Key: l.key, Pairing: g.Pairing, Surface: g.Surface,
		Label: l.req.Label, Host: joined.Desktop.Host, Dsig: joined.Desktop.Dsig, Grant: joined.Signed,
		SkewMS: g.Issued - l.granted.UnixMilli(),
	}
	if b, err := proof.OpenBundle(p.Dsig, joined.Desktop.Bundle); err == nil {
		p.Bundle = b.Number
	}
	if err := l.opts.Secrets.Set(ctx, keysName(p.Pairing), joined.Keys.Export()); err != nil {
		return nil, err
	}
	if err := folder(l.opts.Dir).write(p); err != nil {
		return nil, err
	}
	surface, err := newSurface(l.opts, p, joined.Keys)
	if err != nil {
		return nil, err
	}
	if err := l.finish(ctx, joined.Finish); err != nil {
		return nil, errors.Join(fmt.Errorf("the desktop does not know that this surface is linked, and takes it back: %w", err), surface.Forget(ctx))
	}
	return surface, nil
}

// finishTries is how often the last message is sent while nothing answers; it can be repeated.
const finishTries = 5

func (l *linking) finish(ctx context.Context, f proof.Finish) error {
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := l.post(ctx, wire.PathLinkFinish, 0, wire.LinkFinishRequest{Session: l.session, Finish: raw}, nil)
		if !errors.Is(err, ErrUnreachable) || try == finishTries {
			return err
		}
		if err := pause(ctx, time.Duration(try)*time.Second); err != nil {
			return err
		}
	}
}

// pause waits, or ends with ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// giveUp tells the broker, so that the desktop need not wait for the end of the session.
func (l *linking) giveUp(ctx context.Context) {
	l.link.Cancel()
	if len(l.session) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = l.post(ctx, wire.PathLinkCancel, 0, wire.LinkGrantRequest{Session: l.session}, nil) // it expires by itself
}

func (l *linking) post(ctx context.Context, path string, wait time.Duration, in, out any) error {
	return l.api.call(ctx, http.MethodPost, path, "", wait, in, out)
}
