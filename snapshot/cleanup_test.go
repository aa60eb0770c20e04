package snapshot

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// names lists a directory.
func names(t *testing.T, path ...string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(path...))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func TestCleanup(t *testing.T) {
	for name, reopen := range map[string]bool{"same process": false, "another process": true} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			ctx := t.Context()
			l := open(t, root)
			must(t, l.Cleanup(ctx)) // of nothing
			again := func() {
				if reopen {
					must(t, l.Close())
					l = open(t, root)
				}
			}
			l.add(t, "a", "", "f")
			must(t, l.Share(ctx, "a", "x"))
			must(t, os.WriteFile(filepath.Join(l.SharedPath("x"), "trace"), nil, 0o600))
			again()
			l.addAlias(t, "b", "", "x")
			again()
			must(t, l.Remove(ctx, "a"))
			again()
			must(t, l.Cleanup(ctx))
			if got := names(t, root, "snapshots") + "|" + names(t, l.SharedPath("x")); got != "2|fs fs-usage trace" {
				t.Errorf("one of two aliases removed: %s", got)
			}
			again()
			must(t, l.Remove(ctx, "b"))
			// Until the cleanup, it can be taken up again.
			l.addAlias(t, "c", "", "x")
			again()
			must(t, l.Cleanup(ctx))
			if got := names(t, root, "snapshots") + "|" + names(t, l.FilesPath("x")); got != "3|f" {
				t.Errorf("taken up again: %s", got)
			}
			must(t, l.Remove(ctx, "c"))
			again()
			must(t, l.Cleanup(ctx))
			if got := names(t, root, "snapshots") + "|" + names(t, root, "shared"); got != "|" {
				t.Errorf("all removed: %s", got)
			}
		})
	}
}

// TestKilled makes by hand what a process leaves that is killed within Share, Alias or Cleanup. What comes of it is the same
// whether the repair looks at it, or the next process goes on without.
func TestKilled(t *testing.T) {
	link := linkTo("x")
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, l *Layers) // a, b and the active c have directories 1 to 3; a is an alias of x
		// What is there afterwards; b is then shared as y, and c made an alias of x if there still is one.
		present []string
		shared  string
	}{
		{"nothing", func(*testing.T, *Layers) {}, []string{"a", "b", "c"}, "x"},
		{"share: directory made", func(t *testing.T, l *Layers) {
			must(t, os.Mkdir(l.SharedPath("y"), 0o700))
		}, []string{"a", "b", "c"}, "x"},
		{"share: link made", func(t *testing.T, l *Layers) {
			must(t, os.Mkdir(l.SharedPath("y"), 0o700))
			must(t, os.Symlink(linkTo("y"), l.FilesPath("y")))
		}, []string{"a", "b", "c"}, "x"},
		{"share: short link made", func(t *testing.T, l *Layers) {
			must(t, os.Mkdir(l.SharedPath("y"), 0o700))
			must(t, os.Symlink(linkTo("y"), l.FilesPath("y")))
			must(t, l.shorten("2", "y"))
		}, []string{"a", "b", "c"}, "x"},
		{"share of another layer: short link made", func(t *testing.T, l *Layers) {
			must(t, l.shorten("2", "z"))
		}, []string{"a", "b", "c"}, "x"},
		{"alias of another layer: short link made", func(t *testing.T, l *Layers) {
			must(t, l.shorten("3", "x"))
		}, []string{"a", "b", "c"}, "x"},
		{"alias: link made", func(t *testing.T, l *Layers) {
			must(t, os.Symlink(link, filepath.Join(l.root, "snapshots", "3", aliasName)))
		}, []string{"a", "b", "c"}, "x"},
		{"alias: exchanged", func(t *testing.T, l *Layers) {
			aside := filepath.Join(l.root, "snapshots", "3", aliasName)
			must(t, os.Symlink(link, aside))
			must(t, exchange(aside, l.own("3")))
		}, []string{"a", "b", "c"}, "x"},
		{"cleanup: set aside", func(t *testing.T, l *Layers) {
			dir := filepath.Join(l.root, "snapshots", "unused-17")
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Mkdir(filepath.Join(dir, "layer"), 0o700))
		}, []string{"a", "b", "c"}, "x"},
		{"cleanup: removed, no directory deleted", func(t *testing.T, l *Layers) {
			must(t, os.MkdirAll(filepath.Join(l.root, "snapshots", "17"), 0o700))
			must(t, os.Symlink(linkTo("z"), l.own("17")))
			must(t, os.MkdirAll(l.FilesPath("z"), 0o700))
		}, []string{"a", "b", "c"}, "x"},
		{"layer is gone", func(t *testing.T, l *Layers) {
			must(t, os.RemoveAll(l.SharedPath("x")))
		}, []string{"b", "c"}, ""},
		{"link leads elsewhere", func(t *testing.T, l *Layers) {
			must(t, os.Remove(l.own("1")))
			must(t, os.Symlink("/etc", l.own("1")))
		}, []string{"b", "c"}, ""},
	} {
		make := func(t *testing.T) *Layers {
			l := open(t, t.TempDir())
			l.add(t, "a", "", "f")
			must(t, l.Share(t.Context(), "a", "x"))
			l.add(t, "b", "", "g")
			_, err := l.Prepare(t.Context(), "c", "")
			must(t, err)
			must(t, l.Close())
			c.damage(t, l)
			return l
		}
		goOn := func(t *testing.T, l *Layers) {
			ctx := t.Context()
			must(t, l.Share(ctx, "b", "y"))
			must(t, l.Alias(ctx, "c", "y"))
			must(t, l.Cleanup(ctx))
			if got := names(t, l.FilesPath("y")) + "|" + names(t, l.root, "snapshots", "3") + "|" + names(t, l.root, "snapshots"); got != "g|fs s work|1 2 3" {
				t.Errorf("went on with %s", got)
			}
			for _, key := range []string{"b", "c"} {
				d := l.chain(t, key)[0]
				if name := l.mountName(d); name != filepath.Join(l.short(d.Number), "fs") || names(t, name) != "g" {
					t.Errorf("%s is mounted from %s, with %s", key, name, names(t, name))
				}
			}
		}
		t.Run("repaired/"+c.name, func(t *testing.T) {
			l := make(t)
			recorded := map[string]string{"1": "a", "2": "b", "3": "c", "4": "of which there is nothing"}
			present, err := Repair(l.root, true, recorded, os.RemoveAll)
			must(t, err)
			if got := slices.Sorted(maps.Keys(present)); !slices.Equal(got, c.present) {
				t.Errorf("present %q, want %q", got, c.present)
			}
			if got := names(t, l.root, "snapshots") + "|" + names(t, l.root, "shared"); got != "1 2 3|"+c.shared {
				t.Errorf("directories %s", got)
			}
			if c.shared == "" {
				return
			}
			l = open(t, l.root)
			if l.chain(t, "c")[0].Shared != "" { // was exchanged
				return
			}
			goOn(t, l)
		})
		if c.shared == "" { // only the repair finds out
			continue
		}
		t.Run("not repaired/"+c.name, func(t *testing.T) {
			l := open(t, make(t).root)
			if l.chain(t, "c")[0].Shared == "" {
				goOn(t, l)
			}
			must(t, l.Cleanup(t.Context()))
			if got := names(t, l.FilesPath("x")) + "|" + names(t, l.root, "snapshots"); got != "f|1 2 3" {
				t.Errorf("left %s", got)
			}
		})
	}
}

// TestRepairOthers: what looks like a link of ours is an image's own file with other snapshotters.
func TestRepairOthers(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "snapshots", "1")
	must(t, os.MkdirAll(filepath.Join(dir, aliasName), 0o755))
	must(t, os.Symlink("/lib/fs", filepath.Join(dir, "fs")))
	present, err := Repair(root, false, map[string]string{"1": "a"}, os.RemoveAll)
	must(t, err)
	if !present["a"] || names(t, dir) != "alias fs" {
		t.Errorf("present %v, files %s", present, names(t, dir))
	}
}
