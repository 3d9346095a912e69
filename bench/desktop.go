package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cowork.example.com/broker/internal/topology"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// desktop is an agent without journal, policy and executor: real keys, a real enrolment, the real redialer, a real
// hello with its report. It exists so that thousands fit into one process beside the broker's.
type desktop struct {
	addr    net.IP
	url     string // of the broker
	key     proof.SigKey
	keys    *seal.Desktop
	http    *http.Client
	journal []byte
	high    atomic.Uint64 // highest sequence seen
	up      func()        // called after each hello that was answered
	run     func(*tunnel.Link, wire.Deliver)
}

// fleet is desktops of one broker.
type fleet struct {
	all  []*desktop
	stop context.CancelFunc
	wg   sync.WaitGroup
	up   chan int // numbers of desktops whose hello was answered
}

// enrolAtOnce is how many enrolments run at once.
const enrolAtOnce = 16

// enrol makes n desktops known to the broker through its own API, one code each.
func (n *node) enrol(ctx context.Context, count int) (*fleet, error) {
	f := &fleet{all: make([]*desktop, count), up: make(chan int, count)}
	var key proof.SigKey
	var info wire.BrokerInfo
	if err := get(ctx, n.lab.URL()+wire.PathBroker, &info); err != nil {
		return nil, err
	}
	copy(key[:], info.Key)
	err := each(count, enrolAtOnce, func(i int) error {
		d := &desktop{addr: address(10, i), url: n.lab.URL(), key: key, journal: make([]byte, 16), up: func() { f.up <- i }}
		rand.Read(d.journal) // never fails
		d.http = client(d.addr, false)
		f.all[i] = d
		return d.enrol(ctx, n)
	})
	return f, err
}

func get(ctx context.Context, url string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	return json.NewDecoder(res.Body).Decode(out)
}

// each calls do for 0 to n-1, some at once, and returns the first error.
func each(n, atOnce int, do func(int) error) error {
	var next atomic.Int64
	errs := make([]error, atOnce)
	var wg sync.WaitGroup
	for w := range atOnce {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[w] == nil; i = int(next.Add(1)) - 1 {
				errs[w] = do(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (d *desktop) enrol(ctx context.Context, n *node) (err error) {
	if d.keys, err = seal.NewDesktop(time.Now()); err != nil {
		return err
	}
	code, err := n.code(ctx)
	if err != nil {
		return err
	}
	r := proof.Redeem{
		Broker: d.key, Code: code.Letters(), Dsig: d.keys.Dsig(), Bundle: d.keys.Bundle(), Host: "desk",
		Versions: proof.OwnVersions(), Executor: "echo",
	}
	var versions []int
	for _, v := range r.Versions {
		versions = append(versions, int(v))
	}
	in := wire.EnrolRequest{
		Code: string(r.Code), Dsig: r.Dsig[:], Bundle: r.Bundle, Host: r.Host, Versions: versions, Executor: r.Executor,
		Proof: r.Sign(d.keys.Signer()),
	}
	return exchange(ctx, d.http, d.url+wire.PathEnrol, "", in, &wire.EnrolReply{})
}

// dial keeps the desktop's link up until ctx ends.
func (d *desktop) dial(ctx context.Context) error {
	r, err := tunnel.NewRedialer(tunnel.RedialConfig{
		Dial: tunnel.DialConfig{
			URL: "ws" + strings.TrimPrefix(d.url, "http") + wire.PathTunnel, Header: d.header, Proxy: "direct",
			DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: d.addr}, Timeout: 10 * time.Second}).DialContext,
		},
		OnLink: d.onLink,
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// header signs a fresh nonce.
func (d *desktop) header(ctx context.Context) (http.Header, error) {
	var n wire.Nonce
	who := wire.TunnelNonceRequest{Pairing: d.keys.Pairing().String()}
	if err := exchange(ctx, d.http, d.url+wire.PathTunnelNonce, "", who, &n); err != nil {
		return nil, err
	}
	h := http.Header{}
	h.Set(wire.HeaderTunnelPairing, who.Pairing)
	h.Set(wire.HeaderTunnelNonce, n.Nonce.String())
	h.Set(wire.HeaderTunnelTime, strconv.FormatInt(time.Now().UnixMilli(), 10))
	sig := proof.SignTunnel(d.keys.Signer(), d.key, n.Nonce, strings.TrimPrefix(d.url, "http://"))
	h.Set(wire.HeaderTunnelSignature, wire.Bytes(sig).String())
	return h, nil
}

func (d *desktop) onLink(l *tunnel.Link) {
	l.Serve(func(_ context.Context, _ tunnel.Class, req []byte) ([]byte, error) { return d.serve(l, req) })
	if err := d.hello(l); err != nil {
		l.Close("hello_failed")
		return
	}
	d.up()
}

func (d *desktop) hello(l *tunnel.Link) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	p := proof.Hello{Broker: d.key, Time: time.Now().UnixMilli(), JournalID: d.journal, Counter: 1, HighWater: d.high.Load()}
	in := wire.Hello{
		ProtocolMin: wire.ProtocolMin, ProtocolMax: wire.ProtocolMax, Time: p.Time, Version: "bench", Executor: "echo",
		Kinds: topology.Kinds(topology.DesktopLocal, topology.Sealed), Bundle: d.keys.Bundle(), Revoked: []string{},
		Report: wire.Report{JournalID: p.JournalID, Counter: p.Counter, HighWater: p.HighWater, Open: []wire.ReportRow{}},
		Sig:    p.Sign(d.keys.Signer()),
	}
	return call(ctx, l, wire.FrameHello, in)
}

func call(ctx context.Context, l *tunnel.Link, frame string, body any) error {
	raw, err := json.Marshal(body)
	if err == nil {
		raw, err = json.Marshal(wire.Frame{Type: frame, Body: raw})
	}
	if err != nil {
		return err
	}
	_, err = l.Call(ctx, tunnel.Control, raw)
	return err
}

// serve answers the broker: a delivery is received and then run, everything else is merely stored.
func (d *desktop) serve(l *tunnel.Link, req []byte) ([]byte, error) {
	var f wire.Frame
	if err := json.Unmarshal(req, &f); err != nil {
		return nil, err
	}
	var out any = wire.Durable{}
	if f.Type == wire.FrameDeliver {
		var in wire.Deliver
		if err := json.Unmarshal(f.Body, &in); err != nil {
			return nil, err
		}
		d.high.Store(in.Sequence)
		if d.run != nil {
			go d.run(l, in)
		}
		out = wire.Delivered{State: "received"}
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return json.Marshal(wire.Frame{Body: body})
}

// start dials with all desktops, so many a second; 0: at once.
func (f *fleet) start(ctx context.Context, rate int) {
	ctx, f.stop = context.WithCancel(ctx)
	for i, d := range f.all {
		if rate > 0 && i%rate == rate-1 {
			time.Sleep(time.Second)
		}
		f.wg.Go(func() { _ = d.dial(ctx) }) // the configuration is checked by the first desktop that is awaited
	}
}

// end closes all links.
func (f *fleet) end() {
	f.stop()
	f.wg.Wait()
	for len(f.up) > 0 {
		<-f.up
	}
}

// await returns when each of the desktops has been answered a hello since the last await, and how long after began
// the last of each share was.
func (f *fleet) await(ctx context.Context, began time.Time, within time.Duration) ([]time.Duration, error) {
	seen := make([]bool, len(f.all))
	var at []time.Duration
	limit := time.After(within)
	for len(at) < len(f.all) {
		select {
		case i := <-f.up:
			if !seen[i] {
				seen[i], at = true, append(at, time.Since(began))
			}
		case <-limit:
			return at, errors.New(strconv.Itoa(len(at)) + " of " + strconv.Itoa(len(f.all)) + " desktops came within " + within.String())
		case <-ctx.Done():
			return at, ctx.Err()
		}
	}
	return at, nil
}
