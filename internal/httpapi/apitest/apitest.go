// Package apitest holds every exchange of a test against api/openapi.yaml.
package apitest

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"testing"

	"cowork.example.com/broker/api"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// Validator is a RoundTripper that fails the test for an answer that the document does not allow, and for a request
// that it does not allow although the broker took it.
type Validator struct {
	t    testing.TB
	base http.RoundTripper
}

var router = sync.OnceValues(func() (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		return nil, err
	}
	doc.Servers = nil // else the host would have to match
	return gorillamux.NewRouter(doc)
})

// Wrap validates what goes over base.
func Wrap(t testing.TB, base http.RoundTripper) *Validator { return &Validator{t, base} }

// RoundTrip implements http.RoundTripper.
func (v *Validator) RoundTrip(req *http.Request) (*http.Response, error) {
	sent, err := drain(&req.Body)
	if err != nil {
		return nil, err
	}
	res, err := v.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	input := v.request(req, sent)
	if input == nil {
		return res, nil
	}
	if err := openapi3filter.ValidateRequest(req.Context(), input); err != nil && res.StatusCode < 400 {
		v.t.Errorf("%s %s was answered %d although the document forbids it: %v", req.Method, req.URL.Path, res.StatusCode, err)
	}
	return res, v.response(req, res, input)
}

// request finds the documented operation; a path that has none must not be answered with success.
func (v *Validator) request(req *http.Request, sent []byte) *openapi3filter.RequestValidationInput {
	r, err := router()
	if err != nil {
		v.t.Errorf("the document is broken: %v", err)
		return nil
	}
	again := req.Clone(req.Context())
	again.Body = io.NopCloser(bytes.NewReader(sent))
	route, params, err := r.FindRoute(again)
	if err != nil {
		return nil // tests also ask for what does not exist
	}
	return &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route, Options: options(false)}
}

func (v *Validator) response(req *http.Request, res *http.Response, input *openapi3filter.RequestValidationInput) error {
	if res.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	stream := res.Header.Get("Content-Type") == "text/event-stream"
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: res.StatusCode, Header: res.Header, Options: options(stream),
	}
	if !stream {
		got, err := drain(&res.Body)
		if err != nil {
			return err
		}
		out.SetBodyBytes(got)
	}
	if err := openapi3filter.ValidateResponse(req.Context(), out); err != nil {
		v.t.Errorf("%s %s: the document does not allow this answer (%d): %v", req.Method, req.URL.Path, res.StatusCode, err)
	}
	return nil
}

func options(stream bool) *openapi3filter.Options {
	return &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, ExcludeResponseBody: stream,
	}
}

// drain reads a body and puts it back.
func drain(body *io.ReadCloser) ([]byte, error) {
	if *body == nil {
		return nil, nil
	}
	raw, err := io.ReadAll(*body)
	_ = (*body).Close()
	*body = io.NopCloser(bytes.NewReader(raw))
	return raw, err
}
