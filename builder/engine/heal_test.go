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
