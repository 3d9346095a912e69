package archtest

import (
	"path"
	"slices"
	"strings"
)

// row says where a package stands in the import table of docs/architecture.md.
type row struct {
	tier  int      // it may import every package of a lower tier, when named is empty
	named []string // if not nil: it may import these and nothing else of ours
	never []string // packages that it may not reach at all, not even through others
}

// sealing is what the broker's side must not contain: that the relay cannot read is a property of the build.
var sealing = []string{"pkg/seal", "pkg/surface", "internal/opencode", "internal/opencowork", "internal/keystore", "internal/journal"}

// storing is what a store may import: the nouns and interfaces that it implements, the ids of proof in which these speak, and
// the database.
var storing = []string{
	"pkg/wire", "pkg/proof", "internal/audit", "internal/mailbox", "pkg/pairing", "internal/operators", "internal/push",
	"internal/sqlitedb",
}

// rows is the import table. A package that is missing here fails the test: it first needs a place.
var rows = map[string]row{
	"pkg/wire":        {tier: 0, named: []string{}},
	"pkg/proof":       {tier: 0, named: []string{"pkg/wire"}},
	"internal/redact": {tier: 0, named: []string{}},

	"pkg/seal":           {tier: 1},
	"pkg/pairing":        {tier: 1},
	"pkg/tunnel":         {tier: 1},
	"pkg/contracttest":   {tier: 1, named: []string{"pkg/wire"}},
	"internal/audit":     {tier: 1},
	"internal/keystore":  {tier: 1},
	"internal/telemetry": {tier: 1},
	"internal/topology":  {tier: 1},
	"internal/limits":    {tier: 1},
	"internal/sqlitedb":  {tier: 1},
	"certs":              {tier: 1},
	"api":                {tier: 1},
	"web":                {tier: 1},
	"cmd/internal/cli":   {tier: 1},

	"internal/mailbox":   {tier: 2},
	"internal/contract":  {tier: 2},
	"internal/operators": {tier: 2},
	"internal/push":      {tier: 2},
	"pkg/surface":        {tier: 2},

	"internal/store/sqlite":   {tier: 3, named: storing},
	"internal/store/postgres": {tier: 3, named: storing},
	"internal/httpapi": {tier: 3, named: []string{
		"pkg/wire", "internal/contract", "internal/mailbox", "pkg/pairing", "pkg/proof", "pkg/tunnel", "internal/audit",
		"internal/topology", "internal/limits", "internal/operators", "internal/push", "api", "web", "internal/telemetry",
	}},
	"internal/journal":    {tier: 3, named: []string{"internal/sqlitedb", "pkg/wire", "pkg/proof", "pkg/pairing", "internal/audit"}},
	"internal/opencode":   {tier: 3, named: []string{"pkg/wire", "internal/redact"}},
	"internal/opencowork": {tier: 3, named: []string{"internal/contract", "pkg/wire", "internal/redact"}},

	"internal/broker": {tier: 4, never: sealing},
	"internal/agent":  {tier: 4, never: []string{"internal/store/sqlite", "internal/store/postgres", "internal/httpapi", "internal/mailbox"}},

	"cmd/broker": {
		tier: 5, never: sealing[:1],
		named: []string{
			"cmd/internal/cli", "pkg/wire", "internal/broker", "pkg/contracttest", "pkg/pairing", "internal/topology",
			"internal/audit", "internal/telemetry", "certs",
		},
	},
	"cmd/desktop-agent": {tier: 5, named: []string{
		"cmd/internal/cli", "pkg/wire", "internal/agent", "pkg/contracttest", "pkg/pairing", "internal/topology",
		"internal/audit", "internal/telemetry",
	}},
	"cmd/surface": {tier: 5, named: []string{"cmd/internal/cli", "pkg/wire", "pkg/surface", "internal/keystore", "internal/telemetry"}},
}

// helper says whether a package exists for tests, measurements or demonstrations only: it may import anything, and
// nothing of the product may import it.
func helper(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	_, known := rows[name]
	switch {
	case known:
		return false
	case first == "e2e", first == "bench", first == "tools":
		return true
	case name == "internal/mailbox/model", strings.HasPrefix(name, "internal/mailbox/model/"):
		return true // the explorer of the mailbox's state table: `make model`
	}
	return strings.HasSuffix(path.Base(name), "test") // tunneltest, storetest, archtest
}

// libraries says where a third-party module may be imported outside tests: the longest matching prefix counts, and a
// module that is not here is not allowed at all. A folder stands for all packages below it.
var libraries = map[string][]string{
	"nhooyr.io/websocket":                   {"pkg/tunnel"},
	"github.com/hashicorp/yamux":            {"pkg/tunnel"},
	"github.com/urfave/cli/v2":              {"cmd"},
	"github.com/go-webauthn/webauthn":       {"internal/operators"},
	"github.com/SherClockHolmes/webpush-go": {"internal/push"},
	"filippo.io/age":                        {"internal/broker"},
	"modernc.org/sqlite":                    {"internal/sqlitedb"},
	"github.com/jackc/pgx/v5":               {"internal/store/postgres"},
	"github.com/pressly/goose/v3":           {"internal/sqlitedb", "internal/store"},
	"github.com/prometheus/client_golang":   {"internal/telemetry"},
	"github.com/zalando/go-keyring":         {"internal/keystore"},
	"rsc.io/qr":                             {"cmd/desktop-agent"},
	"golang.org/x/mod/sumdb":                {"internal/audit"},
	"golang.org/x/crypto/acme":              {"certs"},
	"golang.org/x/crypto/argon2":            {"internal/operators"},
	"golang.org/x/net/proxy":                {"pkg/tunnel"},
	"golang.org/x/net/http/httpproxy":       {"pkg/tunnel"},
	"golang.org/x/net/http/httpguts":        {"pkg/tunnel"},
	"golang.org/x/time/rate":                {"internal/limits", "pkg/tunnel"},
	"golang.org/x/term":                     {"cmd"},
	"golang.org/x/sys":                      {"cmd", "certs", "internal", "pkg/tunnel", "pkg/surface"},
	"golang.org/x/sync":                     {"internal", "pkg/tunnel", "pkg/surface"},
	"crypto/hpke":                           {"pkg/seal"},
	"database/sql":                          {"internal/sqlitedb", "internal/store", "internal/journal"},
}

// pure are the packages without input and output: what they know is given to them, the time included.
var pure = []string{"pkg/wire", "pkg/proof", "pkg/seal", "pkg/pairing", "internal/redact", "internal/mailbox"}

// impure are the standard packages that a pure one may not import.
var impure = []string{"os", "os/exec", "net", "net/http", "database/sql", "syscall", "log"}

// timeless may not read the clock: the caller passes the time, so that it is one value for a whole decision.
var timeless = append([]string{"internal/store/sqlite", "internal/store/postgres", "internal/journal", "internal/audit", "internal/contract"}, pure...)

// vague names say nothing about what a package is for.
var vague = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "types", "models"}

const (
	maxFileLines = 500
	maxFuncLines = 80
)

// under says whether a package is one of the folders or below one.
func under(name string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return name == f || strings.HasPrefix(name, f+"/") })
}
