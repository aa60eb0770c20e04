package view

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests here make views fail, and want them to say so.

func mustFail(t *testing.T, v *View, reason string) {
	t.Helper()
	if seen, err := v.Seen(); err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("got %v, %v, want an error with %q", seen, err, reason)
	}
}

func TestAdverseMissingNames(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	write(t, filepath.Join(dir, "layer/f"), "x", 0o644)
	g := overlay(t, []layer{{Dir: filepath.Join(dir, "layer"), Watched: true}})
	v := g.Views[0]
	v.tree.maxAbsent.Store(10)
	for i := range 20 {
		if _, err := os.Lstat(filepath.Join(g.Merged, fmt.Sprint("m", i))); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
	if _, err := os.ReadFile(filepath.Join(g.Merged, "f")); err != nil {
		t.Error(err)
	}
	mustFail(t, v, "more than 10 missing names")
}

func TestAdverseChangedLayer(t *testing.T) {
	needMounts(t)
	for name, change := range map[string]func(f string) error{
		"gone":    os.Remove,
		"another": func(f string) error { return errors.Join(os.Remove(f), os.Mkdir(f, 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := scratch(t)
			f := filepath.Join(dir, "layer/d/f")
			write(t, f, "x", 0o644)
			g := overlay(t, []layer{{Dir: filepath.Join(dir, "layer"), Watched: true}})
			if _, err := os.Lstat(filepath.Join(g.Merged, "d/f")); err != nil {
				t.Fatal(err)
			}
			if err := change(f); err != nil {
				t.Fatal(err)
			}
			if _, err := os.ReadFile(filepath.Join(g.Merged, "d/f")); err == nil {
				t.Error("read what is not there")
			}
			mustFail(t, g.Views[0], "d/f")
		})
	}
}

func TestAdversePanic(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	write(t, filepath.Join(dir, "layer/f"), "x", 0o644)
	at := filepath.Join(dir, "view")
	mkdir(t, at, 0o755)
	var broken atomic.Bool
	v := mountView(t, filepath.Join(dir, "layer"), at, Options{Modified: func(t time.Time) time.Time {
		if broken.Load() {
			panic("no time")
		}
		return t
	}})
	broken.Store(true)
	if _, err := os.Lstat(filepath.Join(at, "f")); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	mustFail(t, v, "no time")
}

// TestAdverseAbort has somebody with the rights to do so break the connection.
func TestAdverseAbort(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	write(t, filepath.Join(dir, "layer/f"), "x", 0o644)
	at := filepath.Join(dir, "view")
	mkdir(t, at, 0o755)
	v := mountView(t, filepath.Join(dir, "layer"), at, Options{})
	f, err := os.Open(filepath.Join(at, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Unmount(at, unix.MNT_FORCE); !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(at, "m")); err == nil {
		t.Error("found what is not there")
	}
	mustFail(t, v, "its server")
}

func TestAdverseReservedName(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	write(t, filepath.Join(dir, "layer", reservedName), "x", 0o644)
	at := filepath.Join(dir, "view")
	mkdir(t, at, 0o755)
	if v, err := Mount(filepath.Join(dir, "layer"), at, Options{}); err == nil {
		closeView(t, v)
		t.Error("mounted a layer with the name that go-fuse answers for")
	}
}

// TestClose closes views that are in use: in this namespace and in another one.
func TestClose(t *testing.T) {
	needMounts(t)
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	setup := func(t *testing.T) (*View, string) {
		dir := scratch(t)
		write(t, filepath.Join(dir, "layer/f"), "x", 0o644)
		at := filepath.Join(dir, "view")
		mkdir(t, at, 0o755)
		return mountView(t, filepath.Join(dir, "layer"), at, Options{}), at
	}
	gone := func(t *testing.T, at string) {
		t.Helper()
		if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), at) {
			t.Errorf("still mounted, %v", err)
		}
	}
	t.Run("open file", func(t *testing.T) {
		v, at := setup(t)
		f, err := os.Open(filepath.Join(at, "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := v.Close(soon()); err != nil {
			t.Error(err)
		}
		gone(t, at)
		if got := record(t, v); got["f"]&read != read {
			t.Errorf("got %v", got)
		}
	})
	t.Run("another namespace", func(t *testing.T) {
		v, at := setup(t)
		holder := exec.Command("unshare", "-m", "sh", "-c", "echo ready; read line; :")
		in, err := holder.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := holder.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		if err := v.Close(soon()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		gone(t, at)
		record(t, v)
		in.Close()
		if err := holder.Wait(); err != nil {
			t.Error(err)
		}
		closeView(t, v)
	})
	t.Run("many times at once", func(t *testing.T) {
		v, at := setup(t)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { closeView(t, v); record(t, v) })
		}
		wg.Wait()
		gone(t, at)
	})
	t.Run("unmounted by somebody else", func(t *testing.T) {
		v, at := setup(t)
		if err := unix.Unmount(at, 0); err != nil {
			t.Fatal(err)
		}
		<-v.done
		closeView(t, v)
		mustFail(t, v, "its server ended")
	})
}
