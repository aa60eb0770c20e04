package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
)

// at mounts a snapshot, calls f with the place and takes the mount away.
func (l *Layers) at(t testing.TB, ctx context.Context, key string, f func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	m := l.mountOf(t, ctx, key)
	must(t, m.Mount(dir))
	defer unmount(t, dir)
	f(dir)
}

func unmount(t testing.TB, dir string) {
	t.Helper()
	must(t, mount.UnmountAll(dir, 0))
}

// step makes a committed snapshot by what f does in its mounted file system.
func (l *Layers) step(t testing.TB, name, parent string, f func(dir string)) {
	t.Helper()
	_, err := l.Prepare(t.Context(), name+"-active", parent)
	must(t, err)
	l.at(t, t.Context(), name+"-active", f)
	must(t, l.Commit(t.Context(), name, name+"-active"))
}

// tree lists the files below dir, with the contents of those that are short.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if fi.IsDir() {
			name += "/"
		}
		b.WriteString(name + " ")
		return nil
	}))
	return strings.TrimSpace(b.String())
}

func (l *Layers) look(t testing.TB, name string) (files string) {
	t.Helper()
	_, err := l.View(t.Context(), name+"-view", name)
	must(t, err)
	l.at(t, t.Context(), name+"-view", func(dir string) { files = tree(t, dir) })
	must(t, l.Remove(t.Context(), name+"-view"))
	return files
}

func write(t testing.TB, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644))
	}
}

// run is a step that adds, deletes a file, and replaces a directory.
func run(t testing.TB) func(dir string) {
	return func(dir string) {
		write(t, dir, "out/made")
		must(t, os.Remove(filepath.Join(dir, "src/deleted")))
		must(t, os.RemoveAll(filepath.Join(dir, "cache")))
		write(t, dir, "cache/new")
	}
}

// TestMountedAlias: what a step deleted stays deleted when its layer is put on another parent.
func TestMountedAlias(t *testing.T) {
	needMounts(t)
	l := open(t, t.TempDir())
	ctx := t.Context()
	l.step(t, "base", "", func(dir string) { write(t, dir, "etc/passwd") })
	l.step(t, "copy1", "base", func(dir string) { write(t, dir, "src/deleted", "src/kept", "cache/old") })
	l.step(t, "copy2", "base", func(dir string) { write(t, dir, "src/deleted", "src/other", "cache/old", "cache/older") })
	l.step(t, "run1", "copy1", run(t))
	want := l.look(t, "run1")
	must(t, l.Share(ctx, "run1", "x"))
	if got := l.look(t, "run1"); got != want {
		t.Errorf("shared:\ngot  %s\nwant %s", got, want)
	}
	l.step(t, "built", "copy2", run(t))
	l.addAlias(t, "replayed", "copy2", "x")
	if got, want := l.look(t, "replayed"), l.look(t, "built"); got != want {
		t.Errorf("replayed:\ngot  %s\nwant %s", got, want)
	}
	// A step on the alias may do what it likes, also to what is shared.
	l.step(t, "next", "replayed", func(dir string) {
		must(t, os.RemoveAll(filepath.Join(dir, "cache")))
		must(t, os.WriteFile(filepath.Join(dir, "out/made"), []byte("changed"), 0o644))
	})
	if got := l.look(t, "next"); got != "etc/ etc/passwd out/ out/made src/ src/other" {
		t.Errorf("next: %s", got)
	}
	if b, err := os.ReadFile(filepath.Join(l.FilesPath("x"), "out/made")); err != nil || string(b) != "out/made" {
		t.Errorf("the shared layer was written to: %q, %v", b, err)
	}
	// An active alias is not written to.
	_, err := l.Prepare(ctx, "active", "copy2")
	must(t, err)
	must(t, l.Alias(ctx, "active", "x"))
	l.at(t, ctx, "active", func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "out/made"), nil, 0o644); err == nil {
			t.Error("an active alias was written to")
		}
	})
}

// TestShareMounted: mounts that have the directory, also as the upper one, go on.
func TestShareMounted(t *testing.T) {
	needMounts(t)
	l := open(t, t.TempDir())
	ctx := t.Context()
	l.step(t, "base", "", func(dir string) { write(t, dir, "a", "b") })
	l.step(t, "top", "base", func(dir string) { write(t, dir, "c/d", "c/e") })
	_, err := l.Prepare(ctx, "active", "top")
	must(t, err)
	_, err = l.View(ctx, "view", "top")
	must(t, err)
	l.at(t, ctx, "active", func(active string) {
		l.at(t, ctx, "view", func(view string) {
			write(t, active, "f")
			must(t, l.Share(ctx, "base", "x"))
			must(t, l.Share(ctx, "top", "y"))
			write(t, active, "c/g", "a")
			must(t, os.Remove(filepath.Join(active, "c/d")))
			must(t, l.Share(ctx, "active", "z"))
			if got := tree(t, active); got != "a b c/ c/e c/g f" {
				t.Errorf("active: %s", got)
			}
			if got := tree(t, view); got != "a b c/ c/d c/e" {
				t.Errorf("view: %s", got)
			}
		})
	})
	must(t, l.Commit(ctx, "done", "active"))
	if got := l.look(t, "done"); got != "a b c/ c/e c/g f" {
		t.Errorf("done: %s", got)
	}
}

// TestReplacedLower mounts what WithLower asks for.
func TestReplacedLower(t *testing.T) {
	needMounts(t)
	l := open(t, t.TempDir())
	l.step(t, "base", "", func(dir string) { write(t, dir, "a") })
	l.step(t, "copy", "base", func(dir string) { write(t, dir, "b") })
	_, err := l.Prepare(t.Context(), "run", "copy")
	must(t, err)
	view := t.TempDir()
	write(t, view, "seen")
	ctx := WithLower(t.Context(), func(_ context.Context, _ string, lower []Directory) ([]string, []string, error) {
		return []string{view, lower[1].Path}, []string{"xino=on"}, nil
	})
	l.at(t, ctx, "run", func(dir string) {
		if got := tree(t, dir); got != "a seen" {
			t.Errorf("files %s", got)
		}
	})
	l.at(t, t.Context(), "run", func(dir string) {
		if got := tree(t, dir); got != "a b" {
			t.Errorf("files without a replacement %s", got)
		}
	})
}

// innerVariable is set in the process that runs the tests of mounts in a user namespace.
const innerVariable = "SNAPSHOT_TEST_INNER"

// TestUserNamespace runs the tests of mounts once more in user namespaces, where overlays keep their notes in other attributes.
func TestUserNamespace(t *testing.T) {
	if os.Getenv(innerVariable) != "" {
		t.Skip("is in one")
	}
	for name, c := range map[string]struct {
		uid, gid, size int // outside
		tests          string
	}{
		"one id":  {os.Getuid(), os.Getgid(), 1, "MountedAlias|ShareMounted|ReplacedLower|Cleanup|ManyLayers|Fits|WithoutSync"},
		"all ids": {100_000, 100_000, 65_536, "MountedAlias|ShareMounted|ReplacedLower|Cleanup|Alias|ManyLayers|Fits|WithoutSync"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.size > 1 && os.Getuid() != 0 {
				skip(t, "a range of ids takes root, or a setuid helper")
			}
			tmp := t.TempDir()
			must(t, os.Chown(tmp, c.uid, c.gid))
			for dir := tmp; c.size > 1 && dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) { // testing keeps others out
				fi, err := os.Stat(dir)
				must(t, err)
				must(t, os.Chmod(dir, fi.Mode()|0o111))
			}
			self := exec.Command("/proc/self/exe", "-test.run=^Test("+c.tests+")$", "-test.v")
			self.Env = append(os.Environ(), innerVariable+"=1", "TMPDIR="+tmp)
			self.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: []syscall.SysProcIDMap{{HostID: c.uid, Size: c.size}},
				GidMappings: []syscall.SysProcIDMap{{HostID: c.gid, Size: c.size}},
				Credential:  &syscall.Credential{NoSetGroups: c.size == 1},
			}
			out, err := self.CombinedOutput()
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) {
				skip(t, fmt.Sprintf("no user namespace: %v", err))
			}
			if err != nil || bytes.Contains(out, []byte("--- SKIP")) || !bytes.Contains(out, []byte("--- PASS: TestReplacedLower")) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// needMounts skips what can't mount an overlay here.
func needMounts(t testing.TB) {
	t.Helper()
	needRoot(t) // of a user namespace will do
}
