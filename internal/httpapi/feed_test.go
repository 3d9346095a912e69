package httpapi

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"cowork.example.com/broker/pkg/proof"
)

func TestFeedKeepsTheNewestAndWakesOnce(t *testing.T) {
	f := NewFeed(nil)
	wake := make(chan struct{}, 1)
	p, s := proof.PairingID{1}, proof.SurfaceID{2}
	sub := f.subscribe(p, s, wake)
	defer sub.close()
	f.Beat(p, []byte("old"))
	f.Beat(p, []byte("new"))
	f.Wake(p)
	f.Presence(proof.PairingID{9})
	if len(wake) != 1 {
		t.Fatalf("%d wake-ups wait, want 1", len(wake))
	}
	n := sub.take()
	if string(n.beat) != "new" || !n.changed || n.presence || n.end != "" {
		t.Errorf("news %+v", n)
	}
	if n := sub.take(); n.beat != nil || n.changed {
		t.Errorf("told twice: %+v", n)
	}
}

func TestFeedEndsOneSurfaceOrAll(t *testing.T) {
	f := NewFeed(nil)
	p := proof.PairingID{1}
	a := f.subscribe(p, proof.SurfaceID{1}, make(chan struct{}, 1))
	b := f.subscribe(p, proof.SurfaceID{2}, make(chan struct{}, 1))
	f.End(p, proof.SurfaceID{1}, EndRevoked)
	first, again := a.take().end, a.take().end
	if first != EndRevoked || again != EndRevoked {
		t.Error("the end of a revoked surface was not kept")
	}
	if b.take().end != "" {
		t.Error("the other surface ended too")
	}
	f.End(p, proof.SurfaceID{}, EndLocked)
	if b.take().end != EndLocked {
		t.Error("the pairing's end did not reach its surfaces")
	}
	f.EndAll(EndDrain)
	if a.take().end != EndDrain {
		t.Error("a drain did not reach the stream")
	}
}

func TestFeedTellsCountsInOrder(t *testing.T) {
	var mu sync.Mutex
	var told []string
	f := NewFeed(func(p proof.PairingID, n int) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%d:%d", p[0], n))
	})
	a := f.subscribe(proof.PairingID{1}, proof.SurfaceID{}, make(chan struct{}, 1))
	b := f.subscribe(proof.PairingID{1}, proof.SurfaceID{}, make(chan struct{}, 1))
	c := f.subscribe(proof.PairingID{2}, proof.SurfaceID{}, make(chan struct{}, 1))
	a.close()
	a.close()
	b.close()
	c.close()
	if want := []string{"1:1", "1:2", "2:1", "1:1", "1:0", "2:0"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if len(f.subs) != 0 {
		t.Errorf("%d pairings are still remembered", len(f.subs))
	}
}
