package pairing

import (
	"encoding/json"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// CodeRecord is what the broker keeps of an enrolment code: never the code.
type CodeRecord struct {
	ID       string // names the code in lists and audit lines
	Selector string // public part, unique among open codes
	MAC      proof.Digest
	Note     string
	Tries    int // wrong ones so far
	Created  time.Time
	Expires  time.Time
	Used     time.Time       // zero: not used
	Burned   time.Time       // zero: not burned
	Revoked  time.Time       // zero: not revoked
	Pairing  proof.PairingID // whom it enrolled, when used
	Request  proof.Digest    // of the redeeming request: the same one again gets the same answer
}

// State returns open, used, expired, burned or revoked.
func (c CodeRecord) State(now time.Time) string {
	switch {
	case !c.Used.IsZero():
		return "used"
	case !c.Revoked.IsZero():
		return "revoked"
	case !c.Burned.IsZero():
		return "burned"
	case !now.Before(c.Expires):
		return "expired"
	}
	return "open"
}

// State is where a pairing stands. The zero value is none.
type State byte

// The states of a pairing. Revoked is final.
const (
	Active State = iota + 1
	Locked
	Ended
)

var stateNames = [...]string{Active: "active", Locked: "locked", Ended: "revoked"}

// ParseState reads a name.
func ParseState(name string) (State, error) {
	for s, n := range stateNames {
		if s > 0 && n == name {
			return State(s), nil
		}
	}
	return 0, ErrMalformed
}

// String returns active, locked, revoked or unknown.
func (s State) String() string {
	if s < Active || s > Ended {
		return "unknown"
	}
	return stateNames[s]
}

// Pairing is one desktop's opt-in to this broker.
type Pairing struct {
	ID       proof.PairingID
	Dsig     proof.SigKey
	Host     string // host name, proof.CheckLabel
	State    State
	Reason   string // stable code of the last change of State
	Sealed   bool
	Executor string
	Versions proof.Versions
	Kinds    []string // that the desktop stated in its last hello
	Bundle   []byte   // newest signed Dkem bundle
	BundleNo uint64
	Created  time.Time
	Seen     time.Time // last connected or disconnected
}

// Surface is one linked surface as the broker knows it.
type Surface struct {
	ID       proof.SurfaceID
	Pairing  proof.PairingID
	Ssig     proof.SigKey
	Label    string
	Scopes   proof.Scopes
	Serial   uint64 // highest seen
	Grant    []byte // signed, of that serial
	NotAfter time.Time
	Created  time.Time
	Used     time.Time
	Revoked  time.Time // zero: not revoked; otherwise for ever
	Reason   string    // why it was revoked
}

// State returns active, expired or revoked.
func (s Surface) State(now time.Time) string {
	switch {
	case !s.Revoked.IsZero():
		return "revoked"
	case !now.Before(s.NotAfter):
		return "expired"
	}
	return "active"
}

// SurfaceFrom makes a surface of a grant that proof.OpenGrant verified.
func SurfaceFrom(g proof.Grant, signed []byte, label string, now time.Time) Surface {
	return Surface{
		ID: g.Surface, Pairing: g.Pairing, Ssig: g.Ssig, Label: label, Scopes: g.Scopes, Serial: g.Serial,
		Grant: signed, NotAfter: time.UnixMilli(g.NotAfter), Created: now, Used: now,
	}
}

// Link is one linking session as the broker keeps it. The messages are kept as they came, unread where they are
// none of its business.
type Link struct {
	Pid        proof.LinkID
	Pairing    proof.PairingID
	Mode       proof.Mode
	Nameplate  string       // code mode: two digits, unique among live sessions
	Check      proof.Digest // link mode: SHA-256(admit); code mode: an HMAC of the letters under the pepper
	State      proof.LinkState
	Reason     string // stable code, why it ended
	Tries      int    // wrong claims so far
	Opened     time.Time
	Expires    time.Time
	Session    proof.Digest    // SHA-256 of the value that only the claimer knows; zero before the claim
	Network    string          // where the claim came from, for the desktop's owner
	Agent      string          // the claimer's user agent
	Offer      json.RawMessage // message 3
	Reveal     json.RawMessage // message 4
	Grant      json.RawMessage // message 6, sealed to the surface
	Surface    proof.SurfaceID // from message 6 on
	Transcript proof.Digest    // SHA-256(T), as the grant of message 6 names it
}

// Live reports whether the session may still move at now.
func (l Link) Live(now time.Time) bool { return !l.State.Final() && now.Before(l.Expires) }

// Origin is who caused a change and from where, in clear. A store commits to label and address (audit) and never
// writes them into a line.
type Origin struct {
	Kind  string // operator, desktop, surface, broker or network
	ID    string
	Label string
	Key   string // public key, when one was proven
	IP    string
	UA    string
}

// line begins an audit line. Seq, id, code and commitments are the store's to add.
func (o Origin) line(kind string, now time.Time, pairing proof.PairingID, target wire.AuditTarget) wire.AuditLine {
	l := wire.AuditLine{
		V: wire.AuditVersion, Time: now.UTC().Format("2006-01-02T15:04:05.000Z07:00"), Type: kind, Outcome: "success",
		Actor:  wire.AuditActor{Kind: o.Kind, ID: o.ID, Label: o.Label, Key: o.Key},
		Target: target, Source: wire.AuditSource{IP: o.IP, UA: o.UA},
	}
	if !pairing.IsZero() {
		l.Pairing = pairing.String()
	}
	return l
}

// refused turns a line into a refusal with a stable reason.
func refused(l wire.AuditLine, reason string) wire.AuditLine {
	l.Outcome, l.Reason = "refused", reason
	return l
}

func target(kind, id string) wire.AuditTarget { return wire.AuditTarget{Kind: kind, ID: id} }
