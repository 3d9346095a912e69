package cli

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	ucli "github.com/urfave/cli/v2"
)

// JSONFlag returns the --json flag of a command whose output a script reads.
func JSONFlag() ucli.Flag {
	return &ucli.BoolFlag{Name: "json", Usage: "print JSON for scripts"}
}

// Print writes v as JSON if --json is given, else what text writes for people.
func Print(c *ucli.Context, v any, text func(w io.Writer) error) error {
	if c.Bool("json") {
		return WriteJSON(c.App.Writer, v)
	}
	return text(c.App.Writer)
}

// WriteJSON writes v indented, with a newline at its end.
func WriteJSON(w io.Writer, v any) error {
	e := encoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// WriteJSONLine writes v on one line: for streams, one value a line.
func WriteJSONLine(w io.Writer, v any) error { return encoder(w).Encode(v) }

func encoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// Table writes rows under a header in aligned columns, two spaces apart. Cells
// are cleaned, since labels and titles come from other machines.
func Table(w io.Writer, header []string, rows [][]string) error {
	all := append([][]string{header}, rows...)
	widths := make([]int, len(header))
	for r, row := range all {
		clean := make([]string, len(row))
		for i, cell := range row {
			clean[i] = Clean(cell)
			if i < len(widths) {
				widths[i] = max(widths[i], utf8.RuneCountInString(clean[i]))
			}
		}
		all[r] = clean
	}
	var b strings.Builder
	for _, row := range all {
		b.WriteString(tableLine(row, widths))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func tableLine(row []string, widths []int) string {
	var b strings.Builder
	for i, cell := range row {
		b.WriteString(cell)
		if i < len(row)-1 && i < len(widths) {
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// Clean makes text from elsewhere fit for one line of a terminal: control and
// direction characters, which could move the cursor or fake other text, and
// invalid UTF-8 become spaces or question marks.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r),
			r == '\u2028', r == '\u2029', unicode.Is(unicode.Cf, r) && r != '\u200d':
			return '?'
		}
		return r
	}, s)
}

// Duration says how long in the one or two units that matter: "340 ms",
// "12 s", "4 min 5 s", "3 h 20 min", "2 d 4 h".
func Duration(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return units(d, time.Second, "s", 0, "")
	case d < time.Hour:
		return units(d, time.Minute, "min", time.Second, "s")
	case d < 24*time.Hour:
		return units(d, time.Hour, "h", time.Minute, "min")
	}
	return units(d, 24*time.Hour, "d", time.Hour, "h")
}

func units(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	s := strconv.FormatInt(int64(d/big), 10) + " " + bigName
	if small > 0 && d%big >= small {
		s += " " + strconv.FormatInt(int64(d%big/small), 10) + " " + smallName
	}
	return s
}

// maxRelative is the distance beyond which a date says more.
const maxRelative = 30 * 24 * time.Hour

// Relative says when t is, seen from now: "just now", "4 min ago", "in 2 h",
// or the local date when it is far. The zero time is "never".
func Relative(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d.Abs() < time.Second:
		return "just now"
	case d.Abs() > maxRelative:
		return t.Local().Format("2006-01-02")
	case d < 0:
		return "in " + coarse(-d)
	}
	return coarse(d) + " ago"
}

// coarse is Duration in its larger unit only.
func coarse(d time.Duration) string {
	fields := strings.Fields(Duration(d))
	return fields[0] + " " + fields[1]
}
