//go:build unix && !linux

package sqlitedb

import "testing"

func smallDisk(*testing.T, string) bool { return false }
