package limits

import "net/netip"

// Networks returns the keys under which an address is counted: an IPv4 address alone, an IPv6 address by its /64
// and its /56, since a home or an attacker usually owns the whole of one. An invalid address counts as one network.
func Networks(a netip.Addr) []string {
	a = a.Unmap().WithZone("")
	switch {
	case !a.IsValid():
		return []string{"unknown"}
	case a.Is4():
		return []string{a.String()}
	}
	return []string{prefix(a, 64), prefix(a, 56)}
}

func prefix(a netip.Addr, bits int) string {
	p, err := a.Prefix(bits)
	if err != nil {
		return "unknown"
	}
	return p.String()
}
