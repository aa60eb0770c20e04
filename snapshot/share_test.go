package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
)

func TestShare(t *testing.T) {
	root := t.TempDir()
	l := open(t, root)
	ctx := t.Context()
	l.add(t, "base", "", "etc/passwd")
	_, err := l.Prepare(ctx, "run", "base")
	must(t, err)
	l.write(t, "run", "made")
	own := l.own("2")
	must(t, os.Chmod(own, 0o750|os.ModeSticky))
	before, err := os.Stat(own)
	must(t, err)

	if l.Shared("x") {
		t.Error("shared before")
	}
	must(t, l.Share(ctx, "run", "x"))
	must(t, l.Share(ctx, "run", "x")) // again
	shared := filepath.Join(l.SharedPath("x"), "fs")
	after, err := os.Lstat(shared)
	must(t, err)
	if !os.SameFile(before, after) || after.Mode() != before.Mode() || !l.Shared("x") {
		t.Errorf("the files are not in %s as they were: %v, were %v", shared, after.Mode(), before.Mode())
	}
	// Mounts name it by the short link: the same directory.
	named := filepath.Join(root, "snapshots", "2", "s", "fs")
	if same, err := os.Lstat(named); err != nil || !os.SameFile(before, same) {
		t.Errorf("%s is not the directory: %v", named, err)
	}
	equalMount(t, "active alias", l.mountOf(t, ctx, "run"), "overlay", "lowerdir="+named+":"+l.own("1"))
	must(t, l.Commit(ctx, "done", "run"))
	_, err = l.Prepare(ctx, "next", "done")
	must(t, err)
	work := filepath.Join(root, "snapshots", "3", "work")
	equalMount(t, "on an alias", l.mountOf(t, ctx, "next"), "overlay",
		"workdir="+work, "upperdir="+l.own("3"), "lowerdir="+named+":"+l.own("1"))
	view, err := l.View(ctx, "view", "done")
	must(t, err)
	equalMount(t, "view of an alias", view[0], "overlay", "lowerdir="+named+":"+l.own("1"))

	must(t, l.Share(ctx, "base", "y"))
	view, err = l.View(ctx, "bottom", "base")
	must(t, err)
	equalMount(t, "view of one layer", view[0], "bind", "ro", "rbind")
	if view[0].Source != filepath.Join(root, "snapshots", "1", "s", "fs") || Files(view[0].Source) != l.FilesPath("y") {
		t.Errorf("view of one layer is %s", view[0].Source)
	}
	_, err = l.Prepare(ctx, "scratch", "")
	must(t, err)
	must(t, l.Alias(ctx, "scratch", "y"))
	m := l.mountOf(t, ctx, "scratch")
	equalMount(t, "active alias without a parent", m, "bind", "ro", "rbind")
	if m.Source != filepath.Join(root, "snapshots", "6", "s", "fs") || Files(m.Source) != l.FilesPath("y") {
		t.Errorf("active alias without a parent is %s", m.Source)
	}
}

func TestShareRefused(t *testing.T) {
	l := open(t, t.TempDir())
	ctx := t.Context()
	l.add(t, "a", "", "f")
	l.add(t, "b", "", "g")
	_, err := l.View(ctx, "view", "a")
	must(t, err)
	must(t, l.Share(ctx, "a", "x"))
	for what, c := range map[string]struct {
		key, id string
		is      func(error) bool
	}{
		"taken":       {"b", "x", errdefs.IsAlreadyExists},
		"other layer": {"a", "y", errdefs.IsFailedPrecondition},
		"view":        {"view", "y", errdefs.IsFailedPrecondition},
		"no snapshot": {"c", "y", errdefs.IsNotFound},
		"outside":     {"b", "../y", errdefs.IsInvalidArgument},
		"hidden":      {"b", ".y", errdefs.IsInvalidArgument},
		"none":        {"b", "", errdefs.IsInvalidArgument},
	} {
		if err := l.Share(ctx, c.key, c.id); !c.is(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(l.root, "shared"))
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("left %v", entries)
	}
}

func TestAlias(t *testing.T) {
	l := open(t, t.TempDir())
	ctx := t.Context()
	_, err := l.Prepare(ctx, "run", "")
	must(t, err)
	l.write(t, "run", "made")
	if os.Getuid() == 0 {
		must(t, os.Chown(l.own("1"), 1000, 1001))
	}
	must(t, l.Share(ctx, "run", "x"))
	must(t, l.Commit(ctx, "done", "run"))

	l.add(t, "other", "", "o")
	_, err = l.Prepare(ctx, "again", "other")
	must(t, err)
	must(t, l.Alias(ctx, "again", "x"))
	must(t, l.Alias(ctx, "again", "x")) // again
	if got := l.chain(t, "again")[0]; got.Shared != "x" || got.Path != l.FilesPath("x") {
		t.Errorf("alias is %+v", got)
	}
	must(t, l.Commit(ctx, "replayed", "again"))
	// containerd gives what is made on a snapshot the owner of that one's directory.
	_, err = l.Prepare(ctx, "next", "replayed")
	must(t, err)
	for _, key := range []string{"replayed", "next"} {
		fi, err := os.Stat(l.chain(t, key)[0].Path)
		must(t, err)
		if st := fi.Sys().(*syscall.Stat_t); os.Getuid() == 0 && (st.Uid != 1000 || st.Gid != 1001) {
			t.Errorf("%s belongs to %d:%d", key, st.Uid, st.Gid)
		}
	}

	l.write(t, "next", "file")
	_, err = l.Prepare(ctx, "empty", "")
	must(t, err)
	for what, c := range map[string]struct {
		key, id string
		is      func(error) bool
	}{
		"no layer":    {"empty", "y", errdefs.IsNotFound},
		"outside":     {"empty", "../snapshots/1", errdefs.IsNotFound},
		"has files":   {"next", "x", errdefs.IsFailedPrecondition},
		"committed":   {"other", "x", errdefs.IsFailedPrecondition},
		"no snapshot": {"c", "x", errdefs.IsNotFound},
	} {
		if err := l.Alias(ctx, c.key, c.id); !c.is(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if d := l.chain(t, "next")[0]; d.Shared != "" {
		t.Errorf("refused, but an alias: %+v", d)
	}
}

// TestUsage: whoever is an alias, the sum over all snapshots is what their directories take.
func TestUsage(t *testing.T) {
	root := t.TempDir()
	l := open(t, root)
	ctx := t.Context()
	check := func(what string, want map[string]bool) {
		t.Helper()
		dirs := map[string]bool{}
		var sum, disk int64
		must(t, l.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
			u, err := l.Usage(ctx, info.Name)
			must(t, err)
			if charged := u.Size > 0; charged != want[info.Name] {
				t.Errorf("%s: %s takes %d bytes", what, info.Name, u.Size)
			}
			sum += u.Size
			dirs[l.chain(t, info.Name)[0].Path] = true
			return nil
		}))
		for dir := range dirs {
			u, err := continuity.DiskUsage(ctx, dir)
			must(t, err)
			disk += u.Size
		}
		if sum != disk {
			t.Errorf("%s: the sum is %d bytes, the disk has %d", what, sum, disk)
		}
	}
	_, err := l.Prepare(ctx, "run", "")
	must(t, err)
	for i := range 20 {
		l.write(t, "run", fmt.Sprintf("dir/%d", i))
	}
	check("active", map[string]bool{"run": true})
	must(t, l.Share(ctx, "run", "x"))
	check("active, shared", map[string]bool{"run": true})
	must(t, l.Commit(ctx, "first", "run"))
	check("committed", map[string]bool{"first": true})
	l.addAlias(t, "second", "", "x")
	_, err = l.Prepare(ctx, "third", "")
	must(t, err)
	must(t, l.Alias(ctx, "third", "x"))
	check("three", map[string]bool{"third": true})

	aliases, err := l.Aliases(ctx)
	must(t, err)
	if len(aliases) != 3 || aliases["third"].Size == 0 || aliases["first"].Size != 0 {
		t.Errorf("aliases %v", aliases)
	}
	must(t, l.Close())
	l = open(t, root)
	must(t, l.Remove(ctx, "third"))
	check("after another start and a removal", map[string]bool{"second": true})
	must(t, l.Cleanup(ctx))
	check("cleaned up", map[string]bool{"second": true})

	l.add(t, "plain", "", "file")
	u, err := l.Usage(ctx, "plain")
	must(t, err)
	must(t, l.Share(ctx, "plain", "y"))
	if got, err := l.Usage(ctx, "plain"); err != nil || got != u {
		t.Errorf("took %v before it was shared, %v after: %v", u, got, err)
	}
}
