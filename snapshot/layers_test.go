package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	bolt "go.etcd.io/bbolt"
)

func open(t testing.TB, root string) *Layers {
	t.Helper()
	s, err := newOverlay(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*Layers)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// add makes a committed snapshot with files, whose contents are their names. Names that end in / are directories.
func (l *Layers) add(t testing.TB, name, parent string, files ...string) {
	t.Helper()
	_, err := l.Prepare(t.Context(), name+"-active", parent)
	must(t, err)
	l.write(t, name+"-active", files...)
	must(t, l.Commit(t.Context(), name, name+"-active"))
}

func (l *Layers) write(t testing.TB, key string, files ...string) {
	t.Helper()
	dir := l.chain(t, key)[0].Path
	for _, f := range files {
		path := filepath.Join(dir, f)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(f), 0o644))
	}
}

func (l *Layers) chain(t testing.TB, key string) []Directory {
	t.Helper()
	chain, err := l.Chain(t.Context(), key)
	must(t, err)
	return chain
}

// addAlias makes a committed snapshot that is an alias.
func (l *Layers) addAlias(t testing.TB, name, parent, id string) {
	t.Helper()
	_, err := l.Prepare(t.Context(), name+"-active", parent)
	must(t, err)
	must(t, l.Alias(t.Context(), name+"-active", id))
	must(t, l.Commit(t.Context(), name, name+"-active"))
}

func (l *Layers) mountOf(t testing.TB, ctx context.Context, key string) mount.Mount {
	t.Helper()
	mounts, err := l.Mounts(ctx, key)
	must(t, err)
	if len(mounts) != 1 {
		t.Fatalf("%d mounts", len(mounts))
	}
	return mounts[0]
}

// equalMount compares type, source and the options that tell about directories.
func equalMount(t testing.TB, what string, got mount.Mount, kind string, options ...string) {
	t.Helper()
	got.Options = slices.DeleteFunc(slices.Clone(got.Options), func(o string) bool { return o == "index=off" || o == "userxattr" })
	if got.Type != kind || !slices.Equal(got.Options, options) {
		t.Errorf("%s:\ngot  %s %q\nwant %s %q", what, got.Type, got.Options, kind, options)
	}
}

func TestChain(t *testing.T) {
	root := t.TempDir()
	l := open(t, root)
	l.add(t, "base", "", "a")
	l.add(t, "copy", "base", "b")
	must(t, l.Share(t.Context(), "copy", "x"))
	_, err := l.View(t.Context(), "view", "copy")
	must(t, err)
	fs := func(n string) string { return filepath.Join(root, "snapshots", n, "fs") }
	shared := filepath.Join(root, "shared", "x", "fs")
	want := []Directory{{Path: fs("3"), Number: "3"}, {Path: shared, Number: "2", Shared: "x"}, {Path: fs("1"), Number: "1"}}
	if got := l.chain(t, "view"); !slices.Equal(got, want) {
		t.Errorf("view: %v, want %v", got, want)
	}
	if got := l.chain(t, "copy"); !slices.Equal(got, want[1:]) {
		t.Errorf("copy: %v, want %v", got, want[1:])
	}
	if _, err := l.Chain(t.Context(), "nothing"); err == nil {
		t.Error("a snapshot that does not exist has layers")
	}
}

// TestContexts: what a caller puts in the context reaches Layers through containerd's metadata database.
func TestContexts(t *testing.T) {
	root := t.TempDir()
	l := open(t, filepath.Join(root, "snapshots"))
	content, err := local.NewStore(filepath.Join(root, "content"))
	must(t, err)
	db, err := bolt.Open(filepath.Join(root, "meta.db"), 0o600, nil)
	must(t, err)
	defer db.Close()
	mdb := ctdmetadata.NewDB(db, content, map[string]snapshots.Snapshotter{"overlayfs": l})
	must(t, mdb.Init(t.Context()))
	outer := mdb.Snapshotter("overlayfs")
	ctx := namespaces.WithNamespace(t.Context(), "test")

	for _, step := range []struct{ name, parent string }{{"base", ""}, {"copy", "base"}} {
		_, err := outer.Prepare(ctx, step.name+"-active", step.parent)
		must(t, err)
		must(t, outer.Commit(ctx, step.name, step.name+"-active"))
	}
	var made []Prepared
	_, err = outer.Prepare(WithPrepared(ctx, func(p Prepared) { made = append(made, p) }), "run", "copy")
	must(t, err)
	if len(made) != 1 {
		t.Fatalf("told of %d snapshots", len(made))
	}
	p := made[0]
	if p.Key == "run" || p.Parent == "copy" || p.Directory != l.own("3") || len(p.Lower) != 2 || p.Lower[0].Number != "2" {
		t.Errorf("told %+v", p)
	}
	if info, err := l.Stat(ctx, p.Key); err != nil || info.Parent != p.Parent {
		t.Errorf("key %q: %v, parent %q, want %q", p.Key, err, info.Parent, p.Parent)
	}

	var asked []Directory
	replaced, err := outer.Mounts(WithLower(ctx, func(_ context.Context, key string, lower []Directory) ([]string, []string, error) {
		if key != p.Key {
			t.Errorf("asked about %q", key)
		}
		asked = lower
		return []string{"/view", lower[1].Path}, []string{"xino=on"}, nil
	}), "run")
	must(t, err)
	if !slices.Equal(asked, p.Lower) {
		t.Errorf("asked about %v, want %v", asked, p.Lower)
	}
	work := filepath.Join(root, "snapshots", "snapshots", "3", "work")
	options := []string{"workdir=" + work, "upperdir=" + l.own("3"), "lowerdir=/view:" + l.own("1")}
	equalMount(t, "replaced", replaced[0], "overlay", append(options, "xino=on")...)
	plain, err := outer.Mounts(ctx, "run")
	must(t, err)
	options[2] = "lowerdir=" + l.own("2") + ":" + l.own("1")
	equalMount(t, "plain", plain[0], "overlay", options...)
}

func TestWithLower(t *testing.T) {
	l := open(t, t.TempDir())
	l.add(t, "base", "", "a")
	l.add(t, "top", "base", "b")
	must(t, l.Share(t.Context(), "top", "x"))
	for key, prepare := range map[string]func() error{
		"bind":     func() error { _, err := l.Prepare(t.Context(), "bind", ""); return err },
		"view":     func() error { _, err := l.View(t.Context(), "view", "top"); return err },
		"readonly": func() error { _, err := l.Prepare(t.Context(), "readonly", "top"); return err },
	} {
		must(t, prepare())
		if key == "readonly" {
			must(t, l.Alias(t.Context(), key, "x"))
		}
		ctx := WithLower(t.Context(), func(context.Context, string, []Directory) ([]string, []string, error) {
			t.Errorf("%s: asked for lower directories", key)
			return nil, nil, nil
		})
		l.mountOf(t, ctx, key)
	}
	_, err := l.Prepare(t.Context(), "run", "top")
	must(t, err)
	before := l.mountOf(t, t.Context(), "run")
	nothing := func(context.Context, string, []Directory) ([]string, []string, error) { return nil, nil, nil }
	same := l.mountOf(t, WithLower(t.Context(), nothing), "run")
	if !slices.Equal(same.Options, before.Options) {
		t.Errorf("unchanged: %q, want %q", same.Options, before.Options)
	}
	refused := errors.New("no view")
	fails := func(context.Context, string, []Directory) ([]string, []string, error) { return nil, nil, refused }
	_, err = l.Mounts(WithLower(t.Context(), fails), "run")
	if !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
}

// TestWalk: the function may call everything, also what writes.
func TestWalk(t *testing.T) {
	l := open(t, t.TempDir())
	l.add(t, "a", "", "f")
	l.add(t, "b", "", "f")
	var seen []string
	must(t, l.Walk(t.Context(), func(ctx context.Context, info snapshots.Info) error {
		seen = append(seen, info.Name)
		if _, err := l.Usage(ctx, info.Name); err != nil {
			return err
		}
		return errors.Join(l.Share(ctx, info.Name, "of-"+info.Name), l.Remove(ctx, info.Name))
	}))
	if !slices.Equal(seen, []string{"a", "b"}) {
		t.Errorf("seen %q", seen)
	}
}
