package sqlite

import (
	"crypto/sha256"
	"encoding/binary"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/proof"
)

// desktops is how many pairings work at once in BenchmarkCycle.
const desktops = 200

// BenchmarkCycle is the store alone: one operation is a command's whole life, enqueue, claim, accepted, result, each of
// them durable before the next, at 200 desktops at once. commits/s is how fast this disk syncs.
func BenchmarkCycle(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "broker.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	service := mailbox.New(s, s.Waker())
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	all := make([]*desktop, desktops)
	for i := range all {
		all[i] = newDesktop(b, service, i, now)
	}
	before := s.Stats()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, d := range all {
		n := b.N / desktops
		if i < b.N%desktops {
			n++
		}
		wg.Go(func() {
			for range n {
				if err := d.cycle(now); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	after := s.Stats()
	commits := float64(after.Commits - before.Commits)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "cycles/s")
	b.ReportMetric(commits/b.Elapsed().Seconds(), "commits/s")
	b.ReportMetric(float64(after.Writes-before.Writes)/commits, "writes/commit")
}

// desktop is one pairing with one surface.
type desktop struct {
	b       *testing.B
	s       *mailbox.Service
	pairing mailbox.PairingID
	surface mailbox.SurfaceID
	epoch   mailbox.Epoch
	seq     uint64
	prev    mailbox.Digest
}

func newDesktop(b *testing.B, s *mailbox.Service, i int, now time.Time) *desktop {
	d := &desktop{b: b, s: s}
	binary.BigEndian.PutUint64(d.pairing[:], uint64(i+1))
	binary.BigEndian.PutUint64(d.surface[:], uint64(i+1))
	var err error
	if d.epoch, err = s.Connect(b.Context(), d.pairing, audit.Source{}, now); err != nil {
		b.Fatal(err)
	}
	if _, err := s.Report(b.Context(), d.pairing, d.epoch, mailbox.Report{JournalID: []byte("j")}, now); err != nil {
		b.Fatal(err)
	}
	return d
}

// cycle is one command's life. The envelope is as large as a short prompt's.
func (d *desktop) cycle(now time.Time) error {
	ctx := d.b.Context()
	envelope := make([]byte, 600)
	copy(envelope, d.pairing[:])
	d.seq++
	binary.BigEndian.PutUint64(envelope[16:], d.seq)
	draft := mailbox.Draft{
		Pairing: d.pairing, Surface: d.surface, Kind: proof.Prompt, Seq: d.seq, Prev: d.prev, Digest: sha256.Sum256(envelope),
		IssuedAt: now, Expires: now.Add(time.Hour), Envelope: envelope, Header: envelope[:131], Signature: envelope[:64],
	}
	d.prev = draft.Digest
	by := mailbox.By{Actor: audit.Actor{Kind: audit.Surface, ID: d.surface.String(), Label: "phone"}, Source: audit.Source{IP: "192.0.2.1"}}
	if _, _, err := d.s.Enqueue(ctx, draft, by, now); err != nil {
		return err
	}
	c, _, err := d.s.Claim(ctx, d.pairing, d.epoch, now)
	if err != nil {
		return err
	}
	if err := d.s.Accepted(ctx, d.pairing, c.ID, c.Token, now); err != nil {
		return err
	}
	return d.s.Result(ctx, d.pairing, mailbox.Outcome{Command: c.ID, Token: c.Token, State: mailbox.Completed, Sealed: envelope[:400]}, now)
}
