package cache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDuStaysOnFileSystem(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"own", "mounted"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(dir, "mounted")
	if err := unix.Mount("du", at, "tmpfs", 0, ""); errors.Is(err, unix.EPERM) {
		t.Skip("what is mounted can't be tested: mount: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(at, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := Du(dir, nil, func(path string, _ int64) { got = append(got, strings.TrimPrefix(path, dir)) }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "/own"}; !slices.Equal(got, want) {
		t.Errorf("Du counted %q, want %q", got, want)
	}
}
