package engine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/util/overlay"

	"github.com/optbuild/optbuild/snapshot"
)

// TestDiffOfAlias: BuildKit's overlay differ makes the same layer of an alias as of the original. It finds the directory in the
// options of the mount, and takes a link for an empty layer.
func TestDiffOfAlias(t *testing.T) {
	if os.Getuid() != 0 {
		fmt.Fprintf(os.Stderr, "skipped: %s: mounting an overlay takes root\n", t.Name())
		t.Skip("mounting an overlay takes root")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := snapshot.Choose(t.TempDir(), "overlayfs")
	must(err)
	s, err := c.New(t.TempDir())
	must(err)
	defer s.Close()
	l, ctx := s.(*snapshot.Layers), t.Context()
	commit := func(name, parent string, fill func(key string, mounts []mount.Mount)) {
		t.Helper()
		key := name + "-active"
		mounts, err := l.Prepare(ctx, key, parent)
		must(err)
		fill(key, mounts)
		must(l.Commit(ctx, name, key))
	}
	files := func(names ...string) func(string, []mount.Mount) {
		return func(_ string, mounts []mount.Mount) {
			must(mount.WithTempMount(ctx, mounts, func(dir string) error {
				for _, name := range names {
					must(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
					must(os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
				}
				return nil
			}))
		}
	}
	run := func(_ string, mounts []mount.Mount) { // adds, deletes, and replaces a directory
		must(mount.WithTempMount(ctx, mounts, func(dir string) error {
			must(os.WriteFile(filepath.Join(dir, "made"), []byte("made"), 0o644))
			must(os.Remove(filepath.Join(dir, "src/deleted")))
			must(os.RemoveAll(filepath.Join(dir, "cache")))
			must(os.MkdirAll(filepath.Join(dir, "cache/new"), 0o755))
			return nil
		}))
	}
	diff := func(name, parent string) string {
		t.Helper()
		lower, err := l.View(ctx, "lower", parent)
		must(err)
		upper, err := l.View(ctx, "upper", name)
		must(err)
		dir, err := overlay.GetUpperdir(lower, upper)
		must(err)
		var b bytes.Buffer
		must(overlay.WriteUpperdir(ctx, &b, dir, lower))
		must(l.Remove(ctx, "lower"))
		must(l.Remove(ctx, "upper"))
		return b.String()
	}
	commit("base", "", files("src/deleted", "src/kept", "cache/old"))
	commit("copy", "base", files("src/new"))
	for _, parent := range []string{"base", "copy"} {
		commit("run-on-"+parent, parent, run)
		want := diff("run-on-"+parent, parent)
		must(l.Share(ctx, "run-on-"+parent, "of-"+parent))
		commit("alias-on-"+parent, parent, func(key string, _ []mount.Mount) { must(l.Alias(ctx, key, "of-"+parent)) })
		for _, name := range []string{"run-on-", "alias-on-"} {
			if got := diff(name+parent, parent); got != want || !bytes.Contains([]byte(got), []byte("src/.wh.deleted")) {
				t.Errorf("%s: %d bytes, the original has %d", name+parent, len(got), len(want))
			}
		}
	}
	must(l.Share(ctx, "base", "bottom"))
	view, err := l.View(ctx, "view", "base")
	must(err)
	if dir, err := overlay.GetUpperdir(nil, view); err != nil || snapshot.Files(dir) != filepath.Join(l.SharedPath("bottom"), "fs") {
		t.Errorf("directory of a shared layer with nothing below: %s, %v", dir, err)
	}
}
