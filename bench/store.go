package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/internal/store/sqlite"
	"cowork.example.com/broker/pkg/proof"
)

const (
	desks     = 200             // of the two durable benches
	storeTime = 4 * time.Second // one sample of the store
	envelope  = 600             // bytes, a short prompt's
)

// durableStore: the store and the mailbox's rules without network and signatures. A command's life is four writes,
// enqueue, claim, accepted and result, each on the disk before the next begins.
func (b *bench) durableStore(ctx context.Context) ([]figure, error) {
	grouped := figure{what: "commands a second, 200 desktops, group commit", unit: "/s", goal: atLeast(2000)}
	single := figure{what: "baseline: the same with one fsync for each write", unit: "/s"}
	ratio := figure{what: "group commit over one fsync each", unit: "×", goal: atLeast(5)}
	bare := figure{what: "bare appends with fsync, one after another", unit: "/s"}
	cost := figure{what: "processor time of all that for each command, group commit", unit: "ms"}
	for range b.samples {
		before := ownCPU()
		g, err := storeSample(ctx, false)
		if err != nil {
			return nil, err
		}
		cost.samples = append(cost.samples, (ownCPU()-before).Seconds()*1000/(g*storeTime.Seconds()))
		s, err := storeSample(ctx, true)
		if err != nil {
			return nil, err
		}
		m, err := lookAround()
		if err != nil {
			return nil, err
		}
		grouped.samples, single.samples = append(grouped.samples, g), append(single.samples, s)
		ratio.samples, bare.samples = append(ratio.samples, g/s), append(bare.samples, 1000/m.p50)
	}
	return []figure{grouped, ratio, cost, single, bare}, nil
}

// oneByOne is a store whose writers never share a transaction.
type oneByOne struct {
	*sqlite.Store
	mu sync.Mutex
}

func (s *oneByOne) Update(ctx context.Context, fn func(mailbox.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Update(ctx, fn)
}

// storeSample counts whole lives of commands a second.
func storeSample(ctx context.Context, alone bool) (float64, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	s, err := sqlite.Open(ctx, filepath.Join(dir, "broker.db"))
	if err != nil {
		return 0, err
	}
	defer s.Close() //nolint:errcheck // scratch
	var store mailbox.Store = s
	if alone {
		store = &oneByOne{Store: s}
	}
	rows := make([]*row, desks)
	for i := range rows {
		if rows[i], err = newRow(ctx, mailbox.New(store, s.Waker())); err != nil {
			return 0, err
		}
	}
	var done atomic.Int64
	began := time.Now()
	err = each(desks, desks, func(i int) error {
		for time.Since(began) < storeTime {
			if err := rows[i].life(ctx); err != nil {
				return err
			}
			done.Add(1)
		}
		return nil
	})
	return float64(done.Load()) / time.Since(began).Seconds(), err
}

// row is one pairing with one surface at the mailbox.
type row struct {
	mail    *mailbox.Service
	pairing mailbox.PairingID
	surface mailbox.SurfaceID
	epoch   mailbox.Epoch
	seq     uint64
	prev    mailbox.Digest
}

func newRow(ctx context.Context, mail *mailbox.Service) (r *row, err error) {
	r = &row{mail: mail}
	rand.Read(r.pairing[:]) // never fails
	rand.Read(r.surface[:])
	if r.epoch, err = mail.Connect(ctx, r.pairing, audit.Source{}, time.Now()); err != nil {
		return nil, err
	}
	_, err = mail.Report(ctx, r.pairing, r.epoch, mailbox.Report{JournalID: []byte("journal")}, time.Now())
	return r, err
}

func (r *row) life(ctx context.Context) error {
	now, raw := time.Now(), make([]byte, envelope)
	r.seq++
	copy(raw, r.pairing[:])
	binary.BigEndian.PutUint64(raw[16:], r.seq)
	d := mailbox.Draft{
		Pairing: r.pairing, Surface: r.surface, Kind: proof.Prompt, Seq: r.seq, Prev: r.prev, Digest: sha256.Sum256(raw),
		IssuedAt: now, Expires: now.Add(time.Hour), Envelope: raw, Header: raw[:131], Signature: raw[:64],
	}
	r.prev = d.Digest
	by := mailbox.By{Actor: audit.Actor{Kind: audit.Surface, ID: r.surface.String(), Label: "phone"}, Source: audit.Source{IP: "192.0.2.1"}}
	if _, _, err := r.mail.Enqueue(ctx, d, by, now); err != nil {
		return err
	}
	c, _, err := r.mail.Claim(ctx, r.pairing, r.epoch, now)
	if err != nil {
		return err
	}
	if err := r.mail.Accepted(ctx, r.pairing, c.ID, c.Token, now); err != nil {
		return err
	}
	o := mailbox.Outcome{Command: c.ID, Token: c.Token, State: mailbox.Completed, Sealed: raw[:400]}
	return r.mail.Result(ctx, r.pairing, o, now)
}
