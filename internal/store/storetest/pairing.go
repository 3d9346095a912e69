package storetest

import (
	"errors"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
	"github.com/google/go-cmp/cmp"
)

// line is one of pkg/pairing's, in clear.
func line(t audit.Type) wire.AuditLine {
	return wire.AuditLine{
		V: wire.AuditVersion, Time: "2026-03-01T12:00:00.000Z", Type: string(t), Outcome: "success",
		Actor: wire.AuditActor{Kind: "desktop", Label: "host"}, Source: wire.AuditSource{IP: "192.0.2.9"},
	}
}

func wantErr(t testing.TB, err error, want *pairing.Error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func same[T any](t testing.TB, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("read back differs (-want +got):\n%s", d)
	}
}

func (f *fixture) aPairing() pairing.Pairing {
	return pairing.Pairing{
		ID: f.pairing, Dsig: proof.SigKey{1}, Host: "host", State: pairing.Active, Sealed: true, Executor: "echo",
		Versions: proof.Versions{1}, Kinds: []string{"prompt"}, Bundle: []byte("bundle"), BundleNo: 3, Created: f.now, Seen: f.now,
	}
}

func (f *fixture) aSurface() pairing.Surface {
	return pairing.Surface{
		ID: f.surface, Pairing: f.pairing, Ssig: proof.SigKey{2}, Label: "phone", Scopes: proof.Scopes{proof.ScopeObserve, proof.ScopePrompt},
		Serial: 4, Grant: []byte("grant"), NotAfter: f.now.Add(90 * life), Created: f.now, Used: f.now,
	}
}

// enrol puts the fixture's pairing into the store, by the only way in.
func (f *fixture) enrol() pairing.Pairing {
	f.Helper()
	c := pairing.CodeRecord{ID: f.pairing.String(), Selector: f.pairing.String(), Created: f.now, Expires: f.now.Add(time.Hour)}
	f.must(f.b.IssueCode(ctx(), c, line(audit.CodeIssued)))
	p := f.aPairing()
	f.must(f.b.RedeemCode(ctx(), c.ID, proof.Digest{5}, p, f.now, line(audit.CodeRedeemed), line(audit.PairingEnrolled)))
	return p
}

// link puts the fixture's surface into the store, by the only way in.
func (f *fixture) link() pairing.Surface {
	f.Helper()
	l := f.aLink()
	f.must(f.b.OpenLink(ctx(), l, line(audit.LinkOpened)))
	done, s := l, f.aSurface()
	done.State, done.Surface = proof.LinkDone, f.surface
	f.must(f.b.MoveLink(ctx(), l.State, l.Tries, done, &s, proof.SurfaceID{}, f.now, line(audit.SurfaceLinked)))
	return s
}

func testCodes(t *testing.T, open Open) {
	f := newFixture(t, open)
	c := pairing.CodeRecord{
		ID: "code_1", Selector: "BCDF", MAC: proof.Digest{1}, Note: "for Anna", Created: f.now, Expires: f.now.Add(time.Hour),
	}
	f.must(f.b.IssueCode(ctx(), c, line(audit.CodeIssued)))
	twin := c
	twin.ID = "code_2"
	mark := f.mark()
	wantErr(t, f.b.IssueCode(ctx(), twin, line(audit.CodeIssued)), pairing.ErrConflict)
	if n := len(f.since(mark)); n != 0 {
		t.Error("a refused change left a line")
	}
	got, err := f.b.CodeBySelector(ctx(), "BCDF")
	f.must(err)
	same(t, got, c)
	_, err = f.b.CodeBySelector(ctx(), "XXXX")
	wantErr(t, err, pairing.ErrNotFound)

	for range pairing.MaxTries + 2 {
		f.must(f.b.RefuseCode(ctx(), c.ID, f.now, line(audit.CodeRefused), line(audit.CodeBurned)))
	}
	f.must(f.b.RefuseCode(ctx(), "", f.now, line(audit.CodeRefused), line(audit.CodeBurned)))
	if n := f.since(mark); n[audit.CodeRefused] != pairing.MaxTries+3 || n[audit.CodeBurned] != 1 {
		t.Errorf("lines %v", n)
	}
	got, err = f.b.CodeBySelector(ctx(), "BCDF")
	if err != nil || got.State(f.now) != "burned" || got.Tries != pairing.MaxTries {
		t.Errorf("after wrong tries: %s, %d, %v", got.State(f.now), got.Tries, err)
	}
	wantErr(t, f.b.RevokeCode(ctx(), c.ID, f.now, line(audit.CodeRevoked)), pairing.ErrConflict)
	wantErr(t, f.b.RedeemCode(ctx(), c.ID, proof.Digest{5}, f.aPairing(), f.now), pairing.ErrConflict)

	p := f.enrol()
	got, err = f.b.CodeBySelector(ctx(), f.pairing.String())
	if err != nil || got.State(f.now) != "used" || got.Pairing != p.ID || got.Request != (proof.Digest{5}) || !got.Used.Equal(f.now) {
		t.Errorf("redeemed: %+v, %v", got, err)
	}
	late := pairing.CodeRecord{ID: "code_3", Selector: "late", Created: f.hours(1), Expires: f.hours(2)}
	f.must(f.b.IssueCode(ctx(), late, line(audit.CodeIssued)))
	wantErr(t, f.b.RedeemCode(ctx(), late.ID, proof.Digest{6}, p, f.hours(1)), pairing.ErrConflict) // a known pairing
	wantErr(t, f.b.RevokeCode(ctx(), late.ID, late.Expires, line(audit.CodeRevoked)), pairing.ErrConflict)
	f.must(f.b.RevokeCode(ctx(), late.ID, f.hours(1), line(audit.CodeRevoked)))
	all, err := f.b.Codes(ctx())
	if err != nil || len(all) != 3 || all[0].ID != late.ID || all[0].State(f.hours(1)) != "revoked" {
		t.Errorf("all codes: %+v, %v", all, err)
	}
}

func testPairings(t *testing.T, open Open) {
	f := newFixture(t, open)
	_, err := f.b.Pairing(ctx(), f.pairing)
	wantErr(t, err, pairing.ErrNotFound)
	p := f.enrol()
	f.reopen()
	got, err := f.b.Pairing(ctx(), f.pairing)
	f.must(err)
	same(t, got, p)

	wantErr(t, f.b.PutBundle(ctx(), p.ID, 3, []byte("again"), line(audit.BundlePublished)), pairing.ErrConflict)
	f.must(f.b.PutBundle(ctx(), p.ID, 4, []byte("newer"), line(audit.BundlePublished)))
	f.must(f.b.SeePairing(ctx(), p.ID, "opencode", []string{"prompt", "history"}, f.hours(1)))
	wantErr(t, f.b.SeePairing(ctx(), number(), "opencode", nil, f.now), pairing.ErrNotFound)
	p.Bundle, p.BundleNo, p.Executor, p.Kinds, p.Seen = []byte("newer"), 4, "opencode", []string{"prompt", "history"}, f.hours(1)

	move := func(from, to pairing.State, typ audit.Type) error {
		return f.b.MovePairing(ctx(), p.ID, from, to, "reason", f.now, line(typ))
	}
	f.must(move(pairing.Active, pairing.Locked, audit.PairingLocked))
	wantErr(t, move(pairing.Active, pairing.Locked, audit.PairingLocked), pairing.ErrConflict)
	p.State, p.Reason = pairing.Locked, "reason"
	got, err = f.b.Pairing(ctx(), f.pairing)
	f.must(err)
	same(t, got, p)

	c := f.post() // its end closes the mailbox, in the same transaction
	f.relink()
	mark := f.mark()
	f.must(move(pairing.Locked, pairing.Ended, audit.PairingRevoked))
	f.wantState(c.ID, mailbox.Cancelled)
	if n := f.since(mark); n[audit.PairingRevoked] != 1 || n[audit.CommandEnded] != 1 {
		t.Errorf("lines %v", n)
	}
	_, _, err = f.s.Enqueue(ctx(), f.draft(), f.by(), f.now)
	f.wantCode(err, mailbox.Closed)
	_, err = f.s.Connect(ctx(), f.pairing, audit.Source{}, f.now)
	f.wantCode(err, mailbox.Closed)
	_, _, err = f.s.Claim(ctx(), f.pairing, f.epoch, f.now)
	f.wantCode(err, mailbox.Closed)

	first := f.pairing
	f.fresh()
	f.now = f.hours(1)
	f.enrol()
	all, err := f.b.Pairings(ctx())
	if err != nil || len(all) != 2 || all[0].ID != f.pairing || all[1].ID != first {
		t.Errorf("all pairings: %+v, %v", all, err)
	}
}

func testSurfaces(t *testing.T, open Open) {
	f := newFixture(t, open)
	f.enrol()
	wantErr(t, f.b.PutSurface(ctx(), f.aSurface(), line(audit.SurfaceRenewed)), pairing.ErrNotFound)
	s := f.link()
	got, err := f.b.Surface(ctx(), f.pairing, f.surface)
	f.must(err)
	same(t, got, s)
	_, err = f.b.Surface(ctx(), number(), f.surface)
	wantErr(t, err, pairing.ErrNotFound)

	wantErr(t, f.b.PutSurface(ctx(), s, line(audit.SurfaceRenewed)), pairing.ErrConflict) // the same serial
	s.Serial, s.Scopes, s.Grant, s.NotAfter, s.Label = 5, proof.Scopes{proof.ScopeObserve}, []byte("renewed"), f.hours(9), "tablet"
	f.must(f.b.PutSurface(ctx(), s, line(audit.SurfaceRenewed)))
	f.must(f.b.TouchSurface(ctx(), f.pairing, f.surface, f.hours(1), line(audit.SurfaceSignedIn)))
	s.Used = f.hours(1)
	f.must(f.b.NoteSurface(ctx(), line(audit.SurfaceRefused)))

	waits := f.post()
	held := f.bring(mailbox.Accepted) // claims the one before it
	mark := f.mark()
	f.must(f.b.RevokeSurface(ctx(), f.pairing, f.surface, "lost", f.hours(2), line(audit.SurfaceRevoked)))
	s.Revoked, s.Reason = f.hours(2), "lost"
	if n := f.since(mark)[audit.SurfaceRevoked]; n != 1 {
		t.Errorf("%d lines of the revocation", n)
	}
	all, err := f.b.Surfaces(ctx(), f.pairing)
	f.must(err)
	same(t, all, []pairing.Surface{s})
	for _, c := range []mailbox.Command{waits, held} {
		if got := f.get(c.ID); got.State != mailbox.Cancelled && got.Stop != mailbox.StopCancel {
			t.Errorf("a command of a revoked surface: %s, stop %d", got.State, got.Stop)
		}
	}
	_, _, err = f.s.Enqueue(ctx(), f.draft(), f.by(), f.now)
	f.wantCode(err, mailbox.Closed)
	s.Serial = 6
	wantErr(t, f.b.RevokeSurface(ctx(), f.pairing, f.surface, "again", f.hours(3), line(audit.SurfaceRevoked)), pairing.ErrConflict)
	wantErr(t, f.b.RevokeSurface(ctx(), f.pairing, number(), "who", f.hours(3), line(audit.SurfaceRevoked)), pairing.ErrNotFound)
	wantErr(t, f.b.PutSurface(ctx(), s, line(audit.SurfaceRenewed)), pairing.ErrConflict)
	wantErr(t, f.b.TouchSurface(ctx(), f.pairing, f.surface, f.hours(3), line(audit.SurfaceSignedIn)), pairing.ErrConflict)
}
