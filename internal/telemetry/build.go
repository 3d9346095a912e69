package telemetry

import (
	"runtime"
	"runtime/debug"

	"cowork.example.com/broker/pkg/wire"
)

// Build says what a program was built from. cli.Build has the same fields, so
// that one converts to the other.
type Build struct {
	Version     string `json:"version"`     // release, or "devel"
	Commit      string `json:"commit"`      // full hash, or "" when unknown
	Modified    bool   `json:"modified"`    // built from files that differ from the commit
	Time        string `json:"time"`        // of the commit, RFC 3339, or ""
	Go          string `json:"go"`          // toolchain
	Platform    string `json:"platform"`    // os/arch
	ProtocolMin int    `json:"protocolMin"` // lowest tunnel protocol it speaks
	ProtocolMax int    `json:"protocolMax"` // highest
}

// BuildInfo returns what the toolchain wrote into this program.
func BuildInfo() Build {
	info, _ := debug.ReadBuildInfo()
	return buildFrom(info)
}

// buildFrom reads info, which is nil in a program built without modules.
func buildFrom(info *debug.BuildInfo) Build {
	b := Build{
		Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		ProtocolMin: wire.ProtocolMin, ProtocolMax: wire.ProtocolMax,
	}
	if info == nil {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}
