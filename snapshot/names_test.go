package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// many makes aliases that lie on each other, each of a layer with a long id and a file of its own: snapshots "1" to "n".
func (l *Layers) many(t *testing.T, n int) {
	t.Helper()
	parent := ""
	for i := 1; i <= n; i++ {
		name := fmt.Sprint(i)
		l.add(t, name, parent, "file"+name)
		must(t, l.Share(t.Context(), name, strings.Repeat("f", 28)+fmt.Sprintf("%04d", i)))
		parent = name
	}
}

// deep is a directory with a name of n bytes: names of upper and work directories leave less of the page for lower ones then, as hundreds of layers would.
func deep(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for len(dir) < n {
		dir += "/" + strings.Repeat("d", min(200, max(n-len(dir)-1, 1)))
	}
	return dir
}

// TestManyLayers: all layers are shared, and fit into the page with short links, or with the links that snapshots have.
func TestManyLayers(t *testing.T) {
	needMounts(t)
	l := open(t, deep(t, 1400))
	const fit, most = 110, 150
	l.many(t, most)
	for _, n := range []int{fit, most} {
		top := fmt.Sprint(n)
		key := "on-" + top
		_, err := l.Prepare(t.Context(), key, top)
		must(t, err)
		if short := strings.Count(option(l.mountOf(t, t.Context(), key), lowerOption), "/s/fs") == n; short != (n == fit) {
			t.Errorf("%d layers: named by short links: %v", n, short)
		}
		l.at(t, t.Context(), key, func(dir string) {
			if got := len(strings.Fields(tree(t, dir))); got != n {
				t.Errorf("%d layers: %d files", n, got)
			}
			write(t, dir, "new")
		})
		if got := names(t, l.chain(t, key)[0].Path); got != "new" {
			t.Errorf("%d layers: the step has written %q", n, got)
		}
		_, err = l.View(t.Context(), "view-"+top, top)
		must(t, err)
		m := l.mountOf(t, t.Context(), "view-"+top)
		walked, _, _ := strings.Cut(option(m, lowerOption), ":")
		if got := tree(t, walked); got != "file"+top {
			t.Errorf("%d layers: a walk of the topmost, %s, finds %q", n, walked, got)
		}
	}
}

// TestFits: what does not fit could not be mounted; and views that are elsewhere below the root are named as short as layers.
func TestFits(t *testing.T) {
	needMounts(t)
	l := open(t, deep(t, 1400))
	l.many(t, 40)
	var made Prepared
	_, err := l.Prepare(WithPrepared(t.Context(), func(p Prepared) { made = p }), "run", "40")
	must(t, err)
	const inside, outside = "/views/123456789/", "/another-directory-that-views-may-be-in-and-which-has-a-long-name/123456789/"
	for views, want := range map[string]bool{inside: true, outside: false} {
		var paths []string
		for i, d := range made.Lower {
			path := d.Path
			if i%2 == 0 {
				path = filepath.Join(l.root, views, fmt.Sprint(i))
				must(t, os.MkdirAll(path, 0o700))
				write(t, path, "view"+fmt.Sprint(i))
			}
			paths = append(paths, path)
		}
		if got := l.Fits(made, paths); got != want {
			t.Errorf("views in %s: fits %v", views, got)
		}
		ctx := WithLower(t.Context(), func(context.Context, string, []Directory) ([]string, []string, error) {
			return paths, []string{"xino=on"}, nil
		})
		m := l.mountOf(t, ctx, "run")
		dir := t.TempDir()
		if err := m.Mount(dir); (err == nil) != want {
			t.Errorf("views in %s: mounted: %v", views, err)
		} else if err != nil {
			continue
		}
		if got := len(strings.Fields(tree(t, dir))); got != 40 {
			t.Errorf("views in %s: %d files", views, got)
		}
		unmount(t, dir)
	}
}

// TestOldAlias: an alias that was made before there were short links is mounted by its long name.
func TestOldAlias(t *testing.T) {
	l := open(t, t.TempDir())
	l.add(t, "base", "", "f")
	l.add(t, "top", "base", "g")
	must(t, l.Share(t.Context(), "top", "x"))
	must(t, os.Remove(l.short("2")))
	_, err := l.View(t.Context(), "view", "top")
	must(t, err)
	equalMount(t, "old alias", l.mountOf(t, t.Context(), "view"), "overlay", "lowerdir="+l.FilesPath("x")+":"+l.own("1"))
}

// TestFiles: the same layer has the same name, whatever a mount calls it.
func TestFiles(t *testing.T) {
	l := open(t, t.TempDir())
	l.add(t, "a", "", "f")
	must(t, l.Share(t.Context(), "a", "x"))
	l.add(t, "b", "", "g")
	for path, want := range map[string]string{
		l.own("1"):                         l.FilesPath("x"),
		filepath.Join(l.short("1"), "fs"):  l.FilesPath("x"),
		l.FilesPath("x"):                   l.FilesPath("x"),
		l.own("2"):                         l.own("2"),
		"/somewhere/else":                  "/somewhere/else",
		filepath.Join(l.root, "shared/no"): filepath.Join(l.root, "shared/no"),
	} {
		if got := Files(path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}
