package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"cowork.example.com/broker/internal/limits"
)

// Deadlines of one exchange; streams and waiting calls set their own.
const (
	readTime  = 30 * time.Second
	writeTime = 30 * time.Second
)

// guard is what every public request passes, from the outside in: a panic becomes an error, headers that keep a
// browser strict, the origins that may call, and the rate of its network.
func (s *Server) guard(next http.Handler) http.Handler {
	return s.recovered(strict(s.origins(s.rate(next))))
}

// recovered turns a panic into a 500, so that no input ends the process.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(v) // net/http ends the connection quietly
				}
				s.log.Error("panic in a handler", "route", r.Pattern, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				s.fail(w, r, internal())
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		if r.TLS != nil {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// origins lets the pages of the allow-list call from a browser and refuses every other page; programs that send no
// Origin are not concerned. There are no cookies: this only keeps strangers' pages from spending a visitor's limits.
func (s *Server) origins(next http.Handler) http.Handler {
	protect := http.NewCrossOriginProtection()
	for _, o := range s.cfg.AllowedOrigins {
		if err := protect.AddTrustedOrigin(o); err != nil {
			s.log.Error("origin ignored", "origin", o, "error", err)
		}
	}
	protect.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, refuse(http.StatusForbidden, "forbidden", "This page may not call this broker.",
			"the operator allows pages with --allowed-origin"))
	}))
	inner := protect.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if origin := r.Header.Get("Origin"); slices.Contains(s.cfg.AllowedOrigins, origin) {
			h := w.Header()
			h.Add("Vary", "Origin")
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Expose-Headers", "Location, Retry-After")
			if r.Method == http.MethodOptions {
				h.Set("Access-Control-Allow-Methods", "GET, POST")
				h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
				h.Set("Access-Control-Max-Age", "600")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		inner.ServeHTTP(w, r)
	})
}

func (s *Server) rate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.allow(limits.Requests, r); err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allow counts one hit of the request's network.
func (s *Server) allow(rule limits.Name, r *http.Request) error {
	return s.allowKeys(rule, limits.Networks(s.source(r))...)
}

func (s *Server) allowKeys(rule limits.Name, keys ...string) error {
	if wait, ok := s.limits.Allow(rule, keys...); !ok {
		return limited(wait)
	}
	return nil
}
