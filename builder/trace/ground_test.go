package trace

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// longAgo is when the files of a test were modified; the stored run was later, and the test's changes are later still.
var (
	longAgo = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	started = time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
)

// ground is a layer's directory.
type ground struct {
	t   testing.TB
	dir string
}

func newGround(t testing.TB) ground {
	unix.Umask(0o022) // tests name modes
	return ground{t, t.TempDir()}
}

func (g ground) path(path string) string { return filepath.Join(g.dir, path) }

// must fails the test; its results are those of calls that can't go wrong if the test's ground is sound.
func (g ground) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// write makes a file, and what it is in, modified long ago.
func (g ground) write(path, content string) {
	g.t.Helper()
	g.must(os.MkdirAll(filepath.Dir(g.path(path)), 0o755))
	g.must(os.WriteFile(g.path(path), []byte(content), 0o644))
	g.touch(path, longAgo)
}

func (g ground) touch(path string, when time.Time) {
	g.t.Helper()
	g.must(os.Chtimes(g.path(path), when, when))
}

func (g ground) mkdir(path string) { g.t.Helper(); g.must(os.MkdirAll(g.path(path), 0o755)) }

func (g ground) remove(path string) { g.t.Helper(); g.must(os.RemoveAll(g.path(path))) }

func (g ground) link(path, target string) { g.t.Helper(); g.must(os.Symlink(target, g.path(path))) }

func (g ground) chmod(path string, mode os.FileMode) {
	g.t.Helper()
	g.must(os.Chmod(g.path(path), mode))
}

// chown changes a name's owner, or skips the test: a user namespace may have no other owner.
func (g ground) chown(path string, uid, gid int) {
	g.t.Helper()
	if err := os.Lchown(g.path(path), uid, gid); err != nil {
		g.t.Skipf("give a file to %d:%d: %v", uid, gid, err)
	}
}

// node makes a character device, or skips the test: only a whiteout (0:0) may be made by anybody.
func (g ground) node(path string, dev uint64) {
	g.t.Helper()
	g.remove(path)
	if err := unix.Mknod(g.path(path), unix.S_IFCHR|0o600, int(dev)); err != nil {
		g.t.Skipf("make device %d:%d: %v", unix.Major(dev), unix.Minor(dev), err)
	}
}

// setxattr sets an extended attribute, or skips the test where that can't be.
func (g ground) setxattr(path, name, value string) {
	g.t.Helper()
	if err := unix.Lsetxattr(g.path(path), name, []byte(value), 0); err != nil {
		g.t.Skipf("set extended attribute %s in %s: %v", name, g.dir, err)
	}
}

func (g ground) root() {
	g.t.Helper()
	if os.Geteuid() != 0 {
		g.t.Skip("needs root")
	}
}

func (g ground) capture(seen ...Seen) Layer {
	g.t.Helper()
	l, err := Capture(g.dir, seen)
	if err != nil {
		g.t.Fatal(err)
	}
	return l
}

// see makes what a view would have seen, in the order of the arguments.
func see(paths map[string]What) []Seen {
	var seen []Seen
	for path, what := range paths {
		seen = append(seen, Seen{path, what, uint32(len(seen) + 1)})
	}
	return seen
}
