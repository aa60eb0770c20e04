package viewer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace"
)

// record is what was seen, sorted by order, as text.
func record(seen []trace.Seen) (out []string) {
	for _, s := range seen {
		out = append(out, fmt.Sprintf("%d %s %s", s.Order, s.Path, s.What))
	}
	return out
}

func TestViews(t *testing.T) {
	needMounts(t)
	p := process(t)
	p.Start()
	dir := layer(t, "one", "two")
	v := mount(t, p, dir, "one", "two")
	for _, name := range []string{"one/f", "two/d/g", "one/d/g"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != strings.SplitN(name, "/", 2)[1] {
			t.Errorf("%s: got %q, %v", name, b, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "two/missing")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "one/f"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	seen, err := v.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The order is counted through both views.
	for i, want := range [][]string{
		{"1 . looked", "3 f looked|read", "6 d looked", "7 d/g looked|read"},
		{"2 . looked", "4 d looked", "5 d/g looked|read", "8 missing absent"},
	} {
		if got := record(seen[i]); !slices.Equal(got, want) {
			t.Errorf("view %d: got %q, want %q", i, got, want)
		}
	}
	if again, err := v.Close(t.Context()); err != nil || len(again) != 2 {
		t.Errorf("closed again: %v, %v", again, err)
	}
	if mounted(t, dir) {
		t.Error("still mounted")
	}
	if _, err := p.Mount(Directory{filepath.Join(dir, "layer"), filepath.Join(dir, "one")},
		Directory{filepath.Join(dir, "nothing"), filepath.Join(dir, "two")}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("got %v", err)
	}
	if mounted(t, dir) {
		t.Error("a view is left of those that could not all be mounted")
	}
}

// TestViewsInherit: the viewer has no descriptors of what this process has opened, such as a lock.
func TestViewsInherit(t *testing.T) {
	needMounts(t)
	file, err := os.Create(filepath.Join(scratch(t), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := process(t)
	dir := layer(t, "view")
	if _, err := mount(t, p, dir, "view").Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var ours []string
	for fd, target := range descriptors(t, os.Getpid()) {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC != 0 && !strings.HasPrefix(target, "anon_inode:") {
			ours = append(ours, target)
		}
	}
	if !slices.Contains(ours, file.Name()) {
		t.Fatalf("%s is not among %q", file.Name(), ours)
	}
	for fd, target := range descriptors(t, p.pid()) {
		if slices.Contains(ours, target) && !strings.HasPrefix(target, "/sys/fs/cgroup/") { // the Go runtime's
			t.Errorf("descriptor %d is %s", fd, target)
		}
	}
}

func descriptors(t *testing.T, pid int) map[int]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]string{}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil { // else it was closed meanwhile
			out[fd] = target
		}
	}
	return out
}

// TestViewsMany mounts and closes: nothing is left of a view.
func TestViewsMany(t *testing.T) {
	needMounts(t)
	count := 200
	if testing.Short() {
		count = 40
	}
	p := process(t)
	dir := layer(t, "view")
	cycle := func() {
		v := mount(t, p, dir, "view")
		if _, err := os.ReadFile(filepath.Join(dir, "view/d/g")); err != nil {
			t.Error(err)
		}
		if _, err := v.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	threads := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid()))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	for range 10 {
		cycle()
	}
	here, there, before := len(descriptors(t, os.Getpid())), len(descriptors(t, p.pid())), threads()
	for range count {
		cycle()
	}
	until(t, "the number of descriptors of before", func() bool {
		return len(descriptors(t, os.Getpid())) <= here && len(descriptors(t, p.pid())) <= there
	})
	if now := threads(); now > before+20 { // the runtime keeps some for later
		t.Errorf("%d threads, %d before", now, before)
	}
	if mounted(t, dir) {
		t.Error("still mounted")
	}
}

// TestViewsLoad closes views while many look into them, and into others.
func TestViewsLoad(t *testing.T) {
	needMounts(t)
	p := process(t)
	stop := make(chan struct{})
	var load, steps sync.WaitGroup
	for range 4 {
		dir := layer(t, "one", "two")
		for i := range 4 {
			load.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						_, _ = os.Lstat(filepath.Join(dir, []string{"one", "two"}[i%2], fmt.Sprint("missing", n)))
					}
				}
			})
		}
		steps.Go(func() {
			for range 5 {
				v, err := p.Mount(Directory{filepath.Join(dir, "layer"), filepath.Join(dir, "one")},
					Directory{filepath.Join(dir, "layer"), filepath.Join(dir, "two")})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.ReadFile(filepath.Join(dir, "two/d/g")); err != nil {
					t.Error(err)
				}
				seen, err := v.Close(t.Context())
				if err != nil {
					t.Error(err)
				} else if got := record(seen[1]); !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, " d/g looked|read") }) {
					t.Errorf("got %q", got)
				}
			}
			if mounted(t, dir) {
				t.Error("still mounted")
			}
		})
	}
	steps.Wait()
	close(stop)
	load.Wait()
}

// TestViewsInUse: a view that somebody holds is detached, and it is still known what was seen of it.
func TestViewsInUse(t *testing.T) {
	needMounts(t)
	p := process(t)
	dir := layer(t, "view")
	v := mount(t, p, dir, "view")
	f, err := os.Open(filepath.Join(dir, "view/f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if seen, err := v.Close(ctx); err != nil || !slices.Contains(record(seen[0]), "2 f looked|read") {
		t.Errorf("got %v, %v", seen, err)
	}
	if mounted(t, dir) {
		t.Error("still mounted")
	}
}
