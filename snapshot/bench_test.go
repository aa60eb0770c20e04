package snapshot

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkReuse is what it takes to have a layer of 30,000 files in a new snapshot.
func BenchmarkReuse(b *testing.B) {
	const files = 30_000
	l := open(b, b.TempDir())
	_, err := l.Prepare(b.Context(), "run", "")
	must(b, err)
	dir := l.chain(b, "run")[0].Path
	for i := range files {
		path := filepath.Join(dir, fmt.Sprint(i%300))
		if i < 300 {
			must(b, os.Mkdir(path, 0o755))
		}
		must(b, os.WriteFile(filepath.Join(path, fmt.Sprint(i)), nil, 0o644))
	}
	must(b, l.Commit(b.Context(), "done", "run"))
	must(b, l.Share(b.Context(), "done", "x"))

	for name, reuse := range map[string]func(key string) error{
		"alias": func(key string) error { return l.Alias(b.Context(), key, "x") },
		"links": func(key string) error { return linkTree(l.FilesPath("x"), l.chain(b, key)[0].Path) },
	} {
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				b.StopTimer()
				key := fmt.Sprint(name, i)
				_, err := l.Prepare(b.Context(), key, "")
				must(b, err)
				b.StartTimer()
				must(b, reuse(key))
				b.StopTimer()
				must(b, l.Remove(b.Context(), key))
				must(b, l.Cleanup(b.Context()))
				b.StartTimer()
			}
		})
	}
}

func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		target := filepath.Join(to, path[len(from):])
		if e.IsDir() {
			return os.Mkdir(target, 0o755)
		}
		return os.Link(path, target)
	})
}

// BenchmarkMounts is what a step pays for the links to be looked up, of the overlay snapshotter's own answer and of ours.
func BenchmarkMounts(b *testing.B) {
	l := open(b, b.TempDir())
	parent := ""
	for i := 1; i <= 50; i++ {
		name := fmt.Sprint("layer", i)
		l.add(b, name, parent)
		if i%2 == 0 {
			must(b, l.Share(b.Context(), name, name))
		}
		parent = name
		if i != 1 && i != 10 && i != 50 {
			continue
		}
		key := fmt.Sprint("run", i)
		_, err := l.Prepare(b.Context(), key, parent)
		must(b, err)
		b.Run(fmt.Sprintf("lowers=%d/overlay", i), func(b *testing.B) {
			for range b.N {
				_, err := l.inner.Mounts(b.Context(), key)
				must(b, err)
			}
		})
		b.Run(fmt.Sprintf("lowers=%d/layers", i), func(b *testing.B) {
			for range b.N {
				_, err := l.Mounts(b.Context(), key)
				must(b, err)
			}
		})
	}
}

// BenchmarkShare is what a watched step pays for its layer to be stored.
func BenchmarkShare(b *testing.B) {
	l := open(b, b.TempDir())
	for i := range b.N {
		b.StopTimer()
		key := fmt.Sprint("run", i)
		l.add(b, key, "", "f")
		b.StartTimer()
		must(b, l.Share(b.Context(), key, key))
	}
}
