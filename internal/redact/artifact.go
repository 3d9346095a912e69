package redact

import (
	"regexp"
	"strings"
)

// minBlob is longer than any key, hash or signature in base64.
const minBlob = 400

var dataURL = regexp.MustCompile(`(?i)\bdata:[\w.+-]*/?[\w.+-]*(?:;[\w.+-]+(?:=[^;,\s]*)?)*,[^\s"'<>)]*`)

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
	for i := 0; i < len(s); i++ {
		start := i
		for i < len(s) && (isWord(rune(s[i])) || strings.IndexByte("+/=_-", s[i]) >= 0) {
			i++
		}
		if blob := s[start:i]; len(blob) >= minBlob && hasDigit(blob) && hasUpper(blob) && hasLower(blob) {
			found = append(found, span{start, i, ArtifactMark})
		}
	}
	return found
}
