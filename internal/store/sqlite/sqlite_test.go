package sqlite

import (
	"path/filepath"
	"testing"

	"cowork.example.com/broker/internal/store/storetest"
)

func open(t testing.TB, dir string) storetest.Backend {
	s, err := Open(t.Context(), filepath.Join(dir, "broker.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) { storetest.Run(t, open) }
