package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
)

// deferred opens a snapshotter with the committed snapshots "far", which has the remote layer "r", and "near" on it.
func deferred(t *testing.T, root string, mount MountRemote) *Layers {
	t.Helper()
	l := open(t, root)
	l.SetRemote(mount)
	_, err := l.Prepare(t.Context(), "far-active", "")
	must(t, err)
	must(t, l.Defer(t.Context(), "far-active", "r", []byte("note")))
	must(t, l.Commit(t.Context(), "far", "far-active"))
	l.add(t, "near", "far", "b")
	return l
}

// appear is a MountRemote that makes the files appear, and counts how often it had to.
func appear(l **Layers, times *int) MountRemote {
	return func(id string, note []byte) error {
		if id != "r" || string(note) != "note" {
			return errors.New("asked for " + id + " by " + string(note))
		}
		*times++
		return os.MkdirAll((*l).RemotePath(id), 0o755)
	}
}

// TestRemote: the layer is mounted when something needs its files, once, and its snapshot is never an empty directory.
func TestRemote(t *testing.T) {
	root, times := t.TempDir(), 0
	var l *Layers
	opened := open(t, root) // for appear, which needs the paths only
	l = opened
	must(t, opened.Close())
	l = deferred(t, root, appear(&l, &times))
	if times != 1 {
		t.Errorf("mounted %d times while a snapshot was made on it, want once", times)
	}
	want := []string{filepath.Join(root, "snapshots", "2", "fs"), filepath.Join(root, "remote", "r", "fs")}
	var got []string
	for _, d := range l.chain(t, "near") {
		got = append(got, d.Path)
	}
	if !slices.Equal(got, want) {
		t.Errorf("layers %v, want %v", got, want)
	}
	if u, err := l.Usage(t.Context(), "far"); err != nil || u.Size > 4096 {
		t.Errorf("it takes %d bytes, %v", u.Size, err)
	}

	// The process ends, and what it has mounted.
	must(t, l.Close())
	must(t, os.RemoveAll(filepath.Join(root, "remote", "r")))
	if _, err := os.Stat(filepath.Join(root, "snapshots", "1", "fs")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	present, err := Repair(root, true, map[string]string{"1": "far", "2": "near"}, os.RemoveAll)
	must(t, err)
	if !present["far"] || !present["near"] {
		t.Errorf("present %v", present)
	}
	l = open(t, root)
	l.SetRemote(appear(&l, &times))
	var notes []string
	must(t, l.RemoteNotes(func(n []byte) { notes = append(notes, string(n)) }))
	if !slices.Equal(notes, []string{"note"}) {
		t.Errorf("notes %q", notes)
	}
	_, err = l.View(t.Context(), "v", "near")
	must(t, err)
	if times != 2 {
		t.Errorf("mounted %d times, want twice", times)
	}
}

// TestRemoteFails: without a mount there is an error.
func TestRemoteFails(t *testing.T) {
	root, times := t.TempDir(), 0
	var l *Layers
	l = open(t, root)
	must(t, l.Close())
	l = deferred(t, root, appear(&l, &times))
	must(t, l.Close())
	must(t, os.RemoveAll(filepath.Join(root, "remote", "r")))
	gone := errors.New("gone")
	for _, mount := range []MountRemote{nil, func(string, []byte) error { return gone }} {
		l = open(t, root)
		l.SetRemote(mount)
		if _, err := l.View(t.Context(), "v", "near"); err == nil || mount != nil && !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		if _, err := l.Chain(t.Context(), "near"); err == nil {
			t.Error("it has a chain")
		}
		must(t, l.Close())
	}
	// A note that is lost: the snapshot is.
	must(t, os.Remove(filepath.Join(root, "snapshots", "1", "remote")))
	present, err := Repair(root, true, map[string]string{"1": "far", "2": "near"}, os.RemoveAll)
	must(t, err)
	if present["far"] {
		t.Error("it counts as there")
	}
}

// TestDeferRefuses: what has files, or is not active, does not become a remote layer.
func TestDeferRefuses(t *testing.T) {
	l := open(t, t.TempDir())
	l.add(t, "done", "", "a")
	_, err := l.Prepare(t.Context(), "full", "")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(l.chain(t, "full")[0].Path, "f"), nil, 0o600))
	for _, key := range []string{"done", "full"} {
		if err := l.Defer(t.Context(), key, "r", nil); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := l.Defer(t.Context(), "full", "../r", nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

// TestRemoteIn: a mount names the remote layers in it, whatever name it has for them, and Mounts tells of them before others are put in their places.
func TestRemoteIn(t *testing.T) {
	root, times := t.TempDir(), 0
	var l *Layers
	l = open(t, root)
	must(t, l.Close())
	l = deferred(t, root, appear(&l, &times))
	view := func(key, parent string) []mount.Mount {
		t.Helper()
		list, err := l.View(t.Context(), key, parent)
		must(t, err)
		return list
	}
	_, err := l.Prepare(t.Context(), "active", "near")
	must(t, err)
	var told [][]string
	ctx := WithRemote(t.Context(), func(ids []string) { told = append(told, ids) })
	active, err := l.Mounts(ctx, "active")
	must(t, err)
	l.add(t, "local", "", "a")
	for name, tc := range map[string]struct {
		mounts []mount.Mount
		want   []string
	}{
		"one directory":       {view("v1", "far"), []string{"r"}},
		"for reading":         {view("v2", "near"), []string{"r"}},
		"for writing":         {active, []string{"r"}},
		"by its link":         {[]mount.Mount{{Type: "overlay", Options: []string{"lowerdir=/x:" + l.own("1")}}}, []string{"r"}},
		"a local one":         {view("v3", "local"), nil},
		"in memory":           {[]mount.Mount{{Type: "tmpfs", Source: l.RemotePath("r")}}, nil},
		"a name that is like": {[]mount.Mount{{Type: "bind", Source: l.RemoteDir() + "r/r/fs"}}, nil},
	} {
		if len(tc.mounts) != 1 {
			t.Fatalf("%s: mounts %v", name, tc.mounts)
		}
		if got := l.RemoteIn(tc.mounts[0]); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
	replaced, err := l.Mounts(WithLower(ctx, func(context.Context, string, []Directory) ([]string, []string, error) {
		return []string{filepath.Join(root, "view")}, nil, nil
	}), "active")
	must(t, err)
	if ids := l.RemoteIn(replaced[0]); len(ids) > 0 {
		t.Errorf("nothing was replaced: %v", ids)
	}
	if want := [][]string{{"r"}, {"r"}}; !slices.EqualFunc(told, want, slices.Equal) {
		t.Errorf("told %v, want %v", told, want)
	}
	for path, want := range map[string]bool{l.own("1"): true, l.RemotePath("r"): true, root: false, root + "er/x": false, l.own("1") + "/../../../../x": false} {
		if l.Has(path) != want {
			t.Errorf("has %s: %v", path, !want)
		}
	}
}
