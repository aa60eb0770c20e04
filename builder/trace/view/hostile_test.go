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

	"github.com/optbuild/optbuild/builder/trace"
)

// TestHostileRace looks up the same names, present and missing, from many threads at once.
func TestHostileRace(t *testing.T) {
	needMounts(t)
	const threads, names = 8, 300
	dir := scratch(t)
	for i := range names {
		write(t, filepath.Join(dir, "layer/d", fmt.Sprint(i)), "x", 0o644)
	}
	g := overlay(t, []layer{{Dir: filepath.Join(dir, "layer"), Watched: true}})
	var wg sync.WaitGroup
	for thread := range threads {
		wg.Go(func() {
			for i := range names {
				i = (i + thread*7) % names
				if _, err := os.Lstat(filepath.Join(g.Merged, "d", fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
				if _, err := os.Lstat(filepath.Join(g.Merged, "d", fmt.Sprint("m", i))); err == nil {
					t.Error("found what is not there")
				}
				if i%3 == 0 {
					if _, err := os.ReadFile(filepath.Join(g.Merged, "d", fmt.Sprint(i))); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	got := record(t, g.Views[0])
	for i := range names {
		want := looked
		if i%3 == 0 {
			want = read
		}
		if p := fmt.Sprint("d/", i); got[p]&want != want {
			t.Errorf("%s: got %v", p, got[p])
		}
		if p := fmt.Sprint("d/m", i); got[p] != absent {
			t.Errorf("%s: got %v", p, got[p])
		}
	}
}

// TestHostileOpen has more files open at once than a process may that serves them all with a descriptor for each.
func TestHostileOpen(t *testing.T) {
	needMounts(t)
	const files = 10_000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < files+1000 {
		t.Skipf("may open %d files only", limit.Cur)
	}
	dir := scratch(t)
	many(t, filepath.Join(dir, "layer"), files)
	g := overlay(t, []layer{{Dir: filepath.Join(dir, "layer"), Watched: true}})
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	var before, after int
	before = descriptors(t)
	for i := range files {
		fd, err := unix.Open(filepath.Join(g.Merged, fmt.Sprint(i)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		fds = append(fds, fd)
	}
	var b [16]byte
	for i, fd := range fds {
		if n, err := unix.Read(fd, b[:]); err != nil || string(b[:n]) != fmt.Sprint(i) {
			t.Fatalf("file %d: read %q, %v", i, b[:n], err)
		}
	}
	after = descriptors(t)
	if more := after - before - files; more > 50 {
		t.Errorf("the view took %d descriptors", more)
	}
	got := record(t, g.Views[0])
	for i := range files {
		if p := fmt.Sprint(i); got[p]&read != read {
			t.Fatalf("%s: got %v", p, got[p])
		}
	}
}

// TestHostileListing lists a large directory while names are made in it.
func TestHostileListing(t *testing.T) {
	needMounts(t)
	names := 100_000
	if testing.Short() || inUserNamespace() {
		names = 5_000
	}
	dir := scratch(t)
	mkdir(t, filepath.Join(dir, "layer/d"), 0o755)
	for i := range names { // links, because that is faster; a file can't have so many on every file system
		name, first := filepath.Join(dir, "layer/d", fmt.Sprint(i)), filepath.Join(dir, "layer/d", fmt.Sprint(i-i%10_000))
		if i%10_000 == 0 {
			write(t, name, "", 0o644)
		} else if err := os.Link(first, name); err != nil {
			t.Fatal(err)
		}
	}
	g := overlay(t, []layer{{Dir: filepath.Join(dir, "layer"), Watched: true}})
	f, err := os.Open(filepath.Join(g.Merged, "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]bool{}
	for made := 0; ; made++ {
		entries, err := f.ReadDir(10_000)
		for _, e := range entries {
			if seen[e.Name()] {
				t.Errorf("%s is listed twice", e.Name())
			}
			seen[e.Name()] = true
		}
		if err != nil || len(entries) == 0 {
			break
		}
		write(t, filepath.Join(g.Merged, "d", fmt.Sprint("new", made)), "", 0o644)
	}
	for i := range names {
		if !seen[fmt.Sprint(i)] {
			t.Fatalf("%d is not listed", i)
		}
	}
	got := record(t, g.Views[0])
	if got["d"]&listed != listed || got["d/new0"] != absent || got["d/0"] != 0 {
		t.Errorf("got %v for the directory, %v for a new name, %v for a listed one", got["d"], got["d/new0"], got["d/0"])
	}
}

// TestHostileNames has names and depths at the limits. Most directories have no descriptor that is held.
func TestHostileNames(t *testing.T) {
	needMounts(t)
	held := mayHold
	mayHold = func() int32 { return heldEverywhere.Load() + 1 }
	defer func() { mayHold = held }()
	dir := scratch(t)
	layerDir := filepath.Join(dir, "layer")
	deepen(t, filepath.Join(layerDir, "deep"), 300, strings.Repeat("d", 200))
	odd := []string{strings.Repeat("n", 255), "\xff\xfe", "new\nline", " ", "\x01"}
	for _, name := range odd {
		write(t, filepath.Join(layerDir, name), "x", 0o644)
	}
	g := overlay(t, []layer{{Dir: layerDir, Watched: true}})
	names := len(picture(t, g.Merged))
	if names != 300+3+len(odd) {
		t.Errorf("got %d names", names)
	}
	if _, err := os.Lstat(filepath.Join(g.Merged, "\xff missing")); err == nil {
		t.Error("found what is not there")
	}
	got := record(t, g.Views[0])
	for _, name := range odd {
		if got[name]&read != read {
			t.Errorf("%q: got %v", name, got[name])
		}
	}
	if got["\xff missing"] != absent {
		t.Errorf("got %v", got["\xff missing"])
	}
	deepest := "deep" + strings.Repeat("/"+strings.Repeat("d", 200), 300) + "/f"
	if got[deepest]&read != read {
		t.Errorf("the deepest file: got %v", got[deepest])
	}
}

// TestHostileForget makes the kernel forget what it knows: it asks again, and the record is the same.
func TestHostileForget(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	write(t, filepath.Join(dir, "layer/d/f"), "x", 0o644)
	at := filepath.Join(dir, "view")
	mkdir(t, at, 0o755)
	v := mountView(t, filepath.Join(dir, "layer"), at, Options{})
	var before map[string]trace.What
	for i := range 3 {
		if _, err := os.ReadFile(filepath.Join(at, "d/f")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(at, "d/m")); err == nil {
			t.Fatal("found what is not there")
		}
		got := record(t, v)
		if i > 0 && fmt.Sprint(got) != fmt.Sprint(before) {
			t.Errorf("got %v, before %v", got, before)
		}
		before = got
		v.server.EntryNotify(rootID, "d")
	}
}

// many makes files whose content is their name, which is a number.
func many(t testing.TB, dir string, files int) {
	t.Helper()
	mkdir(t, dir, 0o755)
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), fmt.Append(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The rest makes views fail, and wants them to say so.

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
	v.tree.maxAbsent = 10
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
