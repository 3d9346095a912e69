package storetest

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
)

// aLink is a new session of the fixture's pairing.
func (f *fixture) aLink() pairing.Link {
	n := number()
	return pairing.Link{
		Pid: proof.LinkID(n[8:]), Pairing: f.pairing, Mode: proof.ModeCode, Nameplate: "17", Check: proof.Digest{3},
		State: proof.LinkOpen, Opened: f.now, Expires: f.now.Add(3 * time.Minute),
	}
}

func testLinks(t *testing.T, open Open) {
	f := newFixture(t, open)
	f.enrol()
	l := f.aLink()
	f.must(f.b.OpenLink(ctx(), l, line(audit.LinkOpened)))
	got, err := f.b.Link(ctx(), l.Pid)
	f.must(err)
	same(t, got, l)

	second := f.aLink() // one live session per desktop
	second.Nameplate = "18"
	wantErr(t, f.b.OpenLink(ctx(), second, line(audit.LinkOpened)), pairing.ErrConflict)
	first := f.pairing
	f.fresh()
	f.enrol()
	taken := f.aLink() // the nameplate is taken while it lives
	wantErr(t, f.b.OpenLink(ctx(), taken, line(audit.LinkOpened)), pairing.ErrConflict)
	taken.Nameplate, taken.Mode = "", proof.ModeLink
	f.must(f.b.OpenLink(ctx(), taken, line(audit.LinkOpened)))
	again := l // a pid is never used twice
	again.Pairing = f.pairing
	wantErr(t, f.b.OpenLink(ctx(), again, line(audit.LinkOpened)), pairing.ErrConflict)
	if all, err := f.b.OpenLinks(ctx()); err != nil || len(all) != 2 || all[0].Pid != l.Pid {
		t.Errorf("live sessions: %+v, %v", all, err)
	}
	f.pairing = first

	for name, find := range map[string]func() (pairing.Link, error){
		"no such pid":       func() (pairing.Link, error) { return f.b.Link(ctx(), proof.LinkID{9}) },
		"no such nameplate": func() (pairing.Link, error) { return f.b.LinkByNameplate(ctx(), "99") },
		"no nameplate":      func() (pairing.Link, error) { return f.b.LinkByNameplate(ctx(), "") },
		"no such session":   func() (pairing.Link, error) { return f.b.LinkBySession(ctx(), proof.Digest{9}) },
		"unclaimed session": func() (pairing.Link, error) { return f.b.LinkBySession(ctx(), proof.Digest{}) },
	} {
		if _, err := find(); !errors.Is(err, pairing.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}

	claimed := l
	claimed.State, claimed.Session, claimed.Network, claimed.Agent = proof.LinkClaimed, proof.Digest{4}, "192.0.2.0/24", "browser"
	claimed.Offer, claimed.Reveal, claimed.Grant = json.RawMessage(`{"a":1}`), json.RawMessage(`{"b":2}`), json.RawMessage(`{"c":3}`)
	claimed.Transcript = proof.Digest{6}
	move := func(from proof.LinkState, tries int, to pairing.Link) error {
		return f.b.MoveLink(ctx(), from, tries, to, nil, proof.SurfaceID{}, f.now, line(audit.LinkClaimed))
	}
	wantErr(t, move(proof.LinkRevealed, 0, claimed), pairing.ErrConflict)
	wantErr(t, move(proof.LinkOpen, 1, claimed), pairing.ErrConflict)
	f.must(move(proof.LinkOpen, 0, claimed))
	wantErr(t, move(proof.LinkOpen, 0, claimed), pairing.ErrConflict) // one claim, ever
	f.reopen()
	for _, find := range []func() (pairing.Link, error){
		func() (pairing.Link, error) { return f.b.LinkBySession(ctx(), proof.Digest{4}) },
		func() (pairing.Link, error) { return f.b.LinkByNameplate(ctx(), "17") },
	} {
		got, err := find()
		f.must(err)
		same(t, got, claimed)
	}
	f.linkGranted(t, claimed)
}

// linkGranted puts the surface in with the grant, and takes it out again when the session ends badly.
func (f *fixture) linkGranted(t *testing.T, l pairing.Link) {
	s := f.aSurface()
	granted := l
	granted.State, granted.Surface = proof.LinkConfirmed, f.surface
	f.must(f.b.MoveLink(ctx(), l.State, l.Tries, granted, &s, proof.SurfaceID{}, f.now, line(audit.LinkConfirmed), line(audit.SurfaceLinked)))
	cancelled := granted
	cancelled.State, cancelled.Reason = proof.LinkCancelled, "cancelled"
	mark := f.mark()
	f.must(f.b.MoveLink(ctx(), granted.State, granted.Tries, cancelled, nil, f.surface, f.hours(1), line(audit.LinkCancelled), line(audit.SurfaceRevoked)))
	if n := f.since(mark); n[audit.LinkCancelled] != 1 || n[audit.SurfaceRevoked] != 1 {
		t.Errorf("lines %v", n)
	}
	got, err := f.b.Surface(ctx(), f.pairing, f.surface)
	if err != nil || !got.Revoked.Equal(f.hours(1)) || got.Reason != "cancelled" {
		t.Errorf("the surface of a session that ended badly: %+v, %v", got, err)
	}
	next := f.aLink() // the nameplate is free again; the surface's id never is
	f.must(f.b.OpenLink(ctx(), next, line(audit.LinkOpened)))
	done := next
	done.State = proof.LinkDone
	wantErr(t, f.b.MoveLink(ctx(), next.State, 0, done, &s, proof.SurfaceID{}, f.now, line(audit.SurfaceLinked)), pairing.ErrConflict)
	if l, err := f.b.Link(ctx(), next.Pid); err != nil || l.State != proof.LinkOpen {
		t.Errorf("a refused change stayed: %s, %v", l.State, err)
	}

	mark = f.mark()
	for i := range proof.MaxCodeTries + 1 {
		burned, err := f.b.RefuseClaim(ctx(), next.Pid, f.now, line(audit.CodeRefused), line(audit.LinkBurned))
		if err != nil || burned != (i == proof.MaxCodeTries-1) {
			t.Errorf("wrong claim %d: burned %v, %v", i+1, burned, err)
		}
	}
	if _, err := f.b.RefuseClaim(ctx(), proof.LinkID{}, f.now, line(audit.CodeRefused), line(audit.LinkBurned)); err != nil {
		t.Error(err)
	}
	if n := f.since(mark); n[audit.CodeRefused] != proof.MaxCodeTries+2 || n[audit.LinkBurned] != 1 {
		t.Errorf("lines %v", n)
	}
	if l, err := f.b.Link(ctx(), next.Pid); err != nil || l.State != proof.LinkBurned || l.Tries != proof.MaxCodeTries || l.Reason == "" {
		t.Errorf("after wrong claims: %+v, %v", l, err)
	}
}
