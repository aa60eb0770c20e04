package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestVolume(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	dir := filepath.Join(t.TempDir(), "bench")
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	device := func() (s unix.Stat_t) {
		if err := unix.Stat(dir, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := device()
	unmount, err := mountVolume(dir)
	if err != nil {
		t.Skipf("this machine can't: %v", err)
	}
	if device().Dev == before.Dev {
		t.Error("it is the same file system")
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	if err := unmount(); err != nil {
		t.Fatal(err)
	}
	if after := device(); after.Dev != before.Dev || after.Ino != before.Ino {
		t.Error("it is still mounted")
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}
