package cli

import (
	"fmt"
	"io"

	ucli "github.com/urfave/cli/v2"
)

// Build says what a program was built from. Its fields are those of
// telemetry.Build, so that a program converts one to the other.
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

// VersionCommand returns the version command, which --version runs as well.
func VersionCommand(b Build) *ucli.Command {
	return &ucli.Command{
		Name: "version", Usage: "say what this program was built from", Flags: []ucli.Flag{JSONFlag()},
		Action: func(c *ucli.Context) error {
			return Print(c, b, func(w io.Writer) error {
				commit := b.Commit
				if b.Modified {
					commit += " (modified)"
				}
				_, err := fmt.Fprintf(w, "%s %s\ncommit    %s\nbuilt     %s %s\nprotocol  %d to %d\n",
					c.App.Name, b.Version, commit, b.Go, b.Platform, b.ProtocolMin, b.ProtocolMax)
				return err
			})
		},
	}
}
