package main

import (
	"os"
	"path/filepath"
	"testing"
)

// What is discarded is out of the way, and its files are still there: who builds next does not pay for their deletion.
func TestDiscard(t *testing.T) {
	b := &bench{}
	b.Dir = t.TempDir()
	if free, err := freeBytes(b.Dir); err != nil || free < wanted {
		t.Skipf("%d bytes are free (%v): what is discarded would be deleted", free, err)
	}
	root := filepath.Join(b.Dir, "state")
	for range 2 {
		if err := os.MkdirAll(root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.discard(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(root); !os.IsNotExist(err) {
			t.Errorf("it is there: %v", err)
		}
	}
	if err := b.discard(t.Context(), root); err != nil {
		t.Errorf("nothing to discard: %v", err)
	}
	kept, err := filepath.Glob(filepath.Join(b.Dir, "discarded", "*", "file"))
	if err != nil || len(kept) != 2 {
		t.Errorf("kept %v (%v), want two files", kept, err)
	}
}
