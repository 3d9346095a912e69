package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/internal/store/storetest"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/wire"
)

func open(t testing.TB, dir string) storetest.Backend {
	s, err := Open(t.Context(), filepath.Join(dir, "broker.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) { storetest.Run(t, open) }

// TestStatesInTheFile: the migration's comments and partial indexes count on these numbers.
func TestStatesInTheFile(t *testing.T) {
	for i, s := range []mailbox.State{
		mailbox.Queued, mailbox.Leased, mailbox.Accepted, mailbox.WaitingLocal, mailbox.Completed, mailbox.Failed,
		mailbox.Blocked, mailbox.Expired, mailbox.Cancelled, mailbox.OutcomeUnknown,
	} {
		if int(s) != i {
			t.Errorf("%s is %d in the file, and %d now", s, i, s)
		}
	}
	for i, s := range []mailbox.Stop{mailbox.StopNone, mailbox.StopCancel, mailbox.StopExpire, mailbox.StopAnswered} {
		if int(s) != i {
			t.Errorf("stop %d is %d now", i, s)
		}
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	if _, err := Open(t.Context(), filepath.Join(dir, "broker.db")); !errors.Is(err, sqlitedb.ErrLocked) {
		t.Errorf("a second owner: %v", err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	open(t, dir).Close()
}

func TestNewerStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir).(*Store)
	err := s.db.Write(t.Context(), func(tx *sqlitedb.Tx) error {
		_, err := tx.Exec("INSERT INTO goose_db_version (version_id, is_applied, tstamp) VALUES (99, 1, '2026-03-01 12:00:00')")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	_, err = Open(t.Context(), filepath.Join(dir, "broker.db"))
	if !errors.Is(err, sqlitedb.ErrNewerSchema) || strings.Contains(err.Error(), "\n") {
		t.Errorf("an older program: %v", err)
	}
}

// TestHotQueriesUseTheirIndexes: each of these runs for every command, batch or second, and a scan would be felt only
// in production.
func TestHotQueriesUseTheirIndexes(t *testing.T) {
	s := open(t, t.TempDir()).(*Store)
	defer s.Close()
	p := mailbox.PairingID{1}
	where := func(f mailbox.Filter) string {
		terms, _ := conditions(f)
		return "SELECT id FROM commands WHERE " + terms + " ORDER BY pairing, sequence LIMIT 1"
	}
	for name, q := range map[string]struct{ query, index string }{
		"next":     {"SELECT n FROM commands WHERE pairing = ? AND (state = 0 OR skip = 1) ORDER BY sequence LIMIT 1", "commands_next"},
		"open":     {where(mailbox.Filter{Pairing: p}), "commands_open"},
		"stops":    {where(mailbox.Filter{Pairing: p, StopAsked: true}), "commands_open"},
		"unknown":  {where(mailbox.Filter{Pairing: p, States: []mailbox.State{mailbox.OutcomeUnknown}, Unreported: true}), "commands_unknown"},
		"by id":    {"SELECT n FROM commands WHERE id = ? AND pairing = ?", "sqlite_autoindex_commands_1"},
		"digest":   {"SELECT n FROM commands WHERE pairing = ? AND digest = ?", "commands_digest"},
		"events":   {batchQuery + "WHERE event_batches.pairing = ? AND cursor > ? ORDER BY cursor LIMIT ?", "event_batches_cursor"},
		"requests": {batchQuery + "WHERE event_batches.pairing = ? AND open = 1 ORDER BY cursor LIMIT ?", "event_batches_open"},
		"by seq":   {batchQuery + "WHERE event_batches.epoch = ? AND seq = ?", "event_batches_seq"},
		"session":  {"SELECT pid FROM links WHERE session = ?", "links_session"},
	} {
		plan, err := planOf(s, q.query)
		if err != nil || !strings.Contains(plan, q.index+" ") || strings.Contains(plan, "SCAN") {
			t.Errorf("%s: %s, %v; want %s", name, plan, err, q.index)
		}
	}
}

func planOf(s *Store, query string) (plan string, err error) {
	args := make([]any, strings.Count(query, "?"))
	err = s.read(context.Background(), func(r reader) error {
		scan := func(r row) (string, error) {
			var id, parent, x int
			var detail string
			return detail, r.Scan(&id, &parent, &x, &detail)
		}
		steps, err := list(r.q, scan, "EXPLAIN QUERY PLAN "+query, args...)
		plan = strings.Join(steps, "; ")
		return err
	})
	return plan, err
}

func TestFullDiskSpeaksBothLanguages(t *testing.T) {
	err := mapError(fmt.Errorf("writing: %w", sqlitedb.ErrFull))
	if mailbox.CodeOf(err) != mailbox.Full || pairing.CodeOf(err) != wire.CodeFull {
		t.Errorf("%v is %d and %q", err, mailbox.CodeOf(err), pairing.CodeOf(err))
	}
}

func TestLogSubscription(t *testing.T) {
	s := open(t, t.TempDir()).(*Store)
	defer s.Close()
	hints, cancel := s.SubscribeLog()
	line := audit.Build(audit.Record{Type: audit.BrokerStarted, Time: time.Unix(1, 0), Actor: audit.Actor{Kind: audit.Broker}})
	for range 2 { // coalesced: a hint says "look", not how often
		if err := s.Append(t.Context(), line); err != nil {
			t.Fatal(err)
		}
	}
	<-hints
	select {
	case <-hints:
		t.Error("more than one hint is held")
	default:
	}
	cancel()
	cancel()
	if err := s.Append(t.Context(), line); err != nil || len(hints) != 0 {
		t.Errorf("a hint after the end, or %v", err)
	}
	if lines, next, err := s.Lines(t.Context(), 0, 10); err != nil || len(lines) != 3 || next != 3 {
		t.Errorf("%d lines, next %d, %v", len(lines), next, err)
	}
}

func TestWakerWakesOnlyItsPairing(t *testing.T) {
	w := newWaker()
	one, endOne := w.Subscribe(mailbox.PairingID{1})
	two, endTwo := w.Subscribe(mailbox.PairingID{2})
	also, endAlso := w.Subscribe(mailbox.PairingID{1})
	w.Wake(mailbox.PairingID{1})
	w.Wake(mailbox.PairingID{1})
	if len(one) != 1 || len(also) != 1 || len(two) != 0 {
		t.Errorf("hints: %d, %d, %d", len(one), len(also), len(two))
	}
	for _, end := range []func(){endOne, endTwo, endAlso, endOne} {
		end()
	}
	if len(w.subs) != 0 {
		t.Errorf("%d pairings are still remembered", len(w.subs))
	}
}

// TestWaitIsBounded: whoever asks for an hour gets MaxWait, and ends early with the caller.
func TestWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir()).(*Store)
		defer s.Close()
		service := mailbox.New(s, s.Waker())
		p, surface := mailbox.PairingID{1}, mailbox.SurfaceID{1}
		c, _, err := service.Enqueue(t.Context(), mailbox.Draft{
			Pairing: p, Surface: surface, Kind: 2, Seq: 1, Digest: mailbox.Digest{1}, Expires: time.Now().Add(time.Hour), Envelope: []byte("e"),
		}, mailbox.By{Actor: audit.Actor{Kind: audit.Surface}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if got, err := service.Wait(t.Context(), p, c.ID, time.Hour); err != nil || got.State != mailbox.Queued || time.Since(began) != mailbox.MaxWait {
			t.Errorf("waited %s, %s, %v", time.Since(began), got.State, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if got, err := service.Wait(ctx, p, c.ID, time.Hour); err != nil || got.State != mailbox.Queued || time.Since(began) != time.Second {
			t.Errorf("waited %s for a caller that left, %s, %v", time.Since(began), got.State, err)
		}
		done := make(chan time.Duration)
		began = time.Now()
		go func() {
			if got, err := service.Wait(t.Context(), p, c.ID, time.Hour); err != nil || got.State != mailbox.Cancelled {
				t.Errorf("woken to %s, %v", got.State, err)
			}
			done <- time.Since(began)
		}()
		synctest.Wait()
		if _, err := service.Cancel(t.Context(), p, surface, c.ID, mailbox.By{}, time.Now()); err != nil {
			t.Error(err)
		}
		if waited := <-done; waited != 0 {
			t.Errorf("woken after %s", waited)
		}
	})
}
