package redact

import (
	"regexp"
	"strings"
)

var (
	dataURL  = regexp.MustCompile(`(?i)\bdata:[\w.+-]*/?[\w.+-]*(?:;[\w.+-]+(?:=[^;,\s]*)?)*,[^\s"'<>)]*`)
	longBlob = regexp.MustCompile(`[A-Za-z0-9+/_-]{400,}={0,2}`)
)

// artifactSpans finds file contents inside text: data: URLs, and base64 that
// is longer than any key, hash or signature.
func artifactSpans(s string) []span {
	var found []span
	if strings.Contains(strings.ToLower(s), "data:") {
		for _, loc := range dataURL.FindAllStringIndex(s, -1) {
			url := s[loc[0]:loc[1]]
			if comma := strings.IndexByte(url, ','); strings.ContainsAny(url[:comma], "/;") && comma+1 < len(url) {
				found = append(found, span{loc[0], loc[1], ArtifactMark})
			}
		}
	}
	if len(s) >= 400 {
		for _, loc := range longBlob.FindAllStringIndex(s, -1) {
			if blob := s[loc[0]:loc[1]]; hasDigit(blob) && hasUpper(blob) && hasLower(blob) {
				found = append(found, span{loc[0], loc[1], ArtifactMark})
			}
		}
	}
	return found
}
