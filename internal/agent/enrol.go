package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// Enrolment says where and as what this desktop enrols (pairing-protocol.md section 2).
type Enrolment struct {
	Broker   string       // address; a link's own origin when empty
	Code     pairing.Code // from the operator
	Host     string       // this desktop's name for people; the machine's when empty
	Executor string       // opencode or echo
	HTTP     *http.Client // nil: a plain one

	Secrets Secrets
	Journal *journal.Journal
	Now     func() time.Time
}

// ErrWrongBroker means that the code was not made by the broker that answered. The code was not sent.
var ErrWrongBroker = errors.New("this code was made by another broker than the one that answered; the code was not sent")

// pending is an enrolment whose answer has not been seen: the same bytes are sent again, and get the same answer.
type pending struct {
	Code wire.Bytes `json:"code"` // its hash: another code begins anew
	Keys wire.Bytes `json:"keys"` // exported
	Host string     `json:"host"`
}

const pendingName = "enrol-pending"

// Enrol redeems a code: keys are made and kept first, then the broker is asked, then the pairing is journalled. After
// any failure the same call again goes on where this one stopped, while the code lives.
func Enrol(ctx context.Context, e Enrolment) (journal.Pairing, error) {
	address := e.Broker
	if address == "" {
		address = e.Code.Origin
	}
	broker, err := newBrokerHTTP(address, e.HTTP)
	if err != nil {
		return journal.Pairing{}, err
	}
	info, err := broker.info(ctx)
	if err != nil {
		return journal.Pairing{}, err
	}
	if err := checkBroker(e, info); err != nil {
		return journal.Pairing{}, err
	}
	p, err := e.pending(ctx)
	if err != nil {
		return journal.Pairing{}, err
	}
	keys, err := seal.LoadDesktop(p.Keys)
	if err != nil {
		return journal.Pairing{}, err
	}
	reply, err := e.redeem(ctx, broker, keys, p.Host, proof.SigKey(info.Key))
	if err != nil {
		return journal.Pairing{}, err
	}
	return e.keep(ctx, broker, keys, p.Host, reply)
}

// checkBroker holds key, protocol and clock before anything secret is sent.
func checkBroker(e Enrolment, info wire.BrokerInfo) error {
	if len(info.Key) != len(proof.SigKey{}) || !e.Code.Names(proof.SigKey(info.Key)) {
		return ErrWrongBroker
	}
	if info.ProtocolMax < wire.ProtocolMin {
		return errors.New("the broker is too old for this agent: upgrade the broker")
	}
	if info.ProtocolMin > wire.ProtocolMax {
		return errors.New("this agent is too old for the broker: upgrade desktop-agent")
	}
	return clockSkew(e.Now(), time.UnixMilli(info.Time))
}

// clockSkew refuses clocks more than proof.MaxSkew apart, naming both.
func clockSkew(desktop, broker time.Time) error {
	if desktop.Sub(broker).Abs() <= proof.MaxSkew {
		return nil
	}
	const form = "15:04:05 on 2006-01-02 UTC"
	return &wire.Problem{Code: wire.CodeClockSkew, Title: "the clocks are too far apart: this desktop says " +
		desktop.UTC().Format(form) + ", the broker says " + broker.UTC().Format(form)}
}

// pending takes up an unanswered enrolment with this code, or begins one durably.
func (e Enrolment) pending(ctx context.Context) (pending, error) {
	sum := sha256.Sum256([]byte(e.Code.Letters()))
	var p pending
	if ok, err := load(ctx, e.Secrets, pendingName, &p); err != nil {
		return p, err
	} else if ok && string(p.Code) == string(sum[:]) {
		return p, nil
	}
	keys, err := seal.NewDesktop(e.Now())
	if err != nil {
		return p, err
	}
	host := e.Host
	if host == "" {
		host, _ = os.Hostname()
	}
	p = pending{Code: sum[:], Keys: keys.Export(), Host: proof.CleanLabel(host)}
	return p, store(ctx, e.Secrets, pendingName, p)
}

func (e Enrolment) redeem(ctx context.Context, b *brokerHTTP, keys *seal.Desktop, host string, key proof.SigKey) (wire.EnrolReply, error) {
	r := proof.Redeem{
		Broker: key, Code: e.Code.Letters(), Dsig: keys.Dsig(), Bundle: keys.Bundle(), Host: host,
		Versions: proof.OwnVersions(), Executor: e.Executor,
	}
	versions := make([]int, len(r.Versions))
	for i, v := range r.Versions {
		versions[i] = int(v)
	}
	req := wire.EnrolRequest{
		Code: string(r.Code), Dsig: r.Dsig[:], Bundle: r.Bundle, Host: r.Host, Versions: versions, Executor: r.Executor,
		Proof: r.Sign(keys.Signer()),
	}
	var reply wire.EnrolReply
	if err := b.do(ctx, http.MethodPost, wire.PathEnrol, req, &reply); err != nil {
		return reply, err
	}
	if reply.Pairing != keys.Pairing().String() || string(reply.BrokerKey) != string(key[:]) {
		return reply, errors.New("the broker's answer is not for this desktop")
	}
	return reply, nil
}

// keep stores keys, then the pairing with its audit line, then forgets what was pending.
func (e Enrolment) keep(ctx context.Context, b *brokerHTTP, keys *seal.Desktop, host string, reply wire.EnrolReply) (journal.Pairing, error) {
	id := keys.Pairing()
	policy, err := json.Marshal(pairing.DefaultPolicy())
	if err != nil {
		return journal.Pairing{}, err
	}
	row := journal.Pairing{
		ID: id, BrokerURL: b.base, BrokerKey: proof.SigKey(reply.BrokerKey), PageOrigin: reply.PageOrigin, Host: host,
		Enrolled: e.Now(), Policy: policy,
	}
	if err := e.Secrets.Set(ctx, keysName(id), keys.Export()); err != nil {
		return row, err
	}
	m := e.Journal.Meta()
	if err := store(ctx, e.Secrets, mirrorName(id), mirror{ID: m.ID[:], Counter: m.Counter}); err != nil {
		return row, err
	}
	line := journal.Line{
		Type: audit.PairingEnrolled, Pairing: id.String(), Outcome: audit.Success,
		Actor: audit.Actor{Kind: audit.Desktop, ID: id.String(), Label: host}, Target: wire.AuditTarget{Kind: audit.Pairing, ID: id.String()},
	}
	if err := e.Journal.Record(ctx, e.Now(), []journal.Line{line}, journal.PutPairing(row)); err != nil {
		return row, err
	}
	return row, e.Secrets.Delete(ctx, pendingName)
}
