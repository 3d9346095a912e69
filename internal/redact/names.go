package redact

import (
	"slices"
	"strings"
	"unicode"
)

// kind is what the name of a value says about it.
type kind int

const (
	harmless kind = iota
	secret        // whatever it is, it goes
	tokens        // numbers are counters and stay, text goes
)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

var (
	// secretWord makes a name secret wherever it stands in it.
	secretWord = set(`password passwords passwd passwort passphrase pwd pw jsessionid phpsessid secret secrets credential credentials
		authorization cookie cookies bearer jwt otp mnemonic refresh apikey authkey privatekey secretkey accesskey`)
	// secretEnd does so at the end of a word written without its borders: PGPASSWORD, authtoken.
	secretEnd = []string{"password", "passwd", "passphrase", "secret", "apikey", "privatekey", "token", "credentials", "sessid"}
	// passwordWord says that a person chose the secret: a word with a digit is one.
	passwordWord = set("password passwords passwd passwort passphrase pwd pw pass pgpassword")
	// keyBefore makes "key" after it secret: api key, private-key.
	keyBefore = set(`api access private secret signing encryption auth account master session client service deploy consumer shared storage admin`)
	// about at the end makes a name one that is about a secret and holds none: token_type, passwordPolicy.
	about = set(`type types endpoint endpoints url uri urls name names policy expires expiry expiration expired at on length len
		count counts limit limits file files path paths dir folder method methods scheme scope scopes hint hints env var variable required
		enabled disabled details usage ttl format field fields header prompt manager provider store source size budget price cost
		interval rate version algorithm alg kind status valid ref label placeholder rotation strength consent banner parser jar
		error errors message reset ms seconds minutes available visible hidden shown supported allowed present set missing
		callback handler function validator input button icon page form age date time count exists index position ids policies`)
	// counter beside "token" makes it a number of tokens.
	counter = set(`max min count counts limit budget total used num number per input output prompt completion cached
		reasoning context window usage remaining estimated average avg new`)
)

// words splits a name at its borders: AWSSecretAccess_key -> aws secret access key.
func words(name string) []string {
	var out []string
	start := 0
	runes := []rune(name)
	flush := func(end int) {
		if end > start {
			out = append(out, strings.ToLower(string(runes[start:end])))
		}
	}
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			flush(i)
			start = i + 1
		case i > start && unicode.IsUpper(r) &&
			(!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])):
			flush(i)
			start = i
		}
	}
	flush(len(runes))
	return out
}

// nameKind judges the name of a value: an object key, a variable, a flag.
func nameKind(name string) kind {
	if len(name) > MaxKey || name == "PWD" || name == "OLDPWD" { // a shell's folder
		return harmless
	}
	for _, mark := range marks {
		name = strings.ReplaceAll(name, mark, "") // its words are ours
	}
	ws := words(name)
	if len(ws) == 0 {
		return harmless
	}
	last := ws[len(ws)-1]
	if about[last] || last == "id" && !slices.Contains(ws, "secret") {
		return harmless
	}
	if !hasSecretWord(ws) {
		if last == "tokens" {
			return tokens
		}
		return harmless
	}
	if slices.Contains(ws, "token") && slices.ContainsFunc(ws, func(w string) bool { return counter[w] }) {
		return tokens
	}
	return secret
}

func hasSecretWord(ws []string) bool {
	if ws[len(ws)-1] == "pass" {
		return true
	}
	for i, w := range ws {
		// refresh is a secret alone, or with a word that is: refreshInterval is none.
		if secretWord[w] && (w != "refresh" || len(ws) == 1) {
			return true
		}
		if w == "key" && i > 0 && keyBefore[ws[i-1]] {
			return true
		}
		for _, end := range secretEnd {
			if strings.HasSuffix(w, end) {
				return true
			}
		}
	}
	return false
}

// isPassword reports whether a name is that of a password.
func isPassword(name string) bool {
	return slices.ContainsFunc(words(name), func(w string) bool { return passwordWord[w] })
}

var (
	mcpAlways  = set("env environment stdio process pid serverpath")
	mcpProcess = set("command args cwd")
	bodyAlways = set("body contentbase64 database64")
	bodyOfFile = set("content contents before after diff patch data oldstring newstring")
	fileNames  = set("file filepath path filename mime mimetype mediatype encoding")
)

// plain is a key without case and separators, to be found in the sets above.
func plain(key string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '_', '-', ' ', '.':
			return -1
		}
		return unicode.ToLower(r)
	}, key)
}
