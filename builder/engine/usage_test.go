package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/optbuild/optbuild/snapshot"
)

// TestGrowth: what was added since a moment is measured, also where its size is not known yet; what was there before is not.
func TestGrowth(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := &parts{root: t.TempDir(), snapshotter: "native"}
	c, err := snapshot.Choose(p.root, "native")
	must(err)
	p.snapshots, err = c.New(filepath.Join(p.root, "snapshots"))
	must(err)
	defer p.snapshots.Close()
	e, ctx := &Engine{parts: p, root: p.root}, t.Context()
	want := func(what string, since time.Time, low, high int64, things int) {
		t.Helper()
		g, err := e.Growth(ctx, since)
		must(err)
		if g.Bytes < low || g.Bytes > high || g.Things != things {
			t.Errorf("%s: %+v, want %d to %d bytes, %d things", what, g, low, high, things)
		}
	}
	prepare := func(key string) {
		mounts, err := p.snapshots.Prepare(ctx, key, "")
		must(err)
		must(os.WriteFile(filepath.Join(mounts[0].Source, "file"), make([]byte, 100_000), 0o644))
	}
	begin := time.Now()
	want("nothing", begin, 0, 0, 0)
	prepare("active")
	want("a snapshot that can change", begin, 0, 0, 1)
	must(p.snapshots.Commit(ctx, "committed", "active"))
	want("one that can't", begin, 100_000, 120_000, 1)
	blobs := filepath.Join(p.blobs(), "sha256")
	must(os.MkdirAll(blobs, 0o700))
	must(os.WriteFile(filepath.Join(blobs, "12"), make([]byte, 1000), 0o600))
	want("and a blob", begin, 101_000, 121_000, 2)
	old := begin.Add(-time.Hour)
	must(os.Chtimes(filepath.Join(blobs, "12"), old, old))
	want("and a blob that was there before", begin, 100_000, 120_000, 1)
	want("since then", time.Now(), 0, 0, 0)
	begin = time.Now()
	prepare("later")
	want("one more that can change", begin, 0, 0, 1)
}
