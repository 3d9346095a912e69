package sqlitedb

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a disk of 2 MB at dir, for root.
func smallDisk(t *testing.T, dir string) bool {
	if os.Geteuid() != 0 {
		return false
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // runs after the store is closed, before the folder is removed
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return true
}
