package view

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace"
)

// TestTorture makes each kind of access, in an overlay on a view, in a directory of its own, and compares what was seen of it with the
// table.
func TestTorture(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	program := compile(t, dir)
	out, err := exec.Command(program).Output()
	if err != nil {
		t.Fatal(err)
	}
	layerDir, below := filepath.Join(dir, "layer"), filepath.Join(dir, "below")
	known := map[string]bool{}
	for access := range strings.Lines(string(out)) {
		known[strings.TrimSpace(access)] = true
		tortureDirectory(t, filepath.Join(layerDir, "c", strings.TrimSpace(access)), program)
		if strings.HasPrefix(access, "merged_") {
			write(t, filepath.Join(below, "c", strings.TrimSpace(access), "d/z"), "z", 0o644)
		}
	}
	g := overlay(t, []layer{{Dir: layerDir, Watched: true}, {Dir: below}}, "xino=on")
	for _, c := range torture {
		t.Run(c.Access, func(t *testing.T) {
			if !known[c.Access] {
				t.Skip("not for this architecture")
			}
			delete(known, c.Access)
			out, err := exec.Command(program, c.Access, filepath.Join(g.Merged, "c", c.Access)).CombinedOutput()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 77 {
				t.Skipf("can't be made here: %s", strings.TrimSpace(string(out)))
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got := record(t, g.Views[0])
			base := "c/" + c.Access
			for name, want := range c.Sees {
				if p := strings.TrimSuffix(base+"/"+name, "/."); got[p]&want != want {
					t.Errorf("%s: seen %v, want %v", p, got[p], want)
				}
			}
			for _, name := range c.Unseen {
				if p := base + "/" + name; got[p] != 0 {
					t.Errorf("%s: seen %v, want nothing", p, got[p])
				}
			}
			if c.Reason != "" {
				for p, what := range got {
					if strings.HasPrefix(p, base+"/") {
						t.Errorf("%s: seen %v, want nothing: %s", p, what, c.Reason)
					}
				}
			}
			if (len(c.Sees) == 0) == (c.Reason == "") {
				t.Error("the table must have what is seen, or why nothing is")
			}
		})
	}
	contradictions(t, layerDir, record(t, g.Views[0]))
	for access := range known {
		t.Errorf("%s is not in the table", access)
	}
}

// contradictions compares a record with the layer itself.
func contradictions(t *testing.T, dir string, got map[string]trace.What) {
	t.Helper()
	for p, what := range got {
		_, err := os.Lstat(filepath.Join(dir, p))
		if (what&trace.Absent != 0) != errors.Is(err, os.ErrNotExist) || what&trace.Absent != 0 && what != trace.Absent {
			t.Errorf("%s: seen %v, but: %v", p, what, err)
		}
	}
}

// tortureDirectory makes what every access finds in its directory.
func tortureDirectory(t *testing.T, dir, program string) {
	t.Helper()
	write(t, filepath.Join(dir, "f"), "content\n", 0o644)
	write(t, filepath.Join(dir, "g"), "another\n", 0o644)
	write(t, filepath.Join(dir, "s"), "#!./x\n", 0o755)
	write(t, filepath.Join(dir, "d/a"), "a", 0o644)
	write(t, filepath.Join(dir, "d/b"), "b", 0o644)
	if strings.HasPrefix(filepath.Base(dir), "merged_") {
		write(t, filepath.Join(dir, "d/c"), "c", 0o644)
		mkdir(t, filepath.Join(dir, "d/s"), 0o755)
		if err := os.Symlink("a", filepath.Join(dir, "d/l")); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(t, filepath.Join(dir, "e"), 0o755)
	link := func(name, target string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("l", "f")
	link("l1", "l2")
	link("l2", "l")
	link("lm", "m")
	link("ld", "d")
	for name, kind := range map[string]uint32{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK} {
		if err := unix.Mknod(filepath.Join(dir, name), kind|0o644, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(filepath.Join(dir, "f"), "user.color", []byte("red"), 0); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc([]string{"exec", "mmap"}, func(s string) bool { return strings.Contains(filepath.Base(dir), s) }) {
		if err := os.Link(program, filepath.Join(dir, "x")); err != nil {
			t.Fatal(err)
		}
	}
}

// compile builds the program that tortures.
func compile(t *testing.T, dir string) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc and a static C library")
	}
	program := filepath.Join(dir, "torture")
	out, err := exec.Command(gcc, "-std=gnu11", "-O1", "-static", "-pthread", "-o", program, "testdata/torture.c").CombinedOutput()
	if err != nil {
		t.Skipf("needs a static C library and the kernel's headers: %v\n%s", err, out)
	}
	return program
}
