package apitest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// recorder is a testing.TB that remembers complaints.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

type canned struct {
	status     int
	kind, body string
}

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: c.status, Header: http.Header{"Content-Type": {c.kind}}, Body: io.NopCloser(strings.NewReader(c.body)),
	}, nil
}

func TestComplainsOnlyAboutWhatIsNotDocumented(t *testing.T) {
	problem := `{"type":"about:blank","status":400,"code":"malformed","title":"No."}`
	for name, tt := range map[string]struct {
		method, path, body string
		answer             canned
		complains          bool
	}{
		"documented":              {"POST", "/api/v1/tunnel/nonce", `{"pairing":"AAAAAAAAAAAAAAAAAAAAAA"}`, canned{200, "application/json", `{"nonce":"AA","broker_key":"` + strings.Repeat("A", 43) + `","time":1}`}, false},
		"a problem":               {"POST", "/api/v1/tunnel/nonce", `{`, canned{400, "application/problem+json", problem}, false},
		"an error that is none":   {"POST", "/api/v1/tunnel/nonce", `{`, canned{400, "text/plain", "no"}, true},
		"an unknown code":         {"POST", "/api/v1/tunnel/nonce", `{`, canned{400, "application/problem+json", strings.Replace(problem, "malformed", "oops", 1)}, true},
		"a field too many":        {"POST", "/api/v1/tunnel/nonce", `{"pairing":"AAAAAAAAAAAAAAAAAAAAAA"}`, canned{200, "application/json", `{"nonce":"AA","broker_key":"` + strings.Repeat("A", 43) + `","time":1,"x":1}`}, true},
		"bad request was taken":   {"POST", "/api/v1/tunnel/nonce", `{"pairing":"AA"}`, canned{200, "application/json", `{"nonce":"AA","broker_key":"` + strings.Repeat("A", 43) + `","time":1}`}, true},
		"an undocumented success": {"POST", "/api/v1/tunnel/nonce", `{"pairing":"AAAAAAAAAAAAAAAAAAAAAA"}`, canned{201, "application/json", `{}`}, true},
		"nothing of ours":         {"GET", "/nothing", ``, canned{404, "text/plain", ``}, false},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{TB: t}
			req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://x"+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := Wrap(rec, tt.answer).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || string(body) != tt.answer.body {
				t.Errorf("the body became %q, %v", body, err)
			}
			if got := len(rec.said) > 0; got != tt.complains {
				t.Errorf("complaints %q, want any: %v", rec.said, tt.complains)
			}
		})
	}
}
