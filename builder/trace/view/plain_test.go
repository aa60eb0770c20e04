package view

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/optbuild/optbuild/builder/trace"
)

// TestPlain looks at a view without an overlay above it: exactly what was asked for is in the record.
func TestPlain(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	write(t, filepath.Join(dir, "layer/a/f"), "hello", 0o640)
	write(t, filepath.Join(dir, "layer/a/g"), "hello", 0o640)
	write(t, filepath.Join(dir, "layer/b/h"), "hello", 0o640)
	at := filepath.Join(dir, "view")
	mkdir(t, at, 0o755)
	v := mountView(t, filepath.Join(dir, "layer"), at, Options{})
	if b, err := os.ReadFile(filepath.Join(at, "a/f")); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(at, "a/missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if entries, err := os.ReadDir(at); err != nil || len(entries) != 2 || entries[0].Name() != "a" || !entries[0].IsDir() {
		t.Errorf("got %v, %v", entries, err)
	}
	for range 2 { // also after it was closed
		got := record(t, v)
		want := map[string]trace.What{".": listed, "a": looked, "a/f": read, "a/missing": absent}
		for path, what := range want {
			if got[path]&^trace.Xattrs != what {
				t.Errorf("%s: got %v, want %v", path, got[path], what)
			}
		}
		if len(got) != len(want) {
			t.Errorf("got %v", got)
		}
		closeView(t, v)
	}
}

// TestPlainReadOnly tries to change a view.
func TestPlainReadOnly(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	write(t, filepath.Join(dir, "layer/f"), "hello", 0o644)
	at := filepath.Join(dir, "view")
	mkdir(t, at, 0o755)
	mountView(t, filepath.Join(dir, "layer"), at, Options{})
	f := filepath.Join(at, "f")
	for op, err := range map[string]error{
		"create": os.WriteFile(filepath.Join(at, "g"), nil, 0o644), "write": os.WriteFile(f, nil, 0o644), "chmod": os.Chmod(f, 0o600),
		"remove": os.Remove(f), "rename": os.Rename(f, f+"2"), "mkdir": os.Mkdir(filepath.Join(at, "d"), 0o755),
		"link": os.Link(f, f+"2"), "symlink": os.Symlink("f", f+"2"), "chtimes": os.Chtimes(f, time.Now(), time.Now()),
	} {
		if !isReadOnly(err) {
			t.Errorf("%s: got %v", op, err)
		}
	}
}

// TestPlainOptions has two views with one order, and mapped times of modification.
func TestPlainOptions(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	var order atomic.Uint32
	epoch := time.Unix(1_700_000_000, 5)
	o := Options{Order: &order, Modified: func(time.Time) time.Time { return epoch }}
	var views []*View
	for _, name := range []string{"one", "two"} {
		write(t, filepath.Join(dir, name, "f"), "hello", 0o644)
		at := filepath.Join(dir, "view-"+name)
		mkdir(t, at, 0o755)
		views = append(views, mountView(t, filepath.Join(dir, name), at, o))
	}
	for _, name := range []string{"two", "one"} {
		fi, err := os.Stat(filepath.Join(dir, "view-"+name, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if !fi.ModTime().Equal(epoch) {
			t.Errorf("got %v", fi.ModTime())
		}
	}
	var orders []uint32
	for _, v := range views {
		seen, err := v.Seen()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range seen {
			if s.Path == "f" {
				orders = append(orders, s.Order)
			}
		}
	}
	if len(orders) != 2 || orders[0] != 4 || orders[1] != 3 {
		t.Errorf("got places %v of the two files; the two roots have 1 and 2", orders)
	}
}

// TestPlainLinks has two names of one file: they are two names.
func TestPlainLinks(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	write(t, filepath.Join(dir, "layer/f"), "hello", 0o644)
	if err := os.Link(filepath.Join(dir, "layer/f"), filepath.Join(dir, "layer/g")); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "view")
	mkdir(t, at, 0o755)
	v := mountView(t, filepath.Join(dir, "layer"), at, Options{})
	f, err := os.Stat(filepath.Join(at, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if got := record(t, v); got["g"] != 0 {
		t.Errorf("got %v", got)
	}
	g, err := os.Stat(filepath.Join(at, "g"))
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(f, g) {
		t.Error("two names are one file")
	}
}

// TestSupported is about the machine as much as about the function.
func TestSupported(t *testing.T) {
	needMounts(t)
	if inUserNamespace() {
		return
	}
	// With nothing at /dev/fuse that could be opened, in a mount namespace that is the tests' own.
	dir := scratch(t)
	write(t, filepath.Join(dir, "fuse"), "", 0o600)
	hideDevice(t, filepath.Join(dir, "fuse"))
	if err := try(); err == nil {
		t.Error("got no error without a /dev/fuse")
	} else {
		t.Log(err)
	}
}
