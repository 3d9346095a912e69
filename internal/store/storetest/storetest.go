// Package storetest is the conformance suite of the broker's stores: what internal/mailbox and pkg/pairing demand of
// their rows, walked on a real backend. Every backend must pass Run.
package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// Backend is a store under test.
type Backend interface {
	mailbox.Store
	pairing.CodeStore
	pairing.PairingStore
	pairing.SurfaceStore
	pairing.LinkStore
	Waker() mailbox.Waker
	Lines(ctx context.Context, after uint64, limit int) ([]json.RawMessage, uint64, error)
	Values(ctx context.Context, seq uint64) (map[string]audit.Value, error)
	Close() error
}

// Open opens the store that lives in dir, or makes it.
type Open func(t testing.TB, dir string) Backend

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"Table", testTable},
		{"TableSurvivesReopening", testTableReopened},
		{"Life", testLife},
		{"Enqueue", testEnqueue},
		{"Limits", testLimits},
		{"Claim", testClaim},
		{"Fencing", testFencing},
		{"Report", testReport},
		{"Stops", testStops},
		{"Skips", testSkips},
		{"Resolve", testResolve},
		{"Restore", testRestore},
		{"Wait", testWait},
		{"Presence", testPresence},
		{"Races", testRaces},
		{"Prune", testPrune},
		{"Atomicity", testAtomicity},
		{"Lines", testLines},
		{"Events", testEvents},
		{"EventRetention", testEventRetention},
		{"OpenRequests", testOpenRequests},
		{"EventEpochs", testEventEpochs},
		{"Codes", testCodes},
		{"Pairings", testPairings},
		{"Surfaces", testSurfaces},
		{"Links", testLinks},
		{"RandomLives", testRandomLives},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, open) })
	}
}

// start is the time at which every test begins.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const life = 24 * time.Hour

// fixture is one pairing with one surface in a store.
type fixture struct {
	testing.TB
	open    Open
	dir     string
	b       Backend
	s       *mailbox.Service
	now     time.Time
	pairing mailbox.PairingID
	surface mailbox.SurfaceID
	epoch   mailbox.Epoch
	seq     uint64
	prev    mailbox.Digest
	journal []byte
	high    uint64 // the journal's high-water mark
	marked  uint64 // a line that was there
}

func newFixture(t testing.TB, open Open) *fixture {
	f := &fixture{TB: t, open: open, dir: memory(t), now: start}
	f.b = open(t, f.dir)
	t.Cleanup(func() { f.b.Close() })
	f.s = mailbox.New(f.b, f.b.Waker())
	f.fresh()
	return f
}

// memory is a folder whose fsync costs nothing, where the system has one: this suite is about rows, and the tests of
// sqlitedb are about disks.
func memory(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "storetest")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// ids makes each pairing and surface of a test run another one.
var ids atomic.Uint64

func number() (b [16]byte) {
	binary.BigEndian.PutUint64(b[8:], ids.Add(1))
	return b
}

// fresh goes on with another pairing.
func (f *fixture) fresh() {
	f.pairing, f.surface = number(), number()
	f.epoch, f.seq, f.prev, f.high = 0, 0, mailbox.Digest{}, 0
	f.journal = []byte("journal of " + f.pairing.String())
}

// reopen closes the store and opens it again, as after a restart.
func (f *fixture) reopen() {
	f.Helper()
	f.must(f.b.Close())
	f.b = f.open(f, f.dir)
	f.s = mailbox.New(f.b, f.b.Waker())
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// wantCode demands an Error of this code.
func (f *fixture) wantCode(err error, want mailbox.Code) *mailbox.Error {
	f.Helper()
	e, ok := errors.AsType[*mailbox.Error](err)
	if !ok || e.Code != want {
		f.Fatalf("got error %v (code %d), want code %d", err, mailbox.CodeOf(err), want)
	}
	return e
}

func ctx() context.Context { return context.Background() }

func (f *fixture) by() mailbox.By {
	return mailbox.By{
		Actor:  audit.Actor{Kind: audit.Surface, ID: f.surface.String(), Label: "Anna's phone"},
		Source: audit.Source{IP: "192.0.2.7", UA: "test"},
	}
}

// draft is the surface's next command, as it would be posted.
func (f *fixture) draft() mailbox.Draft {
	envelope := []byte("sealed " + f.surface.String() + " " + string(rune('a'+f.seq%26)))
	envelope = binary.BigEndian.AppendUint64(envelope, f.seq+1)
	return mailbox.Draft{
		Pairing: f.pairing, Surface: f.surface, Kind: proof.Prompt, Seq: f.seq + 1, Prev: f.prev,
		Digest: sha256.Sum256(envelope), Commit: mailbox.Digest{7}, IssuedAt: f.now, Expires: f.now.Add(life),
		Envelope: envelope, Header: []byte("header"), BodyHash: mailbox.Digest{8}, Signature: []byte("signature"),
	}
}

// post enqueues the surface's next command.
func (f *fixture) post() mailbox.Command {
	f.Helper()
	d := f.draft()
	c, created, err := f.s.Enqueue(ctx(), d, f.by(), f.now)
	if err != nil || !created {
		f.Fatalf("Enqueue: %v, created %v", err, created)
	}
	f.seq, f.prev = d.Seq, d.Digest
	return c
}

func (f *fixture) connect() {
	f.Helper()
	epoch, err := f.s.Connect(ctx(), f.pairing, audit.Source{IP: "192.0.2.8"}, f.now)
	f.must(err)
	f.epoch = epoch
}

// report states the rows and the journal as it stands.
func (f *fixture) report(rows ...mailbox.ReportRow) mailbox.Reply {
	f.Helper()
	reply, err := f.s.Report(ctx(), f.pairing, f.epoch, mailbox.Report{JournalID: f.journal, HighWater: f.high, Rows: rows}, f.now)
	f.must(err)
	return reply
}

// relink is a new link whose report is applied.
func (f *fixture) relink(rows ...mailbox.ReportRow) mailbox.Reply {
	f.Helper()
	f.connect()
	return f.report(rows...)
}

// claim takes the next command, which there must be.
func (f *fixture) claim() mailbox.Command {
	f.Helper()
	c, ok, err := f.s.Claim(ctx(), f.pairing, f.epoch, f.now)
	if err != nil || !ok {
		f.Fatalf("Claim: %v, ok %v", err, ok)
	}
	return c
}

func (f *fixture) accept(c mailbox.Command) {
	f.Helper()
	f.must(f.s.Accepted(ctx(), f.pairing, c.ID, c.Token, f.now))
	f.high = max(f.high, c.Sequence)
}

func done(c mailbox.Command, s mailbox.State, sealed string) mailbox.Outcome {
	return mailbox.Outcome{Command: c.ID, Token: c.Token, State: s, Sealed: []byte(sealed)}
}

func (f *fixture) result(o mailbox.Outcome) error { return f.s.Result(ctx(), f.pairing, o, f.now) }

func (f *fixture) get(id mailbox.CommandID) mailbox.Command {
	f.Helper()
	c, err := f.s.Get(ctx(), f.pairing, id)
	f.must(err)
	return c
}

func (f *fixture) wantState(id mailbox.CommandID, want mailbox.State) mailbox.Command {
	f.Helper()
	c := f.get(id)
	if c.State != want {
		f.Fatalf("the command is %s, want %s", c.State, want)
	}
	return c
}

// lines returns the audit lines written since the seq.
func (f *fixture) lines(after uint64) (lines []wire.AuditLine, last uint64) {
	f.Helper()
	last = after
	for {
		page, next, err := f.b.Lines(ctx(), last, 500)
		f.must(err)
		if len(page) == 0 {
			return lines, last
		}
		for _, raw := range page {
			var l wire.AuditLine
			f.must(json.Unmarshal(raw, &l))
			lines = append(lines, l)
		}
		last = next
	}
}

// since counts the lines after a seq by type.
func (f *fixture) since(after uint64) map[audit.Type]int {
	f.Helper()
	lines, _ := f.lines(after)
	counts := map[audit.Type]int{}
	for _, l := range lines {
		counts[audit.Type(l.Type)]++
	}
	return counts
}

// mark is the newest line.
func (f *fixture) mark() uint64 {
	f.Helper()
	_, f.marked = f.lines(f.marked)
	return f.marked
}
