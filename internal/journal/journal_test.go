package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

var (
	t0      = time.UnixMilli(1_800_000_000_000)
	pairing = proof.PairingID{1}
	phone   = proof.SurfaceID{2}
)

// fixture is a journal on the disk that can be closed and opened again.
type fixture struct {
	*Journal
	t    *testing.T
	path string
}

func open(t *testing.T) *fixture {
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "journal.db")}
	f.reopen("machine-a")
	t.Cleanup(func() { f.Close() })
	return f
}

func (f *fixture) reopen(machine string) {
	f.t.Helper()
	if f.Journal != nil {
		if err := f.Close(); err != nil {
			f.t.Fatal(err)
		}
	}
	j, err := Open(f.t.Context(), Options{Path: f.path, Machine: machine, Now: t0})
	if err != nil {
		f.t.Fatal(err)
	}
	f.Journal = j
}

// do records changes under one line and wants success.
func (f *fixture) do(changes ...Change) {
	f.t.Helper()
	if err := f.try(changes...); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) try(changes ...Change) error {
	return f.Record(f.t.Context(), t0, []Line{{Type: audit.CommandReceived, Pairing: pairing.String()}}, changes...)
}

func (f *fixture) withPairing() *fixture {
	f.do(PutPairing(Pairing{ID: pairing, BrokerURL: "https://b", BrokerKey: proof.SigKey{3}, PageOrigin: "https://p", Host: "desk", Enrolled: t0, Policy: []byte("{}")}))
	return f
}

func (f *fixture) withSurface() *fixture {
	f.withPairing()
	f.do(PutSurface(Surface{Pairing: pairing, ID: phone, Label: "phone", Scopes: proof.ScopesUpTo(proof.ScopePrompt), Ssig: proof.SigKey{4}, Skem: proof.KemKey{5}, Grant: []byte("g"), Serial: 1, Issued: t0, NotAfter: t0.Add(time.Hour)}))
	return f
}

func (f *fixture) lines() int {
	f.t.Helper()
	n, err := f.LastAudit(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return int(n)
}

func (f *fixture) surface() Surface {
	f.t.Helper()
	s, err := f.Surface(f.t.Context(), pairing, phone)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// row is the seq-th envelope of the phone; envelope n has the hash {n} and follows {n-1}.
func row(n byte) Row {
	return Row{
		Pairing: pairing, Command: "cmd_" + string('a'+rune(n)), Envelope: proof.Digest{n}, Sequence: uint64(n) + 10, Surface: phone,
		Kind: "prompt", Seq: uint64(n), Prev: proof.Digest{n - 1}, Commit: proof.Digest{9}, IssuedAt: t0, Expires: t0.Add(time.Hour),
		State: Received, Exec: wire.ExecCommand{ID: "x", Kind: "prompt", Text: "secret text"}, Received: t0,
	}
}

func TestIdentityAndCounter(t *testing.T) {
	f := open(t)
	first := f.Meta()
	if !first.New || first.Counter != 1 || first.Machine != "machine-a" || first.ID == (ID{}) {
		t.Fatalf("first start: %+v", first)
	}
	f.reopen("machine-b")
	second := f.Meta()
	if second.New || second.Counter != 2 || second.ID != first.ID || second.Machine != "machine-a" {
		t.Fatalf("second start: %+v", second)
	}
	if err := f.Adopt(t.Context(), t0, "machine-b", nil); !errors.Is(err, ErrNoLine) {
		t.Fatalf("adopt without a line: %v", err)
	}
	if err := f.Adopt(t.Context(), t0, "machine-b", []Line{{Type: audit.PairingRecovered}}); err != nil {
		t.Fatal(err)
	}
	adopted := f.Meta()
	if f.reopen("machine-b"); f.Meta().Machine != "machine-b" || f.Meta().ID == first.ID || f.Meta().ID != adopted.ID {
		t.Fatalf("after adopt: %+v", f.Meta())
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	f := open(t)
	_, err := Open(t.Context(), Options{Path: f.path, Machine: "machine-a", Now: t0})
	if !errors.Is(err, sqlitedb.ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
}

// A change is there if and only if its line is.
func TestNoLineNoChange(t *testing.T) {
	f := open(t).withSurface()
	before := f.lines()
	change := RevokeSurface(pairing, phone, t0, "desktop")
	if err := f.Record(t.Context(), t0, nil, change); !errors.Is(err, ErrNoLine) {
		t.Fatalf("without a line: %v", err)
	}
	if err := f.Record(t.Context(), t0, []Line{{Type: "no.such.type"}}, change); err == nil {
		t.Fatal("a line that cannot be written was taken")
	}
	if !f.surface().Revoked.IsZero() || f.lines() != before {
		t.Fatal("the change was made although its line was not")
	}
	if err := f.try(change, MoveLink(LinkSession{Pairing: pairing}, "open")); !errors.Is(err, ErrState) {
		t.Fatalf("second change fails: %v", err)
	}
	if !f.surface().Revoked.IsZero() || f.lines() != before {
		t.Fatal("half of a Record stayed")
	}
	f.do(change)
	if f.surface().Revoked.IsZero() || f.lines() != before+1 {
		t.Fatal("the change was not made")
	}
}

func TestChain(t *testing.T) {
	f := open(t).withSurface()
	f.do(Receive(row(1)))
	if s := f.surface(); s.LastSeq != 1 || s.LastHash != (proof.Digest{1}) || !s.LastUse.Equal(t0) {
		t.Fatalf("chain after 1: %+v", s)
	}
	wrongPrev := row(2)
	wrongPrev.Prev = proof.Digest{7}
	for name, r := range map[string]Row{"gap": row(3), "wrong prev": wrongPrev} {
		if err := f.try(Receive(r)); !errors.Is(err, ErrChain) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := f.try(Receive(row(1))); !errors.Is(err, ErrDuplicate) {
		t.Errorf("the same envelope again: %v", err)
	}
	f.do(Skip(row(2)))
	f.do(Receive(row(3)))
	refused := row(5)
	refused.Verdict, refused.Reason = wire.StateFailed, "out_of_order"
	f.do(Refuse(refused))
	f.do(Receive(row(6)))
	if s := f.surface(); s.LastSeq != 6 {
		t.Fatalf("chain after a refused gap: %+v", s)
	}
	late := row(4)
	late.Verdict = wire.StateFailed
	f.do(Refuse(late))
	if s := f.surface(); s.LastSeq != 6 || s.LastHash != (proof.Digest{6}) {
		t.Fatalf("a late envelope moved the chain back: %+v", s)
	}
}

func TestResyncTakesOneHeaderAsItIs(t *testing.T) {
	f := open(t).withSurface()
	f.do(ResyncSurfaces(pairing))
	f.do(Receive(row(40)))
	if err := f.try(Receive(row(60))); !errors.Is(err, ErrChain) {
		t.Fatalf("a second jump: %v", err)
	}
	f.do(Receive(row(41)))
}

func TestCommandLife(t *testing.T) {
	f := open(t).withSurface()
	ctx := t.Context()
	f.do(Receive(row(1)))
	r, err := f.Command(ctx, pairing, row(1).Command)
	if err != nil || r.Exec.Text != "secret text" || r.State != Received {
		t.Fatalf("received: %+v %v", r, err)
	}
	f.do(Await(r.ID))
	if err := f.try(Start(r.ID, "ref", 1, t0)); !errors.Is(err, ErrState) {
		t.Fatalf("start of a waiting one: %v", err)
	}
	f.do(Confirm(r.ID))
	f.do(Start(r.ID, "ref", f.Meta().Counter, t0))
	for name, c := range map[string]Change{
		"start twice": Start(r.ID, "ref2", 1, t0), "stop": Finish(r.ID, Received, End{Verdict: wire.StateCancelled, At: t0}),
		"again without having looked": StartAgain(r.ID, t0.Add(time.Second), f.Meta().Counter, t0), "await": Await(r.ID), "confirm": Confirm(r.ID),
	} {
		if err := f.try(c); !errors.Is(err, ErrState) {
			t.Errorf("%s of a started one: %v", name, err)
		}
	}
	f.reopen("machine-a")
	f.do(StartAgain(r.ID, t0, f.Meta().Counter, t0.Add(time.Second)))
	r, err = f.Command(ctx, pairing, r.Command)
	if err != nil || r.Exec.Ref != "ref" || !r.Exec.StartedAt.Equal(t0.Add(time.Second)) || !r.Confirmed || r.Run != 2 {
		t.Fatalf("started again: %+v %v", r, err)
	}
	f.do(Finish(r.ID, Started, End{Verdict: wire.StateCompleted, Result: []byte("sealed"), At: t0}), CountRecovered())
	r, err = f.Envelope(ctx, pairing, proof.Digest{1})
	if err != nil || r.State != Done || r.Exec.Text != "" || string(r.Result) != "sealed" || r.Durable {
		t.Fatalf("done: %+v %v", r, err)
	}
	if n, err := f.Recovered(ctx); n != 1 || err != nil {
		t.Fatalf("recovered: %d %v", n, err)
	}
	if err := f.Settled(ctx, pairing, r.Command, "cmd_unknown"); err != nil {
		t.Fatal(err)
	}
	if rows, err := f.Rows(ctx, pairing); len(rows) != 0 || err != nil {
		t.Fatalf("open rows: %v %v", rows, err)
	}
}

func TestSettledNeedsDone(t *testing.T) {
	f := open(t).withSurface()
	f.do(Receive(row(1)))
	if err := f.Settled(t.Context(), pairing, row(1).Command); err != nil {
		t.Fatal(err)
	}
	if rows, _ := f.Rows(t.Context(), pairing); len(rows) != 1 {
		t.Fatal("a command that has not ended was settled")
	}
}

func TestTombstoneKeepsACommandOut(t *testing.T) {
	f := open(t).withSurface()
	f.do(Tombstone(pairing, row(1).Command, End{Verdict: wire.StateCancelled, Reason: "stopped", At: t0}))
	if err := f.try(Receive(row(1))); !errors.Is(err, ErrDuplicate) {
		t.Fatalf("delivery after a tombstone: %v", err)
	}
	if f.surface().LastSeq != 0 {
		t.Fatal("the chain moved although the row was refused")
	}
	f.do(Bind(row(1)))
	if r, err := f.Envelope(t.Context(), pairing, proof.Digest{1}); err != nil || r.Verdict != wire.StateCancelled || f.surface().LastSeq != 1 {
		t.Fatalf("bound: %+v %v", r, err)
	}
	if err := f.try(Bind(row(1))); !errors.Is(err, ErrState) {
		t.Fatalf("bound twice: %v", err)
	}
	if err := f.try(Tombstone(pairing, row(1).Command, End{At: t0})); !errors.Is(err, ErrDuplicate) {
		t.Fatalf("second tombstone: %v", err)
	}
}

func TestRename(t *testing.T) {
	f := open(t).withSurface()
	f.do(Receive(row(1)))
	r, _ := f.Envelope(t.Context(), pairing, proof.Digest{1})
	if err := f.Rename(t.Context(), pairing, r.ID, "cmd_new", 99, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Command(t.Context(), pairing, "cmd_new"); err != nil || got.ID != r.ID {
		t.Fatalf("renamed: %+v %v", got, err)
	}
	if p, _ := f.Pairing(t.Context(), pairing); p.HighWater != 99 {
		t.Fatalf("high water %d", p.HighWater)
	}
}

func TestHighWaterNeverFalls(t *testing.T) {
	f := open(t).withSurface()
	f.do(Receive(row(3 - 2)))
	low := row(2)
	low.Sequence = 3
	f.do(Receive(low))
	if p, err := f.Pairing(t.Context(), pairing); err != nil || p.HighWater != 11 {
		t.Fatalf("high water %d, %v", p.HighWater, err)
	}
}

func TestRevokedSurfaceNeverComesBack(t *testing.T) {
	f := open(t).withSurface()
	s := f.surface()
	s.Serial, s.NotAfter = 2, t0.Add(2*time.Hour)
	f.do(PutSurface(s))
	if got := f.surface(); got.Serial != 2 || !got.NotAfter.Equal(s.NotAfter) {
		t.Fatalf("renewed: %+v", got)
	}
	s.Serial = 1
	if err := f.try(PutSurface(s)); !errors.Is(err, ErrState) {
		t.Fatalf("lower serial: %v", err)
	}
	f.do(RevokeSurface(pairing, phone, t0, "desktop"))
	s.Serial = 9
	if err := f.try(PutSurface(s)); !errors.Is(err, ErrState) {
		t.Fatalf("revoked id again: %v", err)
	}
	if n, err := f.HighestSerial(t.Context(), pairing); n != 2 || err != nil {
		t.Fatalf("highest serial %d %v", n, err)
	}
	if got := f.surface(); got.Linked(t0) || got.RevokedBy != "desktop" {
		t.Fatalf("revoked: %+v", got)
	}
}

func TestPairingLife(t *testing.T) {
	f := open(t).withPairing()
	ctx := t.Context()
	f.do(SetPolicy(pairing, []byte(`{"a":1}`)))
	f.do(LockPairing(pairing, "journal_changed"))
	p, err := f.Pairing(ctx, pairing)
	if err != nil || p.Live() || p.PolicyVersion != 2 || string(p.Policy) != `{"a":1}` || p.BrokerKey != (proof.SigKey{3}) {
		t.Fatalf("%+v %v", p, err)
	}
	if err := f.try(LockPairing(pairing, "journal_changed")); !errors.Is(err, ErrState) {
		t.Fatalf("locked twice: %v", err)
	}
	f.do(UnlockPairing(pairing))
	f.withPairing() // the same enrolment answered again
	if p, _ = f.Pairing(ctx, pairing); !p.Live() || p.PolicyVersion != 2 {
		t.Fatalf("%+v", p)
	}
	f.do(RevokePairing(pairing, t0, "operator"))
	if err := f.try(RevokePairing(pairing, t0, "operator")); !errors.Is(err, ErrState) {
		t.Fatalf("revoked twice: %v", err)
	}
	if err := f.PairingTold(ctx, pairing); err != nil {
		t.Fatal(err)
	}
	all, err := f.Pairings(ctx)
	if err != nil || len(all) != 1 || all[0].Live() || all[0].RevokedBy != "operator" || !all[0].Told {
		t.Fatalf("%+v %v", all, err)
	}
	if _, err := f.Pairing(ctx, proof.PairingID{9}); !errors.Is(err, ErrState) {
		t.Fatalf("unknown pairing: %v", err)
	}
}

func TestLinkSessions(t *testing.T) {
	f := open(t).withPairing()
	ctx := t.Context()
	s := LinkSession{Pairing: pairing, Pid: proof.LinkID{1}, Mode: "link", State: "open", Decide: true, Opened: t0, Expires: t0.Add(time.Minute)}
	f.do(OpenLink(s))
	s.State, s.Label, s.Network = "claimed", "phone", "192.0.2.1"
	f.do(MoveLink(s, "open"))
	if err := f.try(MoveLink(s, "open")); !errors.Is(err, ErrState) {
		t.Fatalf("claimed twice: %v", err)
	}
	live, err := f.LiveLinks(ctx, pairing)
	if err != nil || len(live) != 1 || live[0] != s {
		t.Fatalf("live: %+v %v", live, err)
	}
	s.State, s.Reason = "burned", "digits"
	f.do(MoveLink(s, "claimed"))
	if live, _ = f.LiveLinks(ctx, pairing); len(live) != 0 {
		t.Fatalf("live after the end: %+v", live)
	}
	if n, _ := f.LinksSince(ctx, pairing, t0.Add(-time.Second)); n != 1 {
		t.Fatalf("since: %d", n)
	}
	if n, _ := f.LinksSince(ctx, pairing, t0); n != 0 {
		t.Fatalf("since now: %d", n)
	}
}

func TestOneDecisionWins(t *testing.T) {
	f := open(t).withSurface()
	ctx := t.Context()
	q := Request{Pairing: pairing, ID: "per_1", Session: "ses_1", Kind: "permission", Bytes: []byte("{}"), Exec: wire.ExecRequest{ID: "per_1", CallID: "call", Exact: []byte("{}")}, Digest: proof.Digest{7}, Ref: []byte{1}, Opened: t0}
	f.do(OpenRequest(q))
	if err := f.try(OpenRequest(q)); !errors.Is(err, ErrDuplicate) {
		t.Fatalf("opened twice: %v", err)
	}
	if err := f.try(ClaimRequest(pairing, q.ID, proof.Digest{8}, proof.Digest{1}, "phone")); !errors.Is(err, ErrState) {
		t.Fatalf("another digest: %v", err)
	}
	if p, err := f.PendingRequests(ctx); err != nil || len(p) != 1 || p[0].CallID != "call" {
		t.Fatalf("pending: %+v %v", p, err)
	}
	f.do(ClaimRequest(pairing, q.ID, q.Digest, proof.Digest{1}, "phone"))
	f.do(ClaimRequest(pairing, q.ID, q.Digest, proof.Digest{1}, "phone")) // the same decision after a crash
	if err := f.try(ClaimRequest(pairing, q.ID, q.Digest, proof.Digest{2}, "tablet")); !errors.Is(err, ErrState) {
		t.Fatalf("second surface: %v", err)
	}
	f.do(ReleaseRequest(pairing, q.ID, proof.Digest{1}))
	f.do(ClaimRequest(pairing, q.ID, q.Digest, proof.Digest{2}, "tablet"))
	f.do(CloseRequest(pairing, q.ID, "allowed", Desk, t0))
	got, err := f.Request(ctx, pairing, q.ID)
	if err != nil || got.DecidedBy != "tablet" || got.Outcome != "allowed" || got.Closed.IsZero() {
		t.Fatalf("%+v %v", got, err)
	}
	if err := f.try(CloseRequest(pairing, q.ID, "denied", Desk, t0)); !errors.Is(err, ErrState) {
		t.Fatalf("closed twice: %v", err)
	}
	if all, _ := f.OpenRequests(ctx, pairing); len(all) != 0 {
		t.Fatalf("open: %+v", all)
	}
}

func TestOutbox(t *testing.T) {
	f := open(t).withPairing()
	ctx := t.Context()
	e1, e2 := proof.EpochID{1}, proof.EpochID{2}
	for i, e := range []proof.EpochID{e1, e1, e2, e2} {
		b := Batch{Epoch: e, Seq: uint64(i + 1), Class: "text", Bytes: []byte{byte(i)}}
		if err := f.AppendBatch(ctx, pairing, b, t0); err != nil {
			t.Fatal(err)
		}
	}
	f.reopen("machine-a")
	if got, _ := f.Batches(ctx, pairing, 10); len(got) != 4 || got[3].Epoch != e2 || got[3].Seq != 4 {
		t.Fatalf("%+v", got)
	}
	if got, _ := f.BatchesAfter(ctx, pairing, e1, 2, 1); len(got) != 1 || got[0].Seq != 3 {
		t.Fatalf("after 2: %+v", got)
	}
	if got, _ := f.BatchesAfter(ctx, pairing, e1, 77, 10); len(got) != 4 {
		t.Fatalf("after an unknown one: %+v", got)
	}
	if err := f.ConfirmBatches(ctx, pairing, e1, 77); err != nil {
		t.Fatal(err)
	}
	if n, _ := f.OutboxSize(ctx, pairing); n != 4 {
		t.Fatalf("an unknown confirmation dropped %d", 4-n)
	}
	if err := f.ConfirmBatches(ctx, pairing, e2, 3); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.Batches(ctx, pairing, 10); len(got) != 1 || got[0].Seq != 4 {
		t.Fatalf("%+v", got)
	}
}

func TestOutboxIsBounded(t *testing.T) {
	f := open(t).withPairing()
	err := f.db.Write(t.Context(), func(tx *sqlitedb.Tx) error {
		for i := range MaxOutbox {
			if _, err := tx.Exec(`INSERT INTO outbox (pairing, epoch, seq, class, batch, at) VALUES (?, x'01', ?, '', x'', 0)`, pairing.String(), i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := f.OutboxSize(t.Context(), pairing); n != MaxOutbox {
		t.Fatalf("%d", n)
	}
	if err := f.AppendBatch(t.Context(), pairing, Batch{Epoch: proof.EpochID{9}, Seq: 1}, t0); err != nil {
		t.Fatal(err)
	}
	got, err := f.Batches(t.Context(), pairing, MaxOutbox+1)
	if err != nil || len(got) != MaxOutbox || got[0].Seq != 1 || got[MaxOutbox-1].Epoch != (proof.EpochID{9}) {
		t.Fatalf("%d batches, first %+v, %v", len(got), got[0], err)
	}
}

func TestEpochAnnouncements(t *testing.T) {
	f := open(t).withPairing()
	ctx := t.Context()
	for i := range 2 {
		a := Announcement{Epoch: proof.EpochID{byte(i)}, Frame: []byte{byte(i)}}
		if err := f.Record(ctx, t0, []Line{{Type: audit.EpochBegun, Pairing: pairing.String()}}, BeginEpoch(pairing, a)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.ConfirmEpoch(ctx, pairing, proof.EpochID{0}); err != nil {
		t.Fatal(err)
	}
	got, err := f.Epochs(ctx, pairing)
	if err != nil || len(got) != 1 || got[0].Epoch != (proof.EpochID{1}) {
		t.Fatalf("%+v %v", got, err)
	}
	if last, err := f.LastEpoch(ctx, pairing); err != nil || last != (proof.EpochID{1}) {
		t.Fatalf("the last epoch is %v, %v", last, err)
	}
}

func TestAuditLinesHideAndPrune(t *testing.T) {
	f := open(t).withPairing()
	ctx := context.Background()
	line := Line{Type: audit.SurfaceLinked, Pairing: pairing.String(), Actor: audit.Actor{Kind: audit.Surface, Label: "my phone"}}
	if err := f.Record(ctx, t0.Add(time.Hour), []Line{line}, UnlockPairing(pairing)); err != nil {
		t.Fatal(err)
	}
	entries, err := f.Audit(ctx, 1, 10)
	if err != nil || len(entries) != 1 || entries[0].Seq != 2 {
		t.Fatalf("%+v %v", entries, err)
	}
	var got wire.AuditLine
	if err := json.Unmarshal(entries[0].Line, &got); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(entries[0].Line, []byte("my phone")) || entries[0].Values[got.Actor.Label] != "my phone" || got.PolicyVersion != 1 {
		t.Fatalf("line %s values %v", entries[0].Line, entries[0].Values)
	}
	if !f.LastTime().Equal(t0.Add(time.Hour)) {
		t.Fatalf("last time %v", f.LastTime())
	}
	if err := f.Prune(ctx, t0.Add(KeepAudit+2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if entries, _ = f.Audit(ctx, 0, 10); len(entries) != 1 || entries[0].Seq != 2 {
		t.Fatalf("after pruning: %+v", entries)
	}
	f.do(UnlockPairing(pairing))
	if f.lines() != 3 {
		t.Fatalf("numbers went on at %d", f.lines())
	}
	f.reopen("machine-a")
	if !f.LastTime().Equal(t0.Add(time.Hour)) {
		t.Fatalf("last time after a start %v", f.LastTime())
	}
}

func TestTurns(t *testing.T) {
	f := open(t).withSurface()
	ctx := t.Context()
	f.do(BeginTurn(Turn{Ref: "msg_1", Session: "ses_1", Pairing: pairing, Envelope: proof.Digest{1}, Started: t0}))
	f.do(BeginTurn(Turn{Ref: "msg_2", Session: "ses_1", Started: t0}))
	if err := f.NoteTurn(ctx, Turn{Ref: "msg_1", Session: "ses_1", Started: t0.Add(time.Second)}); err != nil {
		t.Fatal(err)
	}
	f.do(BeginTurn(Turn{Ref: "msg_3", Session: "ses_1", Started: t0}), DropTurn("msg_3"))
	if got, err := f.Turn(ctx, "msg_1"); err != nil || got.Envelope != (proof.Digest{1}) || got.Pairing != pairing {
		t.Fatalf("%+v %v", got, err)
	}
	f.do(EndTurn("msg_1", wire.OutcomeDone, t0))
	if err := f.try(EndTurn("msg_1", wire.OutcomeError, t0)); !errors.Is(err, ErrState) {
		t.Fatalf("ended twice: %v", err)
	}
	open, err := f.OpenTurns(ctx)
	if err != nil || len(open) != 1 || open[0] != (wire.ExecTurn{SessionID: "ses_1", Ref: "msg_2"}) {
		t.Fatalf("%+v %v", open, err)
	}
}
