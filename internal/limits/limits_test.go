package limits

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func fixture() (*Limiter, *clock) {
	c := &clock{time.Unix(1_700_000_000, 0)}
	return New(Table(), c.now), c
}

func TestRateTakesExactlyMaxThenRefills(t *testing.T) {
	l, c := fixture()
	for i := range 10 {
		if _, ok := l.Allow(Claim, "192.0.2.1"); !ok {
			t.Fatalf("claim %d of 10 refused", i+1)
		}
	}
	wait, ok := l.Allow(Claim, "192.0.2.1")
	if ok || wait != 6*time.Second {
		t.Fatalf("the 11th: allowed %v, wait %v; want refused, 6s", ok, wait)
	}
	if _, ok := l.Allow(Claim, "192.0.2.2"); !ok {
		t.Error("another network was refused")
	}
	c.t = c.t.Add(wait - 1)
	if _, ok := l.Allow(Claim, "192.0.2.1"); ok {
		t.Error("allowed a nanosecond before the wait was over")
	}
	c.t = c.t.Add(1)
	if _, ok := l.Allow(Claim, "192.0.2.1"); !ok {
		t.Error("refused after the wait")
	}
}

func TestExceededCountsNothing(t *testing.T) {
	l, _ := fixture()
	for range 1000 {
		if l.Exceeded(WrongClaims, "") {
			t.Fatal("looking was counted")
		}
	}
	for range 100 {
		l.Allow(WrongClaims, "")
	}
	if !l.Exceeded(WrongClaims, "") {
		t.Error("100 wrong claims do not exceed 100 a minute")
	}
}

func TestAllKeysOrNone(t *testing.T) {
	l, _ := fixture()
	for range 10 {
		l.Allow(Claim, "a")
	}
	if _, ok := l.Allow(Claim, "b", "a"); ok {
		t.Fatal("a is exhausted")
	}
	for i := range 10 {
		if _, ok := l.Allow(Claim, "b"); !ok {
			t.Fatalf("the refused hit was counted on b: hit %d refused", i+1)
		}
	}
}

func TestSixShareTheirWiderNetwork(t *testing.T) {
	l, _ := fixture()
	hit := func(s string) bool {
		_, ok := l.Allow(Claim, Networks(netip.MustParseAddr(s))...)
		return ok
	}
	for i := range 10 {
		if !hit(fmt.Sprintf("2001:db8:0:%x::1", i)) {
			t.Fatalf("hit %d refused", i+1)
		}
	}
	if hit("2001:db8:0:99::1") {
		t.Error("the 11th from the same /56 was allowed")
	}
	if !hit("2001:db8:0:100::1") {
		t.Error("the neighbouring /56 was refused")
	}
}

func TestNetworksOfMappedZonedAndInvalid(t *testing.T) {
	for in, want := range map[string]string{
		"::ffff:192.0.2.7": "[192.0.2.7]",
		"fe80::1%eth0":     "[fe80::/64 fe80::/56]",
		"2001:db8::1":      "[2001:db8::/64 2001:db8::/56]",
	} {
		if got := fmt.Sprint(Networks(netip.MustParseAddr(in))); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if got := fmt.Sprint(Networks(netip.Addr{})); got != "[unknown]" {
		t.Errorf("invalid: %s", got)
	}
}

func TestMemoryIsBoundedAndStrangersShare(t *testing.T) {
	l, c := fixture()
	for i := range MaxKeys {
		l.Allow(Claim, fmt.Sprint(i))
	}
	for range 10 {
		l.Allow(Claim, "stranger-1")
	}
	if _, ok := l.Allow(Claim, "stranger-2"); ok {
		t.Error("strangers do not share a bucket when the table is full")
	}
	if n := len(l.rates[Claim]); n > MaxKeys+1 {
		t.Errorf("%d keys remembered, at most %d", n, MaxKeys+1)
	}
	c.t = c.t.Add(time.Hour)
	if _, ok := l.Allow(Claim, "stranger-3"); !ok {
		t.Error("refilled keys were not forgotten")
	}
}

func TestBudgetIsHeldAndGivenBack(t *testing.T) {
	l, _ := fixture()
	var release []func()
	for range 4 {
		r, ok := l.Hold(Streams, "s")
		if !ok {
			t.Fatal("refused within the budget")
		}
		release = append(release, r)
	}
	if _, ok := l.Hold(Streams, "s"); ok {
		t.Fatal("the fifth was allowed")
	}
	release[0]()
	release[0]()
	if _, ok := l.Hold(Streams, "s"); !ok {
		t.Error("refused after one was given back")
	}
	if _, ok := l.Hold(Streams, "s"); ok {
		t.Error("giving back twice gave two")
	}
}

func TestUnknownRuleDenies(t *testing.T) {
	l, _ := fixture()
	if _, ok := l.Allow("nothing", "k"); ok {
		t.Error("a rate without a rule allowed")
	}
	if _, ok := l.Hold("nothing", "k"); ok {
		t.Error("a budget without a rule allowed")
	}
	if _, ok := l.Hold(Claim, "k"); ok {
		t.Error("a rate was held as a budget")
	}
}

func TestTableIsWhatIsEnforced(t *testing.T) {
	l, _ := fixture()
	rules := l.Table()
	if len(rules) != len(Table()) {
		t.Fatalf("%d rules shown, %d in the table", len(rules), len(Table()))
	}
	for i, r := range rules {
		if r.Max <= 0 || r.Counts == "" || r.Per == "" || r.Then == "" {
			t.Errorf("%s lacks a field", r.Name)
		}
		if i > 0 && rules[i-1].Name >= r.Name {
			t.Errorf("%s is out of order", r.Name)
		}
	}
}

func TestClockSetBackLocksNobodyOut(t *testing.T) {
	l, c := fixture()
	for range 5 {
		l.Allow(Claim, "192.0.2.1")
	}
	c.t = c.t.Add(-time.Hour)
	for i := range 10 {
		if _, ok := l.Allow(Claim, "192.0.2.1"); !ok {
			t.Fatalf("hit %d refused after the clock was set back", i+1)
		}
	}
	if _, ok := l.Allow(Claim, "192.0.2.1"); ok {
		t.Error("the rate was lifted for good")
	}
}

func TestFiguresCanBeChangedAndNothingElse(t *testing.T) {
	table, err := Change(Table(), map[string]int{string(Claim): 2})
	if err != nil {
		t.Fatal(err)
	}
	l := New(table, (&clock{time.Unix(1_700_000_000, 0)}).now)
	l.Allow(Claim, "k")
	l.Allow(Claim, "k")
	if _, ok := l.Allow(Claim, "k"); ok {
		t.Error("the figure was not changed")
	}
	for _, bad := range []map[string]int{{"nothing": 5}, {string(Claim): 0}, {string(Claim): -1}} {
		if _, err := Change(Table(), bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}
