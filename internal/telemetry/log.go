package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"cowork.example.com/broker/internal/redact"
)

// Secret is a value whose text must not be logged: redact.Secret, and any type
// that offers its text under this name.
type Secret interface{ Reveal() string }

// LogFormat is how log lines are written, as --log-format names it.
type LogFormat string

// The formats.
const (
	LogAuto LogFormat = "auto" // text on a terminal, else JSON
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// NewLogger returns a logger that writes lines of at least a level to w.
// Secrets are replaced by a mark: values that are a Secret, and what looks
// like one inside messages, strings and errors.
func NewLogger(w io.Writer, format LogFormat, level slog.Leveler) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: hide}
	switch {
	case format == LogText, format == LogAuto && isTerminal(w):
		return slog.New(slog.NewTextHandler(w, o)), nil
	case format == LogJSON, format == LogAuto:
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("unknown log format %q: auto, text or json", format)
}

// ParseLevel reads debug, info, warn or error.
func ParseLevel(s string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return 0, fmt.Errorf("unknown log level %q: debug, info, warn or error", s)
	}
	return l, nil
}

// isTerminal takes every character device but the null one for a terminal:
// for the form of a log that is exact enough.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || f.Name() == os.DevNull {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// hide replaces what an attribute must not show. Values whose type tells how
// it is logged were resolved before.
func hide(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value; v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(redact.Secrets(v.String()))
	case slog.KindAny:
		a.Value = hideAny(v.Any())
	}
	return a
}

// hideAny keeps the values that slog itself passes and that hold no text, and
// writes all others out, since a secret may sit in any field.
func hideAny(v any) slog.Value {
	switch v := v.(type) {
	case Secret:
		return slog.StringValue(redact.Mark)
	case nil, *slog.Source, slog.Level:
		return slog.AnyValue(v)
	case []byte:
		return slog.StringValue(fmt.Sprintf("%d bytes", len(v)))
	}
	return slog.StringValue(redact.Secrets(fmt.Sprintf("%+v", v)))
}
