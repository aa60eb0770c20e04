package snapshot

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
)

// needVolatile skips what a kernel before 5.10 can't do.
func needVolatile(t *testing.T) {
	t.Helper()
	needMounts(t)
	if err := CanSkipSync(t.TempDir()); err != nil {
		skip(t, err.Error())
	}
}

// TestWithoutSync: what was mounted so is mounted again in any way, with what was written.
func TestWithoutSync(t *testing.T) {
	needVolatile(t)
	l := open(t, t.TempDir())
	l.step(t, "base", "", func(dir string) { write(t, dir, "a") })
	_, err := l.Prepare(t.Context(), "run", "base")
	must(t, err)
	for range 2 {
		ctx, u := WithoutSync(t.Context())
		l.at(t, ctx, "run", func(dir string) {
			if !mountedVolatile(t, dir) {
				t.Error("it is mounted as ever")
			}
			f, err := os.Create(filepath.Join(dir, "b"))
			must(t, err)
			must(t, f.Sync())
			must(t, f.Close())
		})
		must(t, u.Unmounted())
	}
	l.at(t, t.Context(), "run", func(dir string) {
		if mountedVolatile(t, dir) {
			t.Error("it is mounted without sync, though nobody asked for that")
		}
		if got := tree(t, dir); got != "a b" {
			t.Errorf("files %s", got)
		}
	})
}

// TestWithoutSyncMark: the mark that the kernel leaves is what Unmounted is for. If this fails since the mount succeeds, Unmounted is needed no more.
func TestWithoutSyncMark(t *testing.T) {
	needVolatile(t)
	l := open(t, t.TempDir())
	l.add(t, "base", "", "a")
	_, err := l.Prepare(t.Context(), "run", "base")
	must(t, err)
	ctx, u := WithoutSync(t.Context())
	l.at(t, ctx, "run", func(string) {})
	m, dir := l.mountOf(t, t.Context(), "run"), t.TempDir()
	if err := m.Mount(dir); err == nil {
		must(t, mount.UnmountAll(dir, 0))
		t.Error("mounted in spite of the mark")
	}
	must(t, u.Unmounted())
	must(t, m.Mount(dir))
	must(t, mount.UnmountAll(dir, 0))
}

// TestWithoutSyncElsewhere: what nobody can write to, or is no overlay, is mounted as ever.
func TestWithoutSyncElsewhere(t *testing.T) {
	l := open(t, t.TempDir())
	l.add(t, "base", "", "a")
	l.add(t, "top", "base", "b")
	_, err := l.Prepare(t.Context(), "bind", "")
	must(t, err)
	_, err = l.View(t.Context(), "view", "top")
	must(t, err)
	_, err = l.Prepare(t.Context(), "alias", "base")
	must(t, err)
	must(t, l.Share(t.Context(), "top", "x"))
	must(t, l.Alias(t.Context(), "alias", "x"))
	for _, key := range []string{"bind", "view", "alias"} {
		ctx, u := WithoutSync(t.Context())
		if m := l.mountOf(t, ctx, key); slices.Contains(m.Options, volatileOption) {
			t.Errorf("%s: %v", key, m)
		}
		must(t, u.Unmounted())
	}
}

// mountedVolatile reads it in mountinfo, where newer kernels write fsync=volatile.
func mountedVolatile(t *testing.T, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && fields[4] == dir {
			options := strings.Split(fields[len(fields)-1], ",")
			return slices.Contains(options, volatileOption) || slices.Contains(options, "fsync="+volatileOption)
		}
	}
	t.Fatalf("%s is not mounted", dir)
	return false
}
