package httpapi

import (
	"context"
	"net/http"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/pkg/wire"
)

// handler answers, or returns the error that fail turns into a problem; it must not have written then.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one row of the tables below.
type route struct {
	method, path string
	handle       handler
}

func (s *Server) publicRoutes() []route {
	return []route{
		{http.MethodGet, wire.PathBroker, s.info},
		{http.MethodGet, wire.PathHealth, s.health},
		{http.MethodGet, wire.PathPage, s.page},
		{http.MethodPost, wire.PathEnrol, s.evenly(s.enrol)},
		{http.MethodPost, wire.PathTunnelNonce, s.tunnelNonce},
		{http.MethodGet, wire.PathTunnel, s.tunnel},
		{http.MethodPost, wire.PathLinkClaim, s.evenly(s.linkClaim)},
		{http.MethodPost, wire.PathLinkReveal, s.linkReveal},
		{http.MethodPost, wire.PathLinkGrant, s.linkGrant},
		{http.MethodPost, wire.PathLinkFinish, s.linkFinish},
		{http.MethodPost, wire.PathLinkCancel, s.linkCancel},
		{http.MethodPost, wire.PathAuthNonce, s.authNonce},
		{http.MethodPost, wire.PathAuthToken, s.authToken},
		{http.MethodGet, wire.PathPairing, s.getPairing},
		{http.MethodPost, wire.PathCommands, s.postCommand},
		{http.MethodGet, wire.PathCommand, s.getCommand},
		{http.MethodPost, wire.PathCancel, s.cancelCommand},
		{http.MethodPost, wire.PathResolve, s.resolveCommand},
		{http.MethodGet, wire.PathRequests, s.getRequests},
		{http.MethodPost, wire.PathRevokeSelf, s.revokeSelf},
		{http.MethodPost, wire.PathStreams, s.openStream},
	}
}

func (s *Server) operatorRoutes() []route {
	return []route{
		{http.MethodGet, wire.PathOpCodes, s.listCodes},
		{http.MethodPost, wire.PathOpCodes, s.issueCode},
		{http.MethodPost, wire.PathOpCodeRevoke, s.revokeCode},
		{http.MethodGet, wire.PathOpPairings, s.listPairings},
		{http.MethodGet, wire.PathOpPairing, s.showPairing},
		{http.MethodPost, wire.PathOpPairingLock, s.lockPairing},
		{http.MethodPost, wire.PathOpPairingUnlock, s.unlockPairing},
		{http.MethodPost, wire.PathOpPairingRevoke, s.revokePairing},
		{http.MethodGet, wire.PathOpSurfaces, s.listSurfaces},
		{http.MethodPost, wire.PathOpSurfaceRevoke, s.revokeSurface},
		{http.MethodGet, wire.PathOpAudit, s.auditPage},
		{http.MethodGet, wire.PathOpLimits, s.showLimits},
	}
}

// Public is the API that faces the network.
func (s *Server) Public() http.Handler { return s.guard(s.mux(s.publicRoutes())) }

// Operator is the API for the unix socket; who may open that is the file system's to say.
func (s *Server) Operator() http.Handler { return s.recovered(strict(s.mux(s.operatorRoutes()))) }

func (s *Server) mux(routes []route) http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.method+" "+rt.path, s.serve(rt.handle))
	}
	mux.HandleFunc("/", s.serve(func(http.ResponseWriter, *http.Request) error { return notFound() }))
	return mux
}

func (s *Server) serve(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	}
}

// health says whether the store answers.
func (s *Server) health(w http.ResponseWriter, r *http.Request) error {
	if _, _, err := s.cfg.Audit.Lines(r.Context(), 0, 1); err != nil {
		s.log.Error("the store does not answer", "error", err)
		return refuse(http.StatusServiceUnavailable, wire.CodeInternal, "The store does not answer.")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
	return nil
}

// tunnel hands an upgrade to the tunnel's own server, which answers in plain text.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request) error {
	source := audit.Source{IP: s.address(r), UA: userAgent(r)}
	s.cfg.Tunnel.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sourceKey{}, source)))
	return nil
}

type sourceKey struct{}

// SourceOf returns where the upgrade came from that a context of the tunnel belongs to.
func SourceOf(ctx context.Context) audit.Source {
	source, _ := ctx.Value(sourceKey{}).(audit.Source)
	return source
}
