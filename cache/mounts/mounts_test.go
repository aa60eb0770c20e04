package mounts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// blobs is a store in memory.
type blobs struct {
	mu   sync.Mutex
	all  map[digest.Digest][]byte
	puts int
}

func (s *blobs) Put(_ context.Context, d ocispecs.Descriptor, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[digest.Digest][]byte{}
	}
	s.all[d.Digest] = b
	s.puts++
	return nil
}

type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }

func (s *blobs) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.all[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return blob{bytes.NewReader(b)}, nil
}

// list describes all that a directory has that archives keep, one line for each name.
func list(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%q %o %d:%d %d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Nano())
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes %x", len(b), sha256.Sum256(b))
			if first, ok := inodes[st.Ino]; ok {
				line += " = " + first
			} else if st.Nlink > 1 {
				inodes[st.Ino] = rel
			}
			v := make([]byte, 100)
			if n, err := unix.Lgetxattr(p, "user.x", v); err == nil {
				line += " user.x=" + string(v[:n])
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// put writes files; a name that ends in a slash is a directory.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(p, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(files[p]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// later sets the package's clock until the test ends.
func later(t *testing.T, f func() time.Time) {
	before := now
	now = f
	t.Cleanup(func() { now = before })
}

func save(t *testing.T, dir string, s *blobs, o SaveOptions) *Saved {
	t.Helper()
	a, err := Save(t.Context(), dir, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// restored makes a directory of what the store has of an archive.
func restored(t *testing.T, s *blobs, d ocispecs.Descriptor) string {
	t.Helper()
	m, err := Fetch(t.Context(), s, d, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := Restore(t.Context(), dir, m, s); err != nil {
		t.Fatal(err)
	}
	return dir
}

func noise(seed uint64, n int) string {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return string(b)
}

// oddTree has one of everything that archives keep.
func oddTree(t *testing.T) string {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"a/b/c/deep": "deep", "a-": "before a/", "a.b": "x", "empty": "", "none/": "", "large": noise(1, 2*ChunkBytes+7),
		"zeros": string(make([]byte, 2*ChunkBytes)), "same": "deep", "name\nwith\xff\\odd \u00e9": "odd", "-rf": "x", ".hidden": "x", "linked": "two names",
	})
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.Link(filepath.Join(dir, "linked"), filepath.Join(dir, "a/other-name")))
	do(os.Symlink("../../../etc/passwd", filepath.Join(dir, "out")))
	do(os.Symlink("a/b", filepath.Join(dir, "in")))
	do(os.Symlink("nowhere\xff", filepath.Join(dir, "dangling")))
	do(os.Chmod(filepath.Join(dir, "same"), 0o4))
	do(os.Chmod(filepath.Join(dir, "none"), fs.ModeSticky|fs.ModeSetgid|0o770))
	do(os.Chmod(filepath.Join(dir, "a/b"), 0o500))
	if os.Getuid() == 0 {
		do(os.Lchown(filepath.Join(dir, "in"), 7, 8))
		do(os.Lchown(filepath.Join(dir, "a.b"), 1000, 1001))
		do(os.Lchown(filepath.Join(dir, "a"), 33, 34))
	}
	if err := unix.Setxattr(filepath.Join(dir, "a.b"), "user.x", []byte("kept"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	ns := int64(1_600_000_000_123_456_789)
	do(filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		ns += 1_000_000_007
		ts := unix.NsecToTimespec(ns)
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}))
	return dir
}

func TestRoundTrip(t *testing.T) {
	dir := oddTree(t)
	s := &blobs{}
	a := save(t, dir, s, SaveOptions{})
	if a.LeftOut != (LeftOut{}) {
		t.Errorf("left out: %v", a.LeftOut)
	}
	got := restored(t, s, a.Descriptor)
	if got, want := list(t, got), list(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// What is made from the copy is the same archive.
	if b := save(t, got, &blobs{}, SaveOptions{}); b.Descriptor.Digest != a.Descriptor.Digest {
		t.Error("the copy has another archive")
	}
}

func TestHoles(t *testing.T) {
	dir := oddTree(t)
	s := &blobs{}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(restored(t, s, save(t, dir, s, SaveOptions{}).Descriptor), "zeros"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 2*ChunkBytes || st.Blocks*512 > ChunkBytes {
		t.Errorf("%d bytes take %d", st.Size, st.Blocks*512)
	}
}

func TestEmpty(t *testing.T) {
	s := &blobs{}
	a := save(t, t.TempDir(), s, SaveOptions{})
	if len(a.Manifest.Entries) != 1 || len(a.Manifest.Packs) != 0 {
		t.Errorf("%d entries, %d packs", len(a.Manifest.Entries), len(a.Manifest.Packs))
	}
	if names, _ := readNames(restored(t, s, a.Descriptor)); len(names) != 0 {
		t.Errorf("%q", names)
	}
}

// An archive says the same whatever the order of names in the directory, whoever made it and when.
func TestDeterministic(t *testing.T) {
	var digests []digest.Digest
	for i := range 2 {
		dir := t.TempDir()
		files := map[string]string{}
		for j := range 300 {
			files[fmt.Sprintf("d%d/f%d", j%7, j)] = noise(uint64(j), 1000)
		}
		names := slices.Sorted(maps.Keys(files))
		if i == 1 {
			slices.Reverse(names)
		}
		for _, n := range names {
			put(t, dir, map[string]string{n: files[n]})
		}
		if err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0)))
		}); err != nil {
			t.Fatal(err)
		}
		s := &blobs{}
		digests = append(digests, save(t, dir, s, SaveOptions{}).Descriptor.Digest)
	}
	if digests[0] != digests[1] {
		t.Error("two archives")
	}
}

func TestLeftOut(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"kept": "x", "setuid": "x", "setgid": "x"})
	for p, m := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2755} {
		if err := unix.Chmod(filepath.Join(dir, p), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := LeftOut{Special: 1, Privileged: 2}
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	put(t, dir, map[string]string{"capable": "x"})
	if unix.Setxattr(filepath.Join(dir, "capable"), "security.capability", capability, 0) == nil {
		want.Privileged++
	} else if err := os.Remove(filepath.Join(dir, "capable")); err != nil {
		t.Fatal(err)
	}
	s := &blobs{}
	a := save(t, dir, s, SaveOptions{})
	if a.LeftOut != want {
		t.Errorf("left out: %v, want %v", a.LeftOut, want)
	}
	if names, _ := readNames(restored(t, s, a.Descriptor)); !slices.Equal(names, []string{"kept"}) {
		t.Errorf("%q", names)
	}
}

func TestRestoreNeedsEmptyDirectory(t *testing.T) {
	s := &blobs{}
	a := save(t, t.TempDir(), s, SaveOptions{})
	dir := t.TempDir()
	put(t, dir, map[string]string{"mine": "x"})
	if _, err := Restore(t.Context(), dir, a.Manifest, s); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("%v", err)
	}
	if names, _ := readNames(dir); !slices.Equal(names, []string{"mine"}) {
		t.Errorf("%q", names)
	}
}

// A process that is killed while it restores leaves a part of a tree, in each of the states between the steps of place.
func TestRecover(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{Aside + "/b/c": "x", "a/moved": "x", "moved": "x"})
	if err := Recover(dir); err != nil {
		t.Fatal(err)
	}
	if names, _ := readNames(dir); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
	put(t, dir, map[string]string{"a/b": "x"})
	if err := Recover(dir); err != nil {
		t.Fatal(err)
	}
	if names, _ := readNames(dir); len(names) != 1 {
		t.Error("a directory that is nobody's part was emptied")
	}
}

func TestNames(t *testing.T) {
	for _, s := range []string{"a", "a/b", "\xff", `\`, `\x41`, "\u00e9\xc3", "\ufffd", "a\x00b", ""} {
		b, _ := name(s).MarshalText()
		var n name
		if err := n.UnmarshalText(b); err != nil || string(n) != s {
			t.Errorf("%q is written as %s and read as %q, %v", s, b, n, err)
		}
	}
	for _, s := range []string{`\x41`, `\`, `\x`, `\xfF`, `\n`, `\x4`, `\u0041`} {
		var n name
		if err := n.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%s is taken for %q", s, n)
		}
	}
}

func TestCompareTree(t *testing.T) {
	want := []string{".", "-", "a", "a/b", "a/b/c", "a/b-", "a ", "a-", "a.b", "ab"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareTree)
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
