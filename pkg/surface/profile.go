package surface

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Secrets keeps the private keys at rest (internal/keystore). All methods are durable when they return.
type Secrets interface {
	// Get returns the value kept under name; ok is false when there is none.
	Get(ctx context.Context, name string) (value []byte, ok bool, err error)
	// Set keeps value under name.
	Set(ctx context.Context, name string, value []byte) error
	// Delete forgets name; unknown names are no error.
	Delete(ctx context.Context, name string) error
}

const (
	profileVersion = 1
	maxProfile     = 16 << 20
	maxSent        = 100     // commands whose results can still be recognised
	maxResend      = 4 << 20 // bytes of payloads that are kept to be sent again
	lockWait       = 30 * time.Second
)

// errBusy is a lock that stayed taken.
var errBusy = errors.New("another program is sending for this surface")

// ErrNotLinked means that the folder has no such surface.
var ErrNotLinked = errors.New("no desktop is linked here")

// Info names a linked desktop in a list.
type Info struct {
	Pairing  string    `json:"pairing"`
	Host     string    `json:"host"`
	Broker   string    `json:"broker"`
	Surface  string    `json:"surface"`
	Label    string    `json:"label"`
	Scopes   []string  `json:"scopes"`
	NotAfter time.Time `json:"not_after"`
}

// profile is the state of one surface.
type profile struct {
	Version  int             `json:"version"`
	Broker   string          `json:"broker"` // base address
	Origin   string          `json:"origin"` // of the broker, as it entered the transcript
	Key      proof.SigKey    `json:"broker_key"`
	Pairing  proof.PairingID `json:"pairing"`
	Surface  proof.SurfaceID `json:"surface"`
	Label    string          `json:"label"`
	Host     string          `json:"host"`
	Dsig     proof.SigKey    `json:"dsig"`
	Grant    wire.Bytes      `json:"grant"`
	Bundle   uint64          `json:"bundle"` // highest number seen
	Seq      uint64          `json:"seq"`    // of the last envelope made
	Hash     proof.Digest    `json:"hash"`   // and its hash
	Unposted *sent           `json:"unposted,omitempty"`
	Sent     []sent          `json:"sent"` // newest last
	Cursor   uint64          `json:"cursor"`
	SkewMS   int64           `json:"skew_ms"` // desktop's clock minus ours
}

// sent is one command of ours.
type sent struct {
	Hash     proof.Digest    `json:"hash"`
	Kind     proof.Kind      `json:"kind"`
	Command  string          `json:"command,omitempty"` // the broker's id, once it answered
	Expires  int64           `json:"expires"`           // desktop's clock, Unix ms
	Envelope wire.Bytes      `json:"envelope,omitempty"`
	Payload  json.RawMessage `json:"payload,omitempty"` // of what may be sent again after outcome_unknown
	Instead  string          `json:"instead,omitempty"` // the command in outcome_unknown that this one is sent for
}

func (p *profile) chain() proof.Chain { return proof.Chain{Seq: p.Seq, Hash: p.Hash} }

func (p *profile) setChain(c proof.Chain) { p.Seq, p.Hash = c.Seq, c.Hash }

// find returns the command of ours with this broker id.
func (p *profile) find(command string) (sent, bool) {
	for _, s := range p.Sent {
		if s.Command == command {
			return s, true
		}
	}
	return sent{}, false
}

func (p *profile) owns(hash proof.Digest) bool {
	for _, s := range p.Sent {
		if s.Hash == hash {
			return true
		}
	}
	return false
}

// keepSent adds or replaces a command, and forgets the oldest.
func (p *profile) keepSent(s sent) {
	for i := range p.Sent {
		if p.Sent[i].Hash == s.Hash {
			p.Sent[i] = s
			return
		}
	}
	p.Sent = append(p.Sent, s)
	if len(p.Sent) > maxSent {
		p.Sent = p.Sent[len(p.Sent)-maxSent:]
	}
	p.dropPayloads()
}

// dropPayloads keeps the newest payloads only: long prompts must not fill the profile.
func (p *profile) dropPayloads() {
	size := 0
	for i := len(p.Sent) - 1; i >= 0; i-- {
		if size += len(p.Sent[i].Payload); size > maxResend {
			p.Sent[i].Payload = nil
		}
	}
}

// folder is where profiles are.
type folder string

func (f folder) path(pairing proof.PairingID) string {
	return filepath.Join(string(f), pairing.String()+".json")
}

// keysName is the name in the keystore; keyrings fold letters, so the id is hexadecimal there.
func keysName(p proof.PairingID) string { return fmt.Sprintf("surface-%x", p[:]) }

// read returns a profile.
func (f folder) read(pairing proof.PairingID) (*profile, error) {
	raw, err := os.ReadFile(f.path(pairing))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotLinked
	}
	if err != nil {
		return nil, err
	}
	var p profile
	if len(raw) > maxProfile || json.Unmarshal(raw, &p) != nil || p.Version != profileVersion || p.Pairing != pairing {
		return nil, fmt.Errorf("%s is damaged or of another version; link this surface again", f.path(pairing))
	}
	return &p, nil
}

// write replaces a profile durably: it is on the disk, whole, when write returns.
func (f folder) write(p *profile) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(string(f), ".profile-*")
	if err != nil {
		return err
	}
	_, err = file.Write(raw)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), f.path(p.Pairing))
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return syncDir(string(f))
}

// remove forgets a profile.
func (f folder) remove(pairing proof.PairingID) error {
	err := errors.Join(ignoreMissing(os.Remove(f.path(pairing))), ignoreMissing(os.Remove(f.path(pairing)+".lock")))
	return errors.Join(err, syncDir(string(f)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// List returns the desktops that are linked in a folder, by host name.
func List(dir string) ([]Info, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		id, err := proof.ParsePairingID(name)
		if !ok || err != nil {
			continue
		}
		p, err := folder(dir).read(id)
		if err != nil {
			return nil, err
		}
		all = append(all, p.info())
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Host+all[i].Pairing < all[j].Host+all[j].Pairing })
	return all, nil
}

func (p *profile) info() Info {
	i := Info{Pairing: p.Pairing.String(), Host: p.Host, Broker: p.Broker, Surface: p.Surface.String(), Label: p.Label}
	if g, err := proof.OpenGrant(p.Dsig, p.Grant); err == nil {
		i.Scopes, i.NotAfter = g.Scopes.Names(), time.UnixMilli(g.NotAfter)
	}
	return i
}

// locked runs f with the profile under the pairing's lock, which other processes respect too: a surface sends one
// command at a time.
func (f folder) locked(ctx context.Context, pairing proof.PairingID, do func(p *profile) error) error {
	waiting, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err := lockFile(waiting, f.path(pairing)+".lock")
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	defer unlock()
	p, err := f.read(pairing)
	if err != nil {
		return err
	}
	return do(p)
}
