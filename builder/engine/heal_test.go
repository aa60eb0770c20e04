package engine

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"

	"github.com/optbuild/optbuild/snapshot"
)

// TestCheckSnapshots: of an engine that was killed while it made snapshots, what is recorded stays and the rest goes.
func TestCheckSnapshots(t *testing.T) {
	for name, recorded := range map[string][]string{
		"first snapshot ever": nil,
		"later":               {"a", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &parts{root: t.TempDir(), snapshotter: "overlayfs"}
			t.Setenv("TMPDIR", t.TempDir())
			dir := filepath.Join(p.root, "snapshots", "snapshots")
			for _, d := range []string{"1/fs", "3/fs", "new-17/work"} {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			ms, err := storage.NewMetaStore(filepath.Join(p.root, "snapshots", "metadata.db"))
			if err != nil {
				t.Fatal(err)
			}
			err = ms.WithTransaction(t.Context(), true, func(ctx context.Context) error {
				for _, key := range recorded {
					if _, err := storage.CreateSnapshot(ctx, snapshots.KindActive, key, ""); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			ms.Close()
			if err := p.checkSnapshots(t.Context()); err != nil {
				t.Fatal(err)
			}
			var left, want, present []string
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				left = append(left, e.Name())
			}
			if recorded != nil {
				want, present = []string{"1"}, []string{"a"} // the directory of b is lost
			}
			if got := slices.Sorted(maps.Keys(p.repair.present)); !slices.Equal(left, want) || !slices.Equal(got, present) {
				t.Errorf("directories %q, snapshots %q; want %q, %q", left, got, want, present)
			}
		})
	}
}

// TestCheckSharedLayers: a snapshot whose shared layer is gone is lost, and layers of which no snapshot is left go.
func TestCheckSharedLayers(t *testing.T) {
	p := &parts{root: t.TempDir(), snapshotter: "overlayfs"}
	t.Setenv("TMPDIR", t.TempDir())
	c, err := snapshot.Choose(p.root, p.snapshotter)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(p.root, "snapshots")
	s, err := c.New(root)
	if err != nil {
		t.Fatal(err)
	}
	layers := s.(*snapshot.Layers)
	for _, key := range []string{"whole", "lost", "plain"} {
		if _, err = layers.Prepare(t.Context(), key, ""); err != nil {
			t.Fatal(err)
		}
		if key != "plain" {
			if err := layers.Share(t.Context(), key, "of-"+key); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := layers.Close(); err != nil {
		t.Fatal(err)
	}
	p.repair = repair{sealed: true, before: seal{Snapshots: p.stampSnapshots()}}
	if err := p.checkSnapshots(t.Context()); err != nil || p.repair.present != nil {
		t.Errorf("sealed: looked at %v, %v", p.repair.present, err)
	}
	if err := os.RemoveAll(layers.SharedPath("of-lost")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(layers.SharedPath("of-nobody"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.checkSnapshots(t.Context()); err != nil { // the seal doesn't fit any more
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(p.repair.present)), []string{"plain", "whole"}; !slices.Equal(got, want) {
		t.Errorf("present %q, want %q", got, want)
	}
	if layers.Shared("of-nobody") || !layers.Shared("of-whole") {
		t.Error("not the layers without snapshots were removed")
	}
	if entries, _ := os.ReadDir(p.snapshotDirs().shared); len(entries) != 1 {
		t.Errorf("left %v", entries)
	}
}

// TestSnapshotDirs: the files of shared layers are told from what is kept beside them.
func TestSnapshotDirs(t *testing.T) {
	d := snapshotDirs{path: "/c/snapshots", shared: "/c/shared"}
	for path, want := range map[string][2]bool{
		"/c/snapshots":      {true, false},
		"/c/snapshots/1/fs": {true, false},
		"/c/shared":         {true, false},
		"/c/shared/x":       {true, false},
		"/c/shared/x/fs":    {true, true},
		"/c/shared/x/trace": {true, false},
		"/c/shared/x/fs/fs": {true, false},
		"/c/shared-1":       {false, false},
		"/c/metadata.db":    {false, false},
	} {
		if got := [2]bool{d.has(path), d.isLayer(path)}; got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
