package export

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/optbuild/optbuild/builder/export/strip"
)

// TestTouched has a file that one member changes, and that the next one gives the time that it had below: the whole unit has changed it.
func TestTouched(t *testing.T) {
	at := time.Unix(1700000000, 123456789)
	layer := func(content string, mtime time.Time) string {
		dir := t.TempDir()
		file := filepath.Join(dir, "f")
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, mtime, mtime); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	below := directory{path: layer("hello", at)}
	for _, c := range []struct {
		what    string
		members []directory // topmost first
		changed bool
	}{
		{"changed, and touched", []directory{{path: layer("HELLO", at), made: true}, {path: layer("HELLO", at.Add(time.Second)), made: true}}, true},
		{"copied up twice", []directory{{path: layer("hello", at), made: true}, {path: layer("hello", at), made: true}}, false},
		{"touched and touched back", []directory{{path: layer("hello", at), made: true}, {path: layer("hello", at.Add(time.Second)), made: true}}, true}, // as in two layers
	} {
		u := union{members: c.members, lower: []directory{below}}
		list, err := u.changes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.ContainsFunc(list, func(c change) bool { return c.path == "/f" }); got != c.changed {
			t.Errorf("%s: changed %v, want %v", c.what, got, c.changed)
		}
	}
}

// TestLinksThroughLinks keeps what a link leads to by way of another one.
func TestLinksThroughLinks(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"cache/archive", "cache/wheels", "cache/other", "bin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"cache/archive/tool", "cache/other/unused"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"cache/wheels/abc": "/cache/archive", "bin/tool": "/cache/wheels/abc/tool", "cache/wheels/round": "/cache/wheels/round/x"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	u := union{members: []directory{{path: dir, made: true}}, residue: func(path string) strip.Residue {
		if len(path) > len("/cache") && path[:len("/cache/")] == "/cache/" {
			return strip.Residue{Rule: "uv"}
		}
		return strip.Residue{}
	}}
	list, err := u.changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]string{}
	for _, c := range list {
		rules[c.path] = c.rule
	}
	for path, want := range map[string]string{"/bin/tool": "", "/cache/wheels/abc": "", "/cache/archive/tool": "", "/cache/other/unused": "uv", "/cache/wheels/round": "uv"} {
		if got, ok := rules[path]; !ok || got != want {
			t.Errorf("%s: rule %q, want %q", path, got, want)
		}
	}
}

// TestDirectoryID tells a directory from an earlier one that had its name.
func TestDirectoryID(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "7")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	first := directoryID(dir)
	if again := directoryID(dir); again != first {
		t.Errorf("%q, and then %q", first, again)
	}
	if err := os.Rename(dir, filepath.Join(top, "old")); err != nil { // it stays, so that its inode is not given away
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if second := directoryID(dir); second == first {
		t.Errorf("%q for another directory", second)
	}
}
