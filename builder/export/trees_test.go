package export

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/fs"

	"github.com/optbuild/optbuild/builder/export/strip"
)

// files are copies of all that there is after each layer of a stack, as the native snapshotter has them.
func (s *stack) files() (list []string) {
	s.t.Helper()
	empty := filepath.Join(s.root, "nothing")
	must(s.t, os.MkdirAll(empty, 0o755))
	must(s.t, os.MkdirAll(empty+"2", 0o755))
	for i := range s.dirs {
		dir := filepath.Join(s.root, "files", fmt.Sprint(i))
		list = append(list, dir)
		if there(dir) {
			continue
		}
		must(s.t, os.MkdirAll(dir, 0o755))
		view := []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + strings.Join(s.from(i+1, 0, empty, empty+"2"), ":")}}}
		must(s.t, mount.WithTempMount(s.t.Context(), view, func(root string) error { return fs.CopyDir(dir, root) }))
	}
	return list
}

// compared is the union of the layers from first on, by the files that there are after each.
func (s *stack) compared(first int, residue func(string) string, made func(int) bool) *union {
	files := s.files()
	t := &trees{below: files[first-1]}
	if !made(1) {
		t.base = files[1]
	}
	for i := 1; i < len(files); i++ {
		if !made(i) && i > 1 || i >= first {
			t.steps = append(t.steps, treeStep{before: files[i-1], after: files[i], made: made(i), member: i >= first})
		}
	}
	u := &union{trees: t}
	if residue != nil {
		u.residue = func(path string) strip.Residue { return strip.Residue{Rule: residue(path)} }
	}
	return u
}

// Random layers give the same files if they are compared as they do if they are laid upon each other.
func TestTreesEqualLayers(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newStack(t)
			r := rand.New(rand.NewPCG(seed, 2))
			n := 3 + r.IntN(4)
			for range n {
				s.layer(func(root string) {
					for range 1 + r.IntN(12) {
						disturb(t, r, root)
					}
				})
			}
			first := 1 + r.IntN(n)
			var each [][]byte
			for i := range s.dirs {
				each = append(each, s.step(i))
			}
			want := s.applied(each...)
			one := s.tar(s.compared(first, nil, every))
			if d := differences(want, s.applied(append(slices.Clone(each[:first]), one)...)); d != "" {
				t.Errorf("layers %d to %d as one give other files:\n%s", first, n, d)
			}
			if again := s.tar(s.compared(first, nil, every)); !bytes.Equal(one, again) {
				t.Error("the same files, another tar")
			}
		})
	}
}

// Residue is what it is with layers.
func TestTreesLeaveResidueOut(t *testing.T) {
	s := newStack(t)
	s.layer(func(root string) { write(t, root, "cache/base", "base") })
	s.layer(func(root string) { write(t, root, "cache/copied", "copied") })
	s.layer(func(root string) {
		write(t, root, "cache/twice", "1")
		write(t, root, "gone", "1")
	})
	s.layer(func(root string) {
		write(t, root, "cache/base", "changed")
		write(t, root, "cache/copied", "changed")
		write(t, root, "cache/twice", "2")
		write(t, root, "cache/new", "new")
		write(t, root, "cache/all/a/b", "new")
		write(t, root, "cache/linked/program", "new")
		must(t, os.Symlink("../cache/linked", filepath.Join(root, "link")))
		must(t, os.Remove(filepath.Join(root, "gone")))
	})
	u := s.compared(4, func(p string) string {
		if strings.HasPrefix(p, "/cache/") {
			return "cache"
		}
		return ""
	}, func(i int) bool { return i >= 3 })
	list, err := u.changes(t.Context())
	must(t, err)
	if sum := fmt.Sprint(sumUp(list)); sum != "[{cache 3 7}]" {
		t.Errorf("left out: %s", sum)
	}
	layer := s.tar(u)
	if got := entries(t, layer); slices.Contains(got, "cache/new") || slices.Contains(got, "cache/all/") || !slices.Contains(got, "cache/.wh.twice") || !slices.Contains(got, ".wh.gone") {
		t.Errorf("layer has %q", got)
	}
	files := s.applied(s.step(1), s.step(2), s.step(3), layer)
	for path, want := range map[string]bool{
		"cache/base": true, "cache/copied": true, "cache/linked/program": true, "link": true, "cache/twice": false, "cache/new": false, "cache/all": false, "gone": false,
	} {
		if _, ok := files[path]; ok != want {
			t.Errorf("%s is there: %t, want %t", path, ok, want)
		}
	}
}

// A file that one step changes, and that gets its old time back from the next, has changed.
func TestTreesSeeATouchedFile(t *testing.T) {
	s := newStack(t)
	at := time.Unix(1700000000, 123456789)
	change := func(text string, at time.Time) func(string) {
		return func(root string) {
			write(t, root, "f", text)
			must(t, os.Chtimes(filepath.Join(root, "f"), at, at))
		}
	}
	s.layer(change("hello", at))
	s.layer(change("HELLO", at.Add(time.Second)))
	s.layer(func(root string) { must(t, os.Chtimes(filepath.Join(root, "f"), at, at)) })
	if got := entries(t, s.tar(s.compared(2, nil, every))); !slices.Contains(got, "f") {
		t.Errorf("layer has %q", got)
	}
}

// What is no overlay is taken for the files of one layer only if there is one.
func TestWithoutLayers(t *testing.T) {
	for _, c := range []struct {
		kind   string
		layers int
		want   bool
	}{{"overlay", 1, false}, {"overlay", 3, false}, {"bind", 1, false}, {"bind", 2, true}, {"fuse3.fuse-overlayfs", 1, true}} {
		if got := withoutLayers(mount.Mount{Type: c.kind}, c.layers); got != c.want {
			t.Errorf("%s of %d layers: %t, want %t", c.kind, c.layers, got, c.want)
		}
	}
}
