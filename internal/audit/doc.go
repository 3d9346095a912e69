package audit

import (
	"fmt"
	"strings"
)

// Document returns docs/audit-events.md. Run this package's tests with -update to write it.
func Document() string {
	var b strings.Builder
	b.WriteString(`# Audit events

Each line of an audit log is one of these types. Names and codes are stable. ` + "`broker`" + ` and ` + "`desktop`" + ` say in
whose log a line of that type stands; the two logs are joined by the hash of the envelope. The fields of a line and
their order are those of ` + "`wire.AuditLine`" + `; label, ip and ua are salted commitments, whose values stand in a
side table and can be erased without changing a byte of a line.

This file is written from the table in ` + "`internal/audit/types.go`" + `.

| code | type | log | meaning |
|---|---|---|---|
`)
	for _, k := range kinds {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", k.Code, k.Type, k.Where, k.Meaning)
	}
	return b.String()
}
