package viewer

import (
	"path/filepath"
	"testing"

	"github.com/optbuild/optbuild/builder/trace/view"
)

// BenchmarkMount mounts a view and closes it: by this process, by a viewer that runs, and by one that has to be started.
func BenchmarkMount(b *testing.B) {
	needMounts(b)
	dir := layer(b, "view")
	d := Directory{filepath.Join(dir, "layer"), filepath.Join(dir, "view")}
	b.Run("own", func(b *testing.B) {
		for range b.N {
			v, err := view.Mount(d.Path, d.Mountpoint, view.Options{})
			if err != nil {
				b.Fatal(err)
			}
			if err := v.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	cycle := func(b *testing.B, p *Process) {
		v, err := p.Mount(d)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := v.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("viewer", func(b *testing.B) {
		p := process(b)
		cycle(b, p)
		for b.Loop() {
			cycle(b, p)
		}
	})
	b.Run("start", func(b *testing.B) {
		for range b.N {
			p := new(Process)
			cycle(b, p)
			p.Close()
		}
	})
}

// BenchmarkSeen hands over what was seen of a large layer.
func BenchmarkSeen(b *testing.B) {
	seen := names(100_000)
	c, _ := connect(b, map[string]*fake{"large": {seen: seen}})
	for range b.N {
		if _, err := closeFakes(b.Context(), mountFakes(b, c, "large")); err != nil {
			b.Fatal(err)
		}
	}
}
