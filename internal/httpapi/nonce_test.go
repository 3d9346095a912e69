package httpapi

import (
	"testing"
	"time"

	"cowork.example.com/broker/pkg/proof"
)

func TestNonceIsForOnePurposeSubjectAndTime(t *testing.T) {
	n, now := newNonces(), time.UnixMilli(1_700_000_000_000)
	nonce := n.issue("tunnel", "a", now)
	for name, ok := range map[string]bool{
		"at once":          n.valid("tunnel", "a", nonce, now) == true,
		"at its end":       n.valid("tunnel", "a", nonce, now.Add(proof.NonceLife)) == true,
		"after its end":    n.valid("tunnel", "a", nonce, now.Add(proof.NonceLife+time.Millisecond)) == false,
		"before its time":  n.valid("tunnel", "a", nonce, now.Add(-time.Millisecond)) == false,
		"other purpose":    n.valid("auth", "a", nonce, now) == false,
		"other subject":    n.valid("tunnel", "b", nonce, now) == false,
		"moved separator":  n.valid("tunne", "l\x00a", nonce, now) == false,
		"another broker's": newNonces().valid("tunnel", "a", nonce, now) == false,
		"too short":        n.valid("tunnel", "a", nonce[:31], now) == false,
		"empty":            n.valid("tunnel", "a", nil, now) == false,
	} {
		if !ok {
			t.Errorf("%s: wrong answer", name)
		}
	}
}

func TestNonceIsSpentOnce(t *testing.T) {
	n, now := newNonces(), time.UnixMilli(1_700_000_000_000)
	nonce := n.issue("auth", "a", now)
	if !n.spend(nonce, now) || n.spend(nonce, now) {
		t.Error("a nonce was not spent exactly once")
	}
}

func TestSpentNoncesAreBoundedAndForgotten(t *testing.T) {
	n, now := newNonces(), time.UnixMilli(1_700_000_000_000)
	if n.most != maxSpent {
		t.Fatalf("bounded by %d, want %d", n.most, maxSpent)
	}
	n.most = 1000 // the same rule, sooner
	for range n.most {
		n.spend(n.issue("auth", "a", now), now)
	}
	if n.spend(n.issue("auth", "a", now), now) {
		t.Error("one more than the bound was remembered")
	}
	half := now.Add(proof.NonceLife / 2)
	if n.spend(n.issue("auth", "a", half), half) {
		t.Error("what is still valid was forgotten")
	}
	later := now.Add(2*proof.NonceLife + 2*time.Second)
	if !n.spend(n.issue("auth", "a", later), later) || len(n.spent)+len(n.old) != 1 {
		t.Errorf("expired nonces were not forgotten: %d remembered", len(n.spent)+len(n.old))
	}
}

func TestSpentNonceIsRememberedForItsWholeLife(t *testing.T) {
	n, now := newNonces(), time.UnixMilli(1_700_000_000_000)
	n.spend(n.issue("auth", "a", now), now)
	almost := now.Add(proof.NonceLife - time.Second)
	nonce := n.issue("auth", "a", almost)
	if !n.spend(nonce, almost) {
		t.Fatal("not taken")
	}
	for _, after := range []time.Duration{0, 2 * time.Second, proof.NonceLife} {
		at := almost.Add(after)
		n.spend(n.issue("auth", "b", at), at) // others go on
		if n.valid("auth", "a", nonce, at) && n.spend(nonce, at) {
			t.Errorf("used again %v later", after)
		}
	}
}
