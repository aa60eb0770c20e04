package export

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/sysx"
	"github.com/moby/buildkit/util/overlay"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/export/strip"
)

// stack is a pile of layers, made as BuildKit makes them: each by changing files in an overlay of those below.
type stack struct {
	t    *testing.T
	root string
	dirs []string // the lowest first
}

func newStack(t *testing.T) *stack {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount overlayfs and make devices")
	}
	s := &stack{t: t, root: t.TempDir()}
	s.layer(func(string) {})
	return s
}

// layer adds a layer; f changes the files.
func (s *stack) layer(f func(root string)) {
	s.t.Helper()
	n := len(s.dirs)
	dir := filepath.Join(s.root, fmt.Sprint(n), "fs")
	work, empty := dir+"-work", dir+"-empty"
	for _, d := range []string{dir, work, empty} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	m := mount.Mount{Type: "overlay", Source: "overlay", Options: []string{"upperdir=" + dir, "workdir=" + work, "lowerdir=" + strings.Join(s.from(n, 0, empty), ":")}}
	if err := mount.WithTempMount(s.t.Context(), []mount.Mount{m}, func(root string) error { f(root); return nil }); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
			s.t.Skip("overlayfs can't be mounted here: ", err)
		}
		s.t.Fatal(err)
	}
	s.dirs = append(s.dirs, dir)
}

// from lists the layers from to-1 down to first, and then the others given.
func (s *stack) from(to, first int, more ...string) (dirs []string) {
	for i := to - 1; i >= first; i-- {
		dirs = append(dirs, s.dirs[i])
	}
	return append(dirs, more...)
}

// union is that of the layers from first on; made says which of the layers RUNs made.
func (s *stack) union(first int, residue func(string) string, made func(int) bool) *union {
	u := &union{}
	if residue != nil {
		u.residue = func(path string) strip.Residue { return strip.Residue{Rule: residue(path)} }
		u.near = func(string) bool { return true }
	}
	for i := len(s.dirs) - 1; i >= 0; i-- {
		d := directory{path: s.dirs[i], made: made(i)}
		if i >= first {
			u.members = append(u.members, d)
		} else {
			u.lower = append(u.lower, d)
		}
	}
	return u
}

func every(int) bool { return true }

// tar is the layer of a union.
func (s *stack) tar(u *union) []byte {
	s.t.Helper()
	list, err := u.changes(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var b bytes.Buffer
	if err := u.writeTar(s.t.Context(), &b, list, mount.Mount{}); err != nil {
		s.t.Fatal(err)
	}
	return b.Bytes()
}

// step is the layer that BuildKit makes of one step.
func (s *stack) step(i int) []byte {
	s.t.Helper()
	empty := filepath.Join(s.root, "empty")
	if err := os.MkdirAll(empty, 0o755); err != nil {
		s.t.Fatal(err)
	}
	lower := []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + strings.Join(s.from(i, 0, empty, empty+"2"), ":")}}}
	if err := os.MkdirAll(empty+"2", 0o755); err != nil {
		s.t.Fatal(err)
	}
	var b bytes.Buffer
	if err := overlay.WriteUpperdir(s.t.Context(), &b, s.dirs[i], lower); err != nil {
		s.t.Fatal(err)
	}
	return b.Bytes()
}

// applied are the files of layers that are unpacked over each other.
func (s *stack) applied(layers ...[]byte) map[string]string {
	s.t.Helper()
	dir := filepath.Join(s.root, fmt.Sprintf("applied-%d", rand.Int()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for _, l := range layers {
		if _, err := archive.Apply(s.t.Context(), dir, bytes.NewReader(l)); err != nil {
			s.t.Fatal(err)
		}
	}
	return tree(s.t, dir)
}

// linkedTo, after a name, stands for what tells of a file that another name of it comes before.
const linkedTo = " is"

// tree describes each file. Directories have no times: layers don't keep those of directories in which something changed later.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		st := fi.Sys().(*syscall.Stat_t)
		s := fmt.Sprintf("%v %d:%d", fi.Mode(), st.Uid, st.Gid)
		if !fi.IsDir() {
			s += fmt.Sprintf(" %d %d", st.Rdev, fi.ModTime().Unix())
			if st.Nlink > 1 {
				if first, ok := inodes[st.Ino]; ok {
					files[rel+linkedTo] = first
				} else {
					inodes[st.Ino] = rel
				}
			}
		}
		if v, err := sysx.LGetxattr(path, "security.capability"); err == nil {
			s += fmt.Sprintf(" capability %x", v)
		}
		switch {
		case fi.Mode()&os.ModeSymlink != 0:
			to, _ := os.Readlink(path)
			s += " -> " + to
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %d bytes %s", len(b), digestOf(b)[:8])
		}
		files[rel] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// differences are printed as lines, "" if there are none.
func differences(want, got map[string]string) string {
	var b strings.Builder
	all := maps.Clone(want)
	maps.Copy(all, got)
	for _, p := range slices.Sorted(maps.Keys(all)) {
		// One layer may keep two names of a file together that several tear apart.
		if want[p] != got[p] && (want[p] != "" || !strings.HasSuffix(p, linkedTo)) {
			fmt.Fprintf(&b, "%s:\n  got  %s\n  want %s\n", p, got[p], want[p])
		}
	}
	return b.String()
}

func entries(t *testing.T, layer []byte) (list []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(layer))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h.Name)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, root, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
	must(t, os.WriteFile(filepath.Join(root, path), []byte(text), 0o644))
}

// disturb changes something below root as a step might.
func disturb(t *testing.T, r *rand.Rand, root string) {
	t.Helper()
	long := strings.Repeat("long", 60)
	names := []string{"a", "b", "c", "d", "e", "with space", long}
	pick := func() string {
		p := root
		for range 1 + r.IntN(3) {
			p = filepath.Join(p, names[r.IntN(len(names))])
		}
		return p
	}
	p := pick()
	ready := func() bool { // for something new at p
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return false // a file is in the way
		}
		if _, err := os.Lstat(p); err == nil {
			must(t, os.RemoveAll(p))
		}
		return true
	}
	existing := func() bool { _, err := os.Lstat(p); return err == nil }
	remove := func(p string) { // os.RemoveAll would open what is above it, and wait there if that is a fifo
		if _, err := os.Lstat(p); err == nil {
			must(t, os.RemoveAll(p))
		}
	}
	stamp := func() {
		tv := []unix.Timeval{{Sec: int64(1e9 + r.IntN(1000))}, {Sec: int64(1e9 + r.IntN(1000))}}
		if r.IntN(2) == 0 {
			must(t, unix.Lutimes(p, tv))
		}
	}
	switch r.IntN(16) {
	case 0, 1, 2:
		if ready() {
			must(t, os.WriteFile(p, []byte(strings.Repeat("x", r.IntN(3000))), 0o600|fs.FileMode(r.IntN(64))))
			stamp()
		}
	case 3, 4:
		if ready() {
			must(t, os.Mkdir(p, 0o700|fs.FileMode(r.IntN(64))))
		}
	case 5, 6, 7:
		remove(p)
	case 8: // replaced by a directory, and so opaque
		if ready() {
			must(t, os.MkdirAll(filepath.Join(p, names[r.IntN(len(names))]), 0o755))
		}
	case 9:
		if q := pick(); existing() && q != p {
			if fi, err := os.Lstat(p); err == nil && !fi.IsDir() && os.MkdirAll(filepath.Dir(q), 0o755) == nil {
				if fi, err := os.Lstat(q); err != nil || !fi.IsDir() {
					_ = os.Remove(q)
					must(t, os.Link(p, q))
				}
			}
		}
	case 10:
		if existing() {
			must(t, os.Lchown(p, r.IntN(3), r.IntN(3)))
		}
	case 11:
		if fi, err := os.Lstat(p); err == nil && fi.Mode()&os.ModeSymlink == 0 {
			must(t, os.Chmod(p, fs.FileMode(0o700|r.IntN(64))|[]fs.FileMode{0, os.ModeSetuid, os.ModeSticky}[r.IntN(3)]))
		}
	case 12:
		if ready() {
			must(t, os.Symlink(names[r.IntN(len(names))], p))
			stamp()
		}
	case 13:
		if ready() {
			if r.IntN(2) == 0 {
				must(t, unix.Mkfifo(p, 0o644))
			} else {
				must(t, unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, uint32(1+r.IntN(9))))))
			}
		}
	case 14:
		if ready() { // sparse, with a capability
			must(t, os.WriteFile(p, nil, 0o755))
			must(t, os.Truncate(p, 70_000))
			must(t, unix.Setxattr(p, "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
		}
	case 15:
		if q := pick(); existing() && !strings.HasPrefix(q, p) && !strings.HasPrefix(p, q) && os.MkdirAll(filepath.Dir(q), 0o755) == nil {
			remove(q)
			if err := os.Rename(p, q); err != nil && !errors.Is(err, unix.EXDEV) {
				t.Fatal(err)
			}
		}
	}
}
