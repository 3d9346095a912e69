package seal

import (
	"errors"
	"testing"

	"cowork.example.com/broker/pkg/proof"
)

type eventsVector struct {
	Name     string   `json:"name"`
	Keys     keySteps `json:"keys"`
	Envelope hx       `json:"envelope_hash"`
	Result   struct {
		Command string    `json:"command"`
		State   string    `json:"state"`
		Counter uint64    `json:"counter"`
		Time    int64     `json:"time"`
		Body    string    `json:"body"`
		Header  hx        `json:"header"`
		Info    hx        `json:"info"`
		HPKE    hpkeSteps `json:"hpke"`
		Signed  hx        `json:"signed"`
	} `json:"result"`
	Epoch struct {
		ID       hx        `json:"id"`
		Previous hx        `json:"previous"`
		View     hx        `json:"view_key"`
		Decide   hx        `json:"decide_key,omitempty"`
		HasBoth  bool      `json:"decide"`
		Header   hx        `json:"header"`
		Info     hx        `json:"info"`
		HPKE     hpkeSteps `json:"hpke"`
		Signed   hx        `json:"signed"`
	} `json:"epoch"`
	Batches []batchVector `json:"batches"`
}

type batchVector struct {
	Key       proof.EpochKey `json:"key"`
	Class     proof.Class    `json:"class"`
	Reference hx             `json:"reference,omitempty"`
	Seq       uint64         `json:"seq"`
	Time      int64          `json:"time"`
	Body      string         `json:"body"`
	Nonce     hx             `json:"nonce"`
	Header    hx             `json:"header"`
	Signed    hx             `json:"signed"`
}

func makeEvents(t *testing.T) (out []eventsVector) {
	for _, scope := range []proof.Scope{proof.ScopePrompt, proof.ScopeDecide} {
		p := newPair(t, scope)
		v := eventsVector{Name: scope.String(), Keys: keysOf(p.d, p.s)}
		h := proof.ResultHeader{
			Pairing: p.d.Pairing(), Surface: p.grant.Surface, Envelope: proof.Digest{1, 2, 3}, Command: "cmd_7", State: "completed",
			Counter: 4, Time: start.UnixMilli(),
		}
		v.Envelope = h.Envelope[:]
		r := &v.Result
		r.Command, r.State, r.Counter, r.Time, r.Body = h.Command, h.State, h.Counter, h.Time, `{"ok":true,"status":"completed"}`
		r.Header, r.Info = h.Encode(), resultInfo(h)
		r.Signed = must(p.d.SealResult(p.s.Skem(), h, []byte(r.Body)))(t)
		opened := must(proof.OpenResult(p.d.Dsig(), r.Signed))(t)
		r.HPKE = hpkeByHand(t, p.s.priv[:], opened.Sealed[:proof.EncSize], r.Info)
		e := NewEpoch(p.d.Pairing(), proof.EpochID{9}, start)
		v.Epoch.ID, v.Epoch.Previous, v.Epoch.View, v.Epoch.HasBoth = e.id[:], e.prev[:], e.keys.view[:], scope == proof.ScopeDecide
		if v.Epoch.HasBoth {
			v.Epoch.Decide = e.keys.decide[:]
		}
		v.Epoch.Signed = must(e.Box(p.d, p.grant))(t)
		box := must(proof.OpenEpochBox(p.d.Dsig(), v.Epoch.Signed))(t)
		v.Epoch.Header, v.Epoch.Info = box.HeaderBytes(), epochInfo(box.Header)
		v.Epoch.HPKE = hpkeByHand(t, p.s.priv[:], box.Sealed[:proof.EncSize], v.Epoch.Info)
		for _, ev := range []Events{
			{Key: proof.KeyView, Class: proof.ClassText, Body: []byte(`[{"type":"text"}]`)},
			{Key: proof.KeyView, Class: proof.ClassRequestOpen, Reference: proof.Reference{5}, Body: []byte(`[{"type":"request.open"}]`)},
			{Key: proof.KeyDecide, Class: proof.ClassRequestOpen, Reference: proof.Reference{5}, Body: []byte(`[{"type":"request.open","data":{"command":"ls"}}]`)},
			{Key: proof.KeyView, Class: proof.ClassTurnEnded, Body: nil},
		} {
			ev.Time = start
			signed, seq, err := e.Seal(p.d, ev)
			if err != nil {
				t.Fatal(err)
			}
			b := must(proof.OpenBatch(p.d.Dsig(), signed))(t)
			nonce := counterNonce(seq)
			bv := batchVector{Key: ev.Key, Class: ev.Class, Seq: seq, Time: b.Header.Time, Body: string(ev.Body), Nonce: nonce[:], Header: b.HeaderBytes(), Signed: signed}
			if ev.Class.IsRequest() {
				bv.Reference = ev.Reference[:]
			}
			v.Batches = append(v.Batches, bv)
		}
		out = append(out, v)
	}
	return out
}

func checkEvents(t *testing.T) {
	for _, v := range readVector[eventsVector](t, "events.json") {
		t.Run(v.Name, func(t *testing.T) {
			p := v.Keys.load(t)
			r := v.Result
			h := proof.ResultHeader{
				Pairing: p.d.Pairing(), Surface: p.grant.Surface, Envelope: proof.Digest(v.Envelope), Command: r.Command, State: r.State,
				Counter: r.Counter, Time: r.Time,
			}
			same(t, "result header", h.Encode(), r.Header)
			same(t, "result info", resultInfo(h), r.Info)
			got, body, err := p.s.OpenResult(p.d.Dsig(), r.Signed)
			if err != nil || got != h || string(body) != r.Body {
				t.Errorf("result: %+v %q %v", got, body, err)
			}
			opened := must(proof.OpenResult(p.d.Dsig(), r.Signed))(t)
			steps := hpkeByHand(t, v.Keys.SkemPriv, opened.Sealed[:proof.EncSize], r.Info)
			same(t, "result key", steps.Key, r.HPKE.Key)
			same(t, "result plaintext", steps.open(t, r.Header, opened.Sealed[proof.EncSize:]), pad(nil, []byte(r.Body)))
			keys := must(p.s.OpenEpoch(p.d.Dsig(), v.Epoch.Signed))(t)
			eh := proof.EpochHeader{
				Pairing: p.d.Pairing(), Surface: p.grant.Surface, Epoch: proof.EpochID(v.Epoch.ID), Previous: proof.EpochID(v.Epoch.Previous),
				Decide: v.Epoch.HasBoth, Issued: start.UnixMilli(),
			}
			same(t, "epoch header", eh.Encode(), v.Epoch.Header)
			same(t, "epoch info", epochInfo(eh), v.Epoch.Info)
			box := must(proof.OpenEpochBox(p.d.Dsig(), v.Epoch.Signed))(t)
			inside := append(append(append(hx{}, v.Epoch.ID...), v.Epoch.View...), v.Epoch.Decide...)
			boxSteps := hpkeByHand(t, v.Keys.SkemPriv, box.Sealed[:proof.EncSize], v.Epoch.Info)
			same(t, "epoch key", boxSteps.Key, v.Epoch.HPKE.Key)
			same(t, "epoch by hand", boxSteps.open(t, v.Epoch.Header, box.Sealed[proof.EncSize:]), inside)
			for _, b := range v.Batches {
				checkBatch(t, v, p, keys, b)
			}
		})
	}
}

func checkBatch(t *testing.T, v eventsVector, p pair, keys *EpochKeys, b batchVector) {
	h, body, err := keys.Open(p.d.Dsig(), b.Signed)
	key := v.Epoch.View
	if b.Key == proof.KeyDecide {
		if key = v.Epoch.Decide; key == nil {
			if !errors.Is(err, ErrNoKey) {
				t.Errorf("batch %d without its key: %v", b.Seq, err)
			}
			return
		}
	}
	if err != nil || string(body) != b.Body || h.Seq != b.Seq || h.Class != b.Class {
		t.Errorf("batch %d: %+v %q %v", b.Seq, h, body, err)
	}
	same(t, "batch header", h.Encode(), b.Header)
	ct := gcm([32]byte(key)).Seal(nil, b.Nonce, pad(nil, []byte(b.Body)), b.Header)
	same(t, "batch", proof.SignBatch(b.Header, ct, p.d.Signer()), b.Signed)
}

type authVector struct {
	Name    string   `json:"name"`
	Keys    keySteps `json:"keys"`
	Broker  hx       `json:"broker_key"`
	Host    string   `json:"host"`
	Origin  string   `json:"origin"`
	Nonce   hx       `json:"nonce"`
	Time    int64    `json:"time"`
	Tunnel  hx       `json:"tunnel_sig"`
	Auth    hx       `json:"auth_sig"`
	Revoke  hx       `json:"revoke_sig"`
	Request string   `json:"request"`
	Digest  hx       `json:"request_sha256"`
	List    hx       `json:"requests_digest"`
	Beat    hx       `json:"beat"`
}

func (v *authVector) fill(p pair) {
	broker := proof.SigKey(v.Broker)
	auth := proof.SurfaceAuth{Origin: v.Origin, Broker: broker, Pairing: p.d.Pairing(), Surface: p.grant.Surface, Nonce: v.Nonce, Time: v.Time}
	digest := proof.RequestDigest(p.d.Pairing(), []byte(v.Request))
	list := proof.RequestsDigest([]proof.Digest{digest})
	v.Tunnel = proof.SignTunnel(p.d.sign, broker, v.Nonce, v.Host)
	v.Auth = auth.Sign(p.s.sign)
	v.Revoke = proof.Revocation{Pairing: p.d.Pairing(), Surface: p.grant.Surface, Time: v.Time}.Sign(p.s.sign)
	v.Digest, v.List = digest[:], list[:]
	v.Beat = proof.Beat{Pairing: p.d.Pairing(), Time: v.Time, Epoch: proof.EpochID{1}, Seq: 2, Requests: list}.Sign(p.d.sign)
}

func makeAuth(t *testing.T) []authVector {
	p := newPair(t, proof.ScopeDecide)
	broker := must(NewDesktop(start))(t).Dsig()
	nonce := NewLinkSecret()
	v := authVector{
		Name: "all", Keys: keysOf(p.d, p.s), Broker: broker[:], Host: "broker.example.com", Origin: origin,
		Nonce: append(nonce.b[:], nonce.b[:]...), Time: start.UnixMilli(), Request: `{"id":"per_1","kind":"permission","command":"ls -l"}`,
	}
	v.fill(p)
	return []authVector{v}
}

func checkAuth(t *testing.T) {
	for _, v := range readVector[authVector](t, "auth.json") {
		again := v
		again.fill(v.Keys.load(t))
		for name, b := range map[string][2]hx{
			"tunnel": {again.Tunnel, v.Tunnel}, "auth": {again.Auth, v.Auth}, "revoke": {again.Revoke, v.Revoke},
			"digest": {again.Digest, v.Digest}, "list": {again.List, v.List}, "beat": {again.Beat, v.Beat},
		} {
			same(t, name, b[0], b[1])
		}
	}
}
