package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"cowork.example.com/broker/internal/topology"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
	"github.com/rogpeppe/go-internal/testscript"
)

// desk is the desktop of a story.
type desk struct {
	base   string
	keys   *seal.Desktop
	broker proof.SigKey
	link   *tunnel.Link
	open   *seal.DesktopLink
}

// enrolDesktop redeems the code in a file of JSON, connects, and sets $PAIRING: with "dash" to an id that begins so.
func enrolDesktop(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: enrol FILE [dash]")
	}
	var issued wire.CodeIssued
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &issued))
	code, err := pairing.ParseCode(issued.Text)
	ts.Check(err)
	keys, err := seal.NewDesktop(time.Now())
	for err == nil && len(args) > 1 && keys.Pairing().String()[0] != '-' {
		keys, err = seal.NewDesktop(time.Now())
	}
	ts.Check(err)
	d := &desk{base: ts.Getenv("ADDRESS"), keys: keys}
	var info wire.BrokerInfo
	ts.Check(d.call(http.MethodGet, wire.PathBroker, nil, &info))
	d.broker = proof.SigKey(info.Key)
	r := proof.Redeem{
		Broker: d.broker, Code: code.Letters(), Dsig: keys.Dsig(), Bundle: keys.Bundle(), Host: "story-desk",
		Versions: proof.OwnVersions(), Executor: "echo",
	}
	in := wire.EnrolRequest{
		Code: string(r.Code), Dsig: r.Dsig[:], Bundle: r.Bundle, Host: r.Host, Versions: []int{1}, Executor: r.Executor,
		Proof: r.Sign(keys.Signer()),
	}
	ts.Check(d.call(http.MethodPost, wire.PathEnrol, in, nil))
	ts.Check(d.connect())
	ts.Defer(func() { d.link.Close(tunnel.ReasonGoingAway) })
	ts.Setenv("PAIRING", keys.Pairing().String())
	world.Lock()
	defer world.Unlock()
	world.desks[ts] = d
}

func (d *desk) call(method, path string, in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		return fmt.Errorf("%s %s: %s", method, path, res.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(out)
}

func (d *desk) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	link, err := tunnel.Dial(ctx, tunnel.DialConfig{
		URL: "ws" + strings.TrimPrefix(d.base, "http") + wire.PathTunnel, Proxy: "direct", Header: d.header,
	})
	if err != nil {
		return err
	}
	d.link = link
	link.Serve(d.serve)
	rep := wire.Report{JournalID: bytes.Repeat([]byte{1}, 16), Counter: 1, Open: []wire.ReportRow{}}
	hello := wire.Hello{
		ProtocolMin: 1, ProtocolMax: 1, Time: time.Now().UnixMilli(), Version: "story", Executor: "echo",
		Kinds: topology.Kinds(topology.DesktopLocal, topology.Sealed), Bundle: d.keys.Bundle(), Report: rep, Revoked: []string{},
	}
	signed := proof.Hello{Broker: d.broker, Time: hello.Time, JournalID: rep.JournalID, Counter: 1}
	hello.Sig = signed.Sign(d.keys.Signer())
	return d.frame(wire.FrameHello, hello, nil)
}

func (d *desk) header(context.Context) (http.Header, error) {
	var n wire.Nonce
	id := d.keys.Pairing().String()
	if err := d.call(http.MethodPost, wire.PathTunnelNonce, wire.TunnelNonceRequest{Pairing: id}, &n); err != nil {
		return nil, err
	}
	sig := proof.SignTunnel(d.keys.Signer(), d.broker, n.Nonce, strings.TrimPrefix(d.base, "http://"))
	h := http.Header{}
	h.Set(wire.HeaderTunnelPairing, id)
	h.Set(wire.HeaderTunnelNonce, n.Nonce.String())
	h.Set(wire.HeaderTunnelTime, fmt.Sprint(time.Now().UnixMilli()))
	h.Set(wire.HeaderTunnelSignature, wire.Bytes(sig).String())
	return h, nil
}

func (d *desk) frame(name string, in, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := json.Marshal(wire.Frame{Type: name, Body: body})
	if err != nil {
		return err
	}
	answer, err := d.link.Call(ctx, tunnel.Control, req)
	if err != nil || out == nil {
		return err
	}
	var f wire.Frame
	if err := json.Unmarshal(answer, &f); err != nil {
		return err
	}
	return json.Unmarshal(f.Body, out)
}

// serve answers the messages of a linking, and everything else with "stored".
func (d *desk) serve(_ context.Context, _ tunnel.Class, req []byte) ([]byte, error) {
	var f wire.Frame
	if err := json.Unmarshal(req, &f); err != nil {
		return nil, err
	}
	var out any = wire.Durable{}
	switch f.Type {
	case wire.FrameLinkClaim:
		var in wire.LinkClaim
		err := json.Unmarshal(f.Body, &in)
		claim, err2 := proof.ParseMessage[proof.Claim](in.Claim)
		if errors.Join(err, err2) != nil {
			return nil, errors.Join(err, err2)
		}
		offer, err := d.open.Claim(claim, time.Now())
		if err != nil {
			return nil, err
		}
		raw, err := json.Marshal(offer)
		if err != nil {
			return nil, err
		}
		out = wire.LinkOffer{Offer: raw}
	case wire.FrameLinkReveal:
		var in wire.LinkReveal
		err := json.Unmarshal(f.Body, &in)
		reveal, err2 := proof.ParseMessage[proof.Reveal](in.Reveal)
		if errors.Join(err, err2) != nil {
			return nil, errors.Join(err, err2)
		}
		if _, err := d.open.Reveal(reveal, time.Now()); err != nil {
			return nil, err
		}
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return json.Marshal(wire.Frame{Body: body})
}

// linkSurface links a surface to the story's desktop and sets $SURFACE.
func linkSurface(ts *testscript.TestScript, _ bool, _ []string) {
	world.Lock()
	d := world.desks[ts]
	world.Unlock()
	if d == nil {
		ts.Fatalf("no desktop is enrolled")
	}
	origin := d.base
	session, open, err := d.keys.OpenLink(seal.LinkConfig{
		Mode: proof.ModeLink, Origin: origin, Page: origin, Host: "story-desk", Policy: "prompts yes", Highest: proof.ScopePrompt,
	}, time.Now())
	ts.Check(err)
	d.open = session
	ts.Check(d.frame(wire.FrameLinkOpen, wire.LinkOpen{Open: mustJSON(ts, open)}, nil))
	surface, err := seal.JoinLink(session.Text(""), origin, "story phone", proof.ScopePrompt, time.Now())
	ts.Check(err)
	claim, err := surface.Claim(time.Now())
	ts.Check(err)
	var reply wire.LinkClaimReply
	ts.Check(d.call(http.MethodPost, wire.PathLinkClaim, wire.LinkClaimRequest{Claim: mustJSON(ts, claim)}, &reply))
	offer, err := proof.ParseMessage[proof.Offer](reply.Offer)
	ts.Check(err)
	reveal, shown, err := surface.Offer(offer, time.Now())
	ts.Check(err)
	ts.Check(d.call(http.MethodPost, wire.PathLinkReveal, wire.LinkRevealRequest{Session: reply.Session, Reveal: mustJSON(ts, reveal)}, nil))
	linked, err := session.Digits(shown.Digits, 1, time.Now())
	ts.Check(err)
	pid := session.Pid()
	granted := wire.LinkGranted{Pid: pid[:], Grant: mustJSON(ts, linked.Message), Public: linked.Signed, Label: linked.Label}
	ts.Check(d.frame(wire.FrameLinkGrant, granted, nil))
	ts.Setenv("SURFACE", linked.Grant.Surface.String())
}

func mustJSON(ts *testscript.TestScript, v any) json.RawMessage {
	raw, err := json.Marshal(v)
	ts.Check(err)
	return raw
}
