package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// maxForwarded bounds the hops of X-Forwarded-For that are looked at.
const maxForwarded = 16

// source returns the address that a request came from. Behind a trusted proxy it is the last address of
// X-Forwarded-For that is not itself a trusted proxy; a header from anyone else is ignored. Nothing is ever trusted
// for coming from loopback or for its Host header.
func (s *Server) source(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := peer.Addr().Unmap()
	if !s.trusted(addr) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i, hop := range slices.Backward(hops) {
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil || len(hops)-i > maxForwarded {
			break
		}
		if addr = next.Unmap(); !s.trusted(addr) {
			break
		}
	}
	return addr
}

// host returns the host that the client asked for: a trusted proxy may say it in X-Forwarded-Host.
func (s *Server) host(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if forwarded := r.Header.Get("X-Forwarded-Host"); err == nil && forwarded != "" && s.trusted(peer.Addr().Unmap()) {
		return forwarded
	}
	return r.Host
}

func (s *Server) trusted(a netip.Addr) bool {
	return slices.ContainsFunc(s.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a) })
}
