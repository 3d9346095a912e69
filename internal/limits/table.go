// Package limits holds the rates, lockouts and budgets of the broker as one table that can be shown, and the
// limiter that enforces it. The table is the documentation: a rule that does not stand in it is not enforced.
package limits

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Name names a rule of the table.
type Name string

// The rules. What each one counts stands in Table.
const (
	Requests     Name = "requests.network"  // any request of the public API
	Sign         Name = "auth.network"      // nonces and tokens of surfaces
	Dial         Name = "tunnel.network"    // nonces and upgrades of desktops
	DialBroker   Name = "tunnel.broker"     // upgrades of the whole broker, against herds
	Enrol        Name = "enrol.network"     // enrolment codes tried
	Claim        Name = "link.network"      // claims of linking sessions
	WrongClaims  Name = "link.wrong.broker" // wrong claims of the whole broker
	Commands     Name = "commands.surface"  // commands posted
	Reads        Name = "reads.surface"     // other calls of a signed-in surface
	Streams      Name = "streams.surface"   // event streams open at once
	StreamsTotal Name = "streams.broker"    // event streams open at once in the whole broker
	Waits        Name = "waits.network"     // waiting requests (?wait=) open at once
)

// Rule is one row. A rate has a Window: Max hits are taken at once and refill evenly over it. A budget has none:
// at most Max are held at the same time.
type Rule struct {
	Name   Name          `json:"name"`
	Counts string        `json:"counts"` // what one hit is
	Per    string        `json:"per"`    // network, surface or broker
	Max    int           `json:"max"`
	Window time.Duration `json:"window,omitempty"` // nanoseconds; 0 for a budget
	Then   string        `json:"then"`             // what the one over meets
}

// Table returns the rules with their default figures. A network is an IPv4 address, or an IPv6 /64 and its /56.
func Table() []Rule {
	const refused = "429 with Retry-After"
	return []Rule{
		{Requests, "request of the public API", "network", 60_000, time.Minute, refused},
		{Sign, "nonce, token or linking message of a surface", "network", 1200, time.Minute, refused},
		{Dial, "nonce or upgrade of a desktop", "network", 30_000, time.Minute, refused},
		{DialBroker, "upgrade of a desktop", "broker", 60_000, time.Minute, refused},
		{Enrol, "enrolment code tried", "network", 10, time.Minute, refused},
		{Claim, "claim of a linking session", "network", 10, time.Minute, refused},
		{WrongClaims, "wrong claim", "broker", 100, time.Minute, "typed codes pause, links go on"},
		{Commands, "command posted", "surface", 600, time.Minute, refused},
		{Reads, "read, cancel or decision", "surface", 3000, time.Minute, refused},
		{Streams, "event stream open at once", "surface", 4, 0, refused},
		{StreamsTotal, "event stream open at once", "broker", 20_000, 0, refused},
		{Waits, "waiting request open at once", "network", 256, 0, "answered without waiting"},
	}
}

// Change returns the table with other figures for the rules that are named; an unknown name or a figure below one is
// an error that lists the names.
func Change(table []Rule, figures map[string]int) ([]Rule, error) {
	table = slices.Clone(table)
	for name, most := range figures {
		i := slices.IndexFunc(table, func(r Rule) bool { return string(r.Name) == name })
		if i < 0 || most < 1 {
			return nil, fmt.Errorf("%s=%d is no limit: the figure is at least 1, and the names are %s", name, most, names(table))
		}
		table[i].Max = most
	}
	return table, nil
}

func names(table []Rule) string {
	list := make([]string, len(table))
	for i, r := range table {
		list[i] = string(r.Name)
	}
	return strings.Join(list, ", ")
}
