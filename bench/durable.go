package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/store/sqlite"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// perSample is how many commands each surface posts in a sample; a surface may post 120 at once.
const perSample = 60

// durableBroker: the real broker in a process of its own, 200 desktops on tunnels, one surface for each desktop and
// sample. Every command is really sealed and signed, posted with ?wait, verified, stored, delivered, and answered with
// a sealed, signed result. The desktops have no journal, so that only the broker's disk writes count.
func (b *bench) durableBroker(ctx context.Context) ([]figure, error) {
	rate := figure{what: "commands a second through the whole broker, 200 desktops", unit: "/s", goal: atLeast(2000)}
	cost := figure{what: "processor time of the broker for each command", unit: "ms"}
	most := figure{what: "commands a second that this would allow, were both CPUs the broker's (computed)", unit: "/s"}
	wait := figure{what: "post → answer with the result, p50", unit: "ms"}
	bare := figure{what: "baseline: bare appends with fsync, one after another", unit: "/s"}
	n, err := b.newNode()
	if err != nil {
		return nil, err
	}
	defer n.close()
	f, err := n.furnish(ctx, b.samples)
	if err != nil {
		return nil, err
	}
	f.start(ctx, 0)
	defer f.end()
	if _, err := f.await(ctx, time.Now(), time.Minute); err != nil {
		return nil, err
	}
	for i := range b.samples {
		s, err := f.sample(ctx, b, n, i)
		if err != nil {
			return nil, err
		}
		m, err := lookAround()
		if err != nil {
			return nil, err
		}
		perCommand := s.cpu.Seconds() / s.commands
		rate.samples, cost.samples = append(rate.samples, s.commands/s.took.Seconds()), append(cost.samples, perCommand*1000)
		most.samples, wait.samples = append(most.samples, cpus/perCommand), append(wait.samples, at(ms(s.waits), 0.5))
		bare.samples = append(bare.samples, 1000/m.p50)
	}
	return []figure{rate, cost, most, wait, bare}, nil
}

// cpus of the machine that the project speaks of.
const cpus = 2

// room is desktops with their surfaces, by sample and desktop.
type room struct {
	*fleet
	surfaces [][]*phone
}

// phone is one linked surface.
type phone struct {
	keys    *seal.Surface
	desk    *desktop
	id      proof.SurfaceID
	http    *http.Client
	token   string
	chain   proof.Chain
	written [][]byte // sealed and not posted yet
}

// furnish enrols desktops through the API, and writes linked surfaces, with grants that the desktops signed, straight
// into the store: linking asks a person for digits, and what it costs is not the question here.
func (n *node) furnish(ctx context.Context, samples int) (*room, error) {
	if err := n.start(); err != nil {
		return nil, err
	}
	f, err := n.enrol(ctx, desks)
	if err != nil {
		return nil, err
	}
	if err := n.proc.Stop(time.Minute); err != nil {
		return nil, err
	}
	r := &room{fleet: f}
	store, err := sqlite.Open(ctx, filepath.Join(n.lab.BrokerDir(), "broker.db"))
	if err != nil {
		return nil, err
	}
	for s := range samples {
		row := make([]*phone, desks)
		err = errors.Join(err, each(desks, desks, func(i int) (err error) {
			row[i], err = f.all[i].giveSurface(ctx, store, s*desks+i)
			return err
		}))
		r.surfaces = append(r.surfaces, row)
	}
	for _, d := range f.all {
		d.run = r.result(d)
	}
	return r, errors.Join(err, store.Close(), n.start())
}

// giveSurface makes a surface and puts it into the store as the end of a linking.
func (d *desktop) giveSurface(ctx context.Context, store *sqlite.Store, i int) (*phone, error) {
	keys, err := seal.NewSurface()
	if err != nil {
		return nil, err
	}
	now, id := time.Now(), keys.ID(d.keys.Pairing())
	g := proof.Grant{
		Pairing: d.keys.Pairing(), Surface: id, Ssig: keys.Ssig(), Skem: keys.Skem(), Scopes: proof.ScopesUpTo(proof.ScopePrompt),
		Serial: uint64(i + 1), Issued: now.UnixMilli(), NotAfter: now.Add(time.Hour).UnixMilli(),
	}
	row := pairing.SurfaceFrom(g, g.Sign(d.keys.Signer()), "phone", now)
	l := pairing.Link{Pairing: g.Pairing, Mode: proof.ModeLink, State: proof.LinkDone, Opened: now, Expires: now.Add(time.Minute)}
	rand.Read(l.Pid[:]) // never fails
	line := wire.AuditLine{Time: now.UTC().Format(time.RFC3339), Type: string(audit.SurfaceLinked), Outcome: string(audit.Success)}
	if err := store.OpenLink(ctx, l, line); err != nil {
		return nil, err
	}
	err = store.MoveLink(ctx, l.State, 0, l, &row, proof.SurfaceID{}, now, line)
	return &phone{keys: keys, desk: d, id: id, http: client(address(30, i), true)}, err
}

// result is how a desktop answers a delivery: sealed to the surface and signed, as an agent does.
func (r *room) result(d *desktop) func(*tunnel.Link, wire.Deliver) {
	kem := map[proof.SurfaceID]proof.KemKey{}
	for _, row := range r.surfaces {
		for _, p := range row {
			if p != nil && p.desk == d {
				kem[p.id] = p.keys.Skem()
			}
		}
	}
	body := []byte(`{"ok":true,"status":"completed","turn_id":"msg_0123456789abcdef","desktop_time":0}`)
	return func(l *tunnel.Link, in wire.Deliver) {
		e, err := proof.ParseEnvelope(in.Envelope)
		if err != nil {
			return // the surface then waits in vain, and the bench says so
		}
		h := proof.ResultHeader{
			Pairing: d.keys.Pairing(), Surface: e.Header.Surface, Envelope: e.Hash(), Command: in.Command,
			State: wire.StateCompleted, Counter: 1, Time: time.Now().UnixMilli(),
		}
		sealed, err := d.keys.SealResult(kem[h.Surface], h, body)
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		out := wire.Result{Command: in.Command, Token: in.Token, State: h.State, Sealed: sealed}
		_ = call(ctx, l, wire.FrameResult, out) // a refusal shows as a surface that waits in vain
	}
}

// durableSample is one sample.
type durableSample struct {
	commands float64
	took     time.Duration
	cpu      time.Duration // of the broker
	waits    []time.Duration
}

// sample posts what was sealed before the clock starts. Each surface waits for a command's end before the next.
func (r *room) sample(ctx context.Context, b *bench, n *node, i int) (s durableSample, err error) {
	row := r.surfaces[i]
	if err := each(desks, 8, func(i int) error { return row[i].prepare(ctx) }); err != nil {
		return s, err
	}
	if i == 0 && b.profile != "" {
		go func() { _ = b.save(n, "durable.cpu.pprof", "/debug/pprof/profile?seconds=5") }()
	}
	before, err := cpu(n.proc.PID())
	if err != nil {
		return s, err
	}
	waits := make([][]time.Duration, desks)
	began := time.Now()
	err = each(desks, desks, func(i int) (err error) {
		waits[i], err = row[i].post(ctx)
		return err
	})
	s.took = time.Since(began)
	for _, w := range waits {
		s.waits = append(s.waits, w...)
	}
	after, err2 := cpu(n.proc.PID())
	s.cpu, s.commands = after-before, float64(len(s.waits))
	return s, errors.Join(err, err2)
}

// prepare signs in and seals.
func (p *phone) prepare(ctx context.Context) error {
	if err := p.signIn(ctx); err != nil {
		return err
	}
	bundle, err := proof.OpenBundle(p.desk.keys.Dsig(), p.desk.keys.Bundle())
	if err != nil {
		return err
	}
	payload, err := json.Marshal(wire.Prompt{SessionID: "ses_0123456789abcdef", Text: "fix the failing test"})
	if err != nil {
		return err
	}
	for range perSample {
		now := time.Now()
		c := seal.Command{Kind: proof.Prompt, Payload: payload, Iat: now, Exp: now.Add(proof.Prompt.Life())}
		raw, err := p.keys.SealCommand(bundle, c, p.chain)
		if err != nil {
			return err
		}
		e, err := proof.ParseEnvelope(raw)
		if err != nil {
			return err
		}
		p.chain, p.written = p.chain.Advance(e.Header, e.Hash()), append(p.written, raw)
	}
	return nil
}

func (p *phone) signIn(ctx context.Context) error {
	who := wire.AuthNonceRequest{Pairing: p.desk.keys.Pairing().String(), Surface: p.id.String()}
	var nonce wire.Nonce
	if err := exchange(ctx, p.http, p.desk.url+wire.PathAuthNonce, "", who, &nonce); err != nil {
		return err
	}
	auth := proof.SurfaceAuth{
		Origin: p.desk.url, Broker: p.desk.key, Pairing: p.desk.keys.Pairing(), Surface: p.id, Nonce: nonce.Nonce, Time: nonce.Time,
	}
	in := wire.AuthTokenRequest{
		Pairing: who.Pairing, Surface: who.Surface, Nonce: auth.Nonce, Time: auth.Time, Signature: auth.Sign(p.keys.Signer()),
	}
	var token wire.AuthToken
	err := exchange(ctx, p.http, p.desk.url+wire.PathAuthToken, "", in, &token)
	p.token = token.Token
	return err
}

func (p *phone) post(ctx context.Context) (waits []time.Duration, err error) {
	url := p.desk.url + strings.Replace(wire.PathCommands, "{pairing}", p.desk.keys.Pairing().String(), 1) + "?wait=25"
	for _, raw := range p.written {
		began := time.Now()
		var c wire.Command
		if err := exchange(ctx, p.http, url, p.token, wire.CommandPost{Sealed: raw}, &c); err != nil {
			return waits, err
		}
		if c.State != wire.StateCompleted {
			return waits, fmt.Errorf("a command is %s after 25 s", c.State)
		}
		waits = append(waits, time.Since(began))
	}
	return waits, nil
}
