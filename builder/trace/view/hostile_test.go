package view

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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
	files := 10_000
	if testing.Short() {
		files = 2_000
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(files)+1000 {
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
	if testing.Short() {
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

// TestHostileKill kills a step in the middle of what it does, some times: that leaves no gap in the record.
func TestHostileKill(t *testing.T) {
	needMounts(t)
	const files = 2000
	dir := scratch(t)
	many(t, filepath.Join(dir, "layer"), files)
	g := overlay(t, []layer{{Dir: filepath.Join(dir, "layer"), Watched: true}})
	for range 5 {
		step := exec.Command("sh", "-c", `for f in "$1"/*; do read line < "$f"; echo "$line"; [ ! -e "$f.missing" ] || exit; done`, "sh", g.Merged)
		out, err := step.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := step.Start(); err != nil {
			t.Fatal(err)
		}
		var lines bytes.Buffer
		if _, err := io.CopyN(&lines, out, 300); err != nil {
			t.Error(err)
		}
		if err := step.Process.Kill(); err != nil {
			t.Error(err)
		}
		if _, err := lines.ReadFrom(out); err != nil {
			t.Error(err)
		}
		step.Wait()
		got := record(t, g.Views[0])
		for line := range strings.Lines(lines.String()) {
			if p := strings.TrimSpace(line); got[p]&read != read {
				t.Errorf("%s: got %v", p, got[p])
			}
		}
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
