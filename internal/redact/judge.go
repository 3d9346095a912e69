package redact

import (
	"encoding/base64"
	"regexp"
	"strings"
	"unicode"
)

// The functions here judge a match of a shape: m[0] is all of it, the last
// group the value.

func value(m []string) string { return m[secretGroup(m)] }

// mixed wants a digit and a letter: prose and style names have none.
func mixed(m []string) bool { return hasDigit(value(m)) && hasLetter(value(m)) }

// modelKey is mixed, and not the name of an SSH key kept on a security key.
func modelKey(m []string) bool {
	return mixed(m) && !strings.HasPrefix(m[0], "sk-ssh-") && !strings.HasPrefix(m[0], "sk-ecdsa-")
}

// valued wants anything but a placeholder.
func valued(m []string) bool { return !placeholder(value(m)) }

// notNumeral tells user:password from the ids of a user and a group.
func notNumeral(m []string) bool { return valued(m) && !isNumeral(value(m)) }

// likely wants what no word of a sentence is.
func likely(m []string) bool {
	v := strings.TrimRight(value(m), ".,;:!?)")
	return !placeholder(v) && random(v)
}

// told wants what a sentence says of a secret: random, or after the name of a
// password a word with a digit.
func told(m []string) bool {
	v := strings.TrimRight(value(m), ".,;:!?)")
	return likely(m) || isPassword(m[0]) && mixed([]string{v}) && !placeholder(v)
}

// bare is told for a value that follows the name of a password at once.
func bare(m []string) bool {
	v := strings.TrimRight(value(m), ".,;:!?)")
	if !mixed([]string{v}) || placeholder(v) {
		return false
	}
	return isPassword(m[0]) && len(v) >= 6 || len(v) >= 20 && random(v)
}

// header takes a whole header value with its scheme.
func header(m []string) bool {
	v := value(m)
	if scheme, rest, ok := strings.Cut(v, " "); ok && schemes[strings.ToLower(scheme)] {
		return !placeholder(strings.TrimSpace(rest)) && (random(rest) || len(rest) >= 20)
	}
	return !placeholder(v) && random(v)
}

var schemes = set("bearer basic digest token apikey negotiate hawk aws4-hmac-sha256 signature dpop")

// basic wants base64 of "user:password".
func basic(m []string) bool {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value(m), "="))
	if err != nil || !strings.Contains(string(b), ":") {
		return false
	}
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// codeWord is an identifier, a call or a path of them: what code assigns.
var codeWord = regexp.MustCompile(`^[A-Za-z_$][\w$]*(?:(?:\.|::|->|\[)[\w$]*\]?)*(?:\(.*)?$`)

// codeStart is the beginning of an identifier or of a reference to one.
var codeStart = regexp.MustCompile(`^&?[A-Za-z_$][\w$.\[\]:>-]*$`)

// stand are words that stand where a secret will be, or for its absence.
var stand = set(`string str text bytes byte int integer number bool boolean any object true false null nil none undefined required optional
	missing invalid expired unknown unset empty redacted hidden masked placeholder changeme example secret password token credential
	value here your my default yes no not is the a an and or in on of for to from with was be must should can will may has have
	never always please enter type check see use used using wrong incorrect correct valid rejected revoked accepted denied
	static generated random ephemeral temporary const let var func new return self this process.env os.environ todo tbd n/a
	key session user admin refresh access bearer basic oauth oauth2 jwt file env prompt keyring keychain vault`)

// placeholder reports whether v stands for a value instead of being one.
func placeholder(v string) bool {
	v = strings.Trim(v, " \t\"'`\\,;")
	if strings.Trim(v, ".") == "" || stand[strings.ToLower(v)] {
		return true
	}
	switch v[0] {
	case '$', '<', '{', '%', '[', '(', '&', '*', '#', '|', '@':
		return !random(v) || v[0] == '$' && (strings.HasPrefix(v, "${") || strings.HasPrefix(v, "$(") || codeWord.MatchString(v)) ||
			v[0] == '<' && strings.Contains(v, ">") || strings.HasPrefix(v, "{{")
	}
	lower := strings.ToLower(v)
	if strings.HasSuffix(v, "..") && len(v) <= 12 {
		return true
	}
	return holdsAny(lower, standIn) || !hasDigit(v) && holdsAny(lower, standInWord) || strings.Contains(v, "(") && codeWord.MatchString(v)
}

var (
	standIn     = []string{"xxxx", "****", "....", "redacted", "os.getenv", "process.env", "os.environ", "import.meta", "env.", "env("}
	standInWord = []string{"your", "example", "changeme", "placeholder"}
)

func holdsAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// random reports whether v looks made by a machine or a careful person:
// digits among letters, capitals inside, or signs no word has.
func random(v string) bool {
	if len(v) < 4 {
		return false
	}
	if hasDigit(v) && (hasLetter(v) || len(v) >= 6) {
		return !versionLike.MatchString(v)
	}
	if strings.ContainsAny(v, "!@#%^&*+~?") && hasLetter(v) {
		return true
	}
	return len(v) >= 20 && hasUpper(v) && hasLower(v) && !codeWord.MatchString(v) || len(v) >= 12 && jumps(v) >= 3
}

// versionLike is v1, 1.2.3, 10s, sha256 and such: a digit, yet no secret.
var versionLike = regexp.MustCompile(`^(?:[vV]?\d+(?:\.\d+)*(?:ms|s|m|h|d|k|kB|MB)?|[A-Za-z]?[a-z]{1,7}[-_.]?\d{1,3}(?:\.\d+)*|[a-z_]+\d?\(.*)$`)

// jumps counts the capitals that follow a small letter.
func jumps(v string) int {
	n := 0
	for i := 1; i < len(v); i++ {
		if v[i] >= 'A' && v[i] <= 'Z' && v[i-1] >= 'a' && v[i-1] <= 'z' {
			n++
		}
	}
	return n
}

func hasDigit(v string) bool  { return strings.ContainsFunc(v, unicode.IsDigit) }
func hasLetter(v string) bool { return strings.ContainsFunc(v, unicode.IsLetter) }
func hasUpper(v string) bool  { return strings.ContainsFunc(v, unicode.IsUpper) }
func hasLower(v string) bool  { return strings.ContainsFunc(v, unicode.IsLower) }
