package redact

import (
	"regexp"
	"strings"
)

// shape is one form in which a secret stands in text.
type shape struct {
	name string
	near []string              // lower case; one of them is in every text that has the shape
	re   *regexp.Regexp        // its groups are the secret parts; without groups the whole match is
	ok   func(m []string) bool // judges a match and its groups; nil takes all
	// behind a name that says secret, re begins; the name follows this text.
	behind *string
}

func after(text string) *string { return &text }

func at(list string) []string { return strings.Fields(list) }

func must(expr string) *regexp.Regexp { return regexp.MustCompile(expr) }

// shapes is the table of all forms. Vendors document their prefixes so that
// scanners can find them; the other half is found by the words around it.
var shapes = []shape{
	// by what the secret looks like
	{"OpenAI, Anthropic, OpenRouter key", at("sk-"), must(`\bsk-[A-Za-z0-9_-]{18,}`), modelKey, nil},
	{"GitHub token", at("ghp_ gho_ ghu_ ghs_ ghr_"), must(`\bgh[pousr]_[A-Za-z0-9]{20,}`), nil, nil},
	{"GitHub fine-grained token", at("github_pat_"), must(`\bgithub_pat_[A-Za-z0-9_]{20,}`), nil, nil},
	{"GitLab token", at("glpat- gldt- glrt- glptt- glcbt- glsoat- glft- glimt- glagent-"), must(`\bgl(?:pat|dt|rt|ptt|cbt|soat|ft|imt|agent)-[A-Za-z0-9_.-]{18,}`), nil, nil},
	{"Slack token", at("xox xapp-"), must(`\b(?:xox[abceoprsd](?:\.xox[a-z])?|xapp)-[A-Za-z0-9_-]{10,}`), nil, nil},
	{"webhook", at("hooks discord webhook"), must(`(?:hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/|hooks\.zapier\.com/hooks/catch/|office(?:365)?\.com/webhook(?:b2)?/)([A-Za-z0-9_/@-]{10,})`), nil, nil},
	{"AWS key id", at("akia asia abia acca"), must(`\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b`), nil, nil},
	{"Google key", at("aiza"), must(`\bAIza[0-9A-Za-z_-]{30,}`), nil, nil},
	{"Google OAuth", at("ya29. gocspx- 1//0"), must(`(?:\bya29\.|\bGOCSPX-|\b1//0)[0-9A-Za-z_-]{20,}`), nil, nil},
	{"npm token", at("npm_"), must(`\bnpm_[A-Za-z0-9]{30,}`), nil, nil},
	{"PyPI token", at("pypi-"), must(`\bpypi-[A-Za-z0-9_-]{40,}`), nil, nil},
	{"Stripe key", at("_live_ _test_ whsec_"), must(`\b(?:(?:sk|rk|pk)_(?:live|test)_|whsec_)[A-Za-z0-9]{10,}`), nil, nil},
	{"JWT", at("eyj"), must(`\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]{4,}){1,4}`), nil, nil},
	{"private key block", at("private"), must(`(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----.*?(?:-----END [A-Z0-9 ]{0,50}-----|\z)`), nil, nil},
	{"OpenSSH key body", at("b3blbnnzac1rzxktdje"), must(`\bb3BlbnNzaC1rZXktdjE[A-Za-z0-9+/=\s]*`), nil, nil},
	{"age identity", at("age-secret-key-"), must(`\bAGE-SECRET-KEY-[0-9A-Z-]{20,}`), nil, nil},
	{"Telegram bot token", at(":aa"), must(`(?:\b|bot)(\d{8,10}:AA[A-Za-z0-9_-]{30,})`), nil, nil},
	{"Discord token", at("."), must(`\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}`), mixed, nil},
	{"SendGrid key", at("sg."), must(`\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}`), nil, nil},
	{"Vault token", at("hvs. hvb. hvr."), must(`\bhv[sbr]\.[A-Za-z0-9_-]{20,}`), nil, nil},
	{"Twilio, Mailgun key", at("sk key-"), must(`\b(?:SK|key-)[0-9a-f]{32}\b`), nil, nil},
	{
		"prefixed key", at("hf_ gsk_ xai- pplx- r8_ lin_api_ ntn_ figd_ sbp_ pmak- dapi atatt3 fw_ tskey- pscale_tkn_ nrak- sntrys_ sntryu_ glsa_ glc_ " +
			"dckr_pat_ dop_v1_ doo_v1_ dor_v1_ shpat_ shpca_ shppa_ shpss_ secret_ rubygems_ ctx7sk- phc_ phx_ sq0csp- sq0atp- eaaa vercel_ nvapi- csk- tvly- fc- jina_"),
		must(`\b(?:hf_|gsk_|xai-|pplx-|r8_|lin_api_|ntn_|figd_|sbp_|PMAK-|dapi|ATATT3|fw_|tskey-|pscale_tkn_|NRAK-|sntry[su]_|glsa_|glc_|` +
			`dckr_pat_|do[opr]_v1_|shp(?:at|ca|pa|ss)_|secret_|rubygems_|ctx7sk-|ph[cx]_|sq0(?:csp|atp)-|EAAA|vercel_|nvapi-|csk-|tvly-|fc-|jina_)[A-Za-z0-9_=-]{20,}`), mixed, nil,
	},
	{"password hash", at("$"), must(`\$(?:1|5|6|y|2[abxy]|argon2id?|scrypt)\$[A-Za-z0-9./$=,+-]{20,}`), nil, nil},

	// by where it stands
	{"URL password", at("://"), must(`[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@"'<>:]*:([^\s/?#"'<>]+)@`), valued, nil},
	{"URL token", at("://"), must(`[A-Za-z][A-Za-z0-9+.-]*://([A-Za-z0-9_.~%-]{16,})@`), mixed, nil},
	{"URL parameter", at("="), must(`(?i)[?&#](?:[\w.-]*token|[\w.-]*key|sig|[\w.-]*signature|code|auth|[\w.-]*passw(?:or)?d|[\w.-]*secret|session|sid|otp|jwt)=([^&\s"'<>#)\]]{6,})`), likely, nil},
	{"link of a pairing", at("/p#1."), must(`/p#1\.[A-Za-z0-9_-]+\.([A-Za-z0-9_-]{16,})`), nil, nil},
	{"pairing code", at("-"), must(`\b\d{2}-[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}\b`), nil, nil},
	{"Authorization header", at("authorization"), must(`(?i)\bauthorization["']?\s{0,3}[:=]\s{0,3}["']?((?:[\w-]{3,20}[ \t]+)?[^\s"',;]{6,}(?:,[ \t]?\w+=[^\s,]+)*)`), header, nil},
	{"bearer", at("bearer"), must(`(?i)\bbearer[ \t]+([A-Za-z0-9._~+/=-]{8,})`), likely, nil},
	{"basic", at("basic"), must(`(?i)\bbasic[ \t]+([A-Za-z0-9+/]{8,}={0,2})`), basic, nil},
	{"cookie header", at("cookie"), must(`(?i)\bcookie["']?\s{0,3}:\s{0,3}["']?([\w.-]+=[^\r\n"']+)`), valued, nil},
	{"API key header", at("x-"), must(`(?i)\bx-[\w-]*(?:key|token|secret|auth|signature)["']?\s{0,3}:\s{0,3}["']?([^\s"',;]{6,})`), likely, nil},
	{"user and password of a command", at("-u --user --login"), must(`(?:\s|^)(?:-u|--user|--login)[ \t=]+["']?[^\s"':]+:([^\s"']+)`), notNumeral, nil},
	{"password of a command", at("sshpass mysql"), must(`\b(?:sshpass|mysql|mysqldump|mariadb)\b[^\n|;]{0,80}?\s-p[ ]?([^\s"'-][^\s"']*)`), valued, nil},
	{"netrc", at("password"), must(`(?i)\blogin\s+\S+\s+password\s+(\S+)`), valued, nil},
	{"registry login", at("auth"), must(`"_?auth"\s{0,3}:\s{0,3}"([A-Za-z0-9+/]{16,}={0,2})"`), nil, nil},
	{"private key in hex", at("key"), must(`(?i)\b(?:private|secret|signing|master|encryption|seed|wallet)[ _-]?key(?:\W{0,3}hex)?\W{1,6}(?:(?:is|was)\W{1,3})?((?:0x)?[0-9a-f]{32,128})\b`), nil, nil},
	{"hex that is a private key", at("is"), must(`(?i)\b((?:0x)?[0-9a-f]{64})\s+is\s+(?:the|my|our|a)\s+(?:private|secret)`), nil, nil},
	{"extended private key", at("xprv"), must(`\b[xyzt]prv[A-Za-z0-9]{90,}`), nil, nil},
	{"PuTTY key", at("private-lines"), must(`Private-Lines: \d+\s+([A-Za-z0-9+/=\s]{20,})`), nil, nil},
	{"SQL password", at("identified"), must(`(?i)\bidentified\s+(?:with\s+\S+\s+)?by\s+["']([^"'\n]+)`), valued, nil},
	{"asked for", at(" for "), must(`(?i)\bpass(?:word|phrase)\s+for\s+[^\s:]+:\s+([^\s"']+)`), valued, nil},
	{"openssl password", at("pass:"), must(`-pass(?:in|out|word)?[ =]pass:(\S+)`), valued, nil},
	{"login of a variable", at("_auth="), must(`\b[A-Z][A-Z0-9_]*_AUTH=["']?([^\s"']+)`), valued, nil},
	{"one-time code", at("code pin"), must(`(?i)\b(?:(?:verification|security|confirmation|one[- ]time|login|2fa|mfa|otp)[- ](?:code|pin|passcode)|pin|passcode)(?:\s+is|:)?\s+(\d{4,8})\b`), nil, nil},
	{"one-time code before its name", at("is your"), must(`(?i)\b(\d{4,8})\s+is\s+your\b[^.\n]{0,40}\b(?:code|pin)\b`), nil, nil},
	{"seed phrase", at("seed mnemonic recovery"), must(`(?i)\b(?:seed|mnemonic|recovery)(?:[ _-]?(?:phrase|words))?["']?\s{0,3}[:=]\s{0,3}["']?((?:[a-z]{3,8}[ \t]+){11,23}[a-z]{3,8})`), nil, nil},
	{"pgpass line", at(":5432: :*:"), must(`(?m)^[\w.*-]+:(?:\d+|\*):[\w*-]+:[\w*-]+:(\S+)$`), nil, nil},

	// by the name before it, which nameKind judges
	{assignment, nameWords, must(`^(?:\\?["'])?\]?[ \t]{0,4}(=>|:=|==|=|:)[ \t]{0,4}`), nil, after("")},
	{"flag and value", nameWords, must(`^[ \t]+["']?([^\s"'-][^\s"']*)`), valued, after("--")},
	{"element and value", nameWords, must(`^(?:\s[^<>]*)?>([^<>\n]+)</`), valued, after("<")},
	{"element of that name", nameWords, must(`^["']\s*>([^<>\n]+)</`), valued, after("")},
	{"in a sentence", nameWords, must(`^\s+(?:is|was|of)(?:\s+now)?:?\s+["'` + "`" + `]?([^\s"'` + "`" + `]{4,})`), told, after("")},
	{"in quotes after its name", nameWords, must(`^\s+["'` + "`" + `]([^\s"'` + "`" + `]{4,})["'` + "`" + `]`), told, after("")},
	{"after its name", nameWords, must(`^[ \t]+([^\s"'` + "`" + `:=]{6,})(?:\s|$)`), bare, after("")},
}

// secretSpans finds every secret of s. Its time is linear in s: each
// expression runs in linear time, and only where a word near it is found.
func secretSpans(s string) []span {
	const shortest = 6
	if len(s) < shortest {
		return nil
	}
	lower := asciiLower(s)
	named := secretNames(s, lower)
	var found []span
	for i := range shapes {
		switch f := &shapes[i]; {
		case f.behind != nil:
			found = f.findBehind(named, s, found)
		case f.isNear(lower):
			found = f.find(s, found)
		}
	}
	return found
}

// asciiLower keeps every byte where it is, which strings.ToLower does not.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func (f *shape) isNear(lower string) bool {
	for _, word := range f.near {
		if strings.Contains(lower, word) {
			return true
		}
	}
	return false
}

func (f *shape) find(s string, found []span) []span {
	for _, loc := range f.re.FindAllStringSubmatchIndex(s, -1) {
		m := make([]string, len(loc)/2)
		for g := range m {
			if loc[2*g] >= 0 {
				m[g] = s[loc[2*g]:loc[2*g+1]]
			}
		}
		if f.ok != nil && !f.ok(m) {
			continue
		}
		g := secretGroup(m)
		if !onlyMarks(m[g]) {
			found = append(found, span{loc[2*g], loc[2*g+1], Mark})
		}
	}
	return found
}

// secretGroup is the last group that matched; the first of two is the name.
func secretGroup(m []string) int {
	for g := len(m) - 1; g > 0; g-- {
		if m[g] != "" {
			return g
		}
	}
	return 0
}
