package replay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree writes files; a name that ends with a slash is a directory, content that begins with "->" a link.
func tree(t *testing.T, when time.Time, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		target, link := strings.CutPrefix(text, "->")
		switch {
		case strings.HasSuffix(name, "/"):
			must(os.MkdirAll(path, 0o755))
		case link:
			must(os.Symlink(target, path))
		case text == "pipe":
			must(syscall.Mkfifo(path, 0o644))
		default:
			must(os.WriteFile(path, []byte(text), 0o644))
		}
	}
	must(filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil || path == root {
			return err
		}
		ts := unix.NsecToTimespec(when.UnixNano())
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}))
	return root
}

// TestCompareCopies: what is the same gets its time back, what is not is told.
func TestCompareCopies(t *testing.T) {
	then, now := time.Unix(1_000_000, 1), time.Unix(2_000_000, 2)
	was := map[string]string{
		"same": "text", "dir/same": "text", "dir/other": "text", "dir/longer": "text", "dir/sub/gone": "", "gone/": "", "gone/file": "", "link": "->same", "other-link": "->same",
		"becomes/file": "", "becomes-dir": "", "kept/deep/file": "text", "mode": "text", "link-dir": "->kept", "pipe": "pipe", "z": "",
	}
	is := map[string]string{
		"same": "text", "dir/same": "text", "dir/other": "text", "dir/longer": "text", "dir/sub/": "", "link": "->same", "other-link": "->diff",
		"becomes": "->kept", "becomes-dir/file": "", "kept/deep/file": "text", "mode": "text", "link-dir": "->kept", "pipe": "pipe", "z": "", "a-new/file": "", "new": "",
	}
	for _, keeps := range []bool{true, false} {
		c := copies{last: tree(t, then, was), this: tree(t, now, is), keeps: keeps}
		write := func(name, text string, mode os.FileMode) {
			path := filepath.Join(c.this, name)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, now, now); err != nil {
				t.Fatal(err)
			}
		}
		write("dir/other", "TEXT", 0o644)
		write("dir/longer", "text and more", 0o644)
		write("mode", "text", 0o755)
		if err := c.compare(); err != nil {
			t.Fatal(err)
		}
		want := `/a-new is new
/becomes is of another type
/becomes-dir is of another type
/dir/longer changed
/dir/other changed
/mode: mode 0644 -> 0755
/new is new
/other-link changed
/pipe changed
/dir/sub/gone is gone
/gone is gone
`
		if got := strings.Join(c.reasons(), "\n") + "\n"; got != want {
			t.Errorf("told:\n%swant:\n%s", got, want)
		}
		for name, same := range map[string]bool{
			"same": true, "dir": true, "dir/same": true, "link": true, "kept": true, "kept/deep": true, "kept/deep/file": true, "mode": true, "link-dir": true, "z": true,
			"dir/other": false, "dir/longer": false, "dir/sub": false, "other-link": false, "becomes": false, "becomes-dir": false, "pipe": false, "new": false, "a-new": false,
		} {
			info, err := os.Lstat(filepath.Join(c.this, name))
			if err != nil {
				t.Fatal(err)
			}
			time := now
			if same && keeps {
				time = then
			}
			if !info.ModTime().Equal(time) {
				t.Errorf("keeps %v: %s is of %v, want %v", keeps, name, info.ModTime(), time)
			}
		}
	}
}

// TestCompareManyCopies: so many changes, and no more, are told; what is gone comes last.
func TestCompareManyCopies(t *testing.T) {
	was, is := map[string]string{}, map[string]string{}
	for i := range maxChanges + 5 {
		was[fmt.Sprintf("a%02d", i)], is[fmt.Sprintf("b%02d", i)] = "", ""
	}
	c := copies{last: tree(t, time.Unix(1, 0), was), this: tree(t, time.Unix(1, 0), is)}
	if err := c.compare(); err != nil {
		t.Fatal(err)
	}
	got := c.reasons()
	if len(got) != maxChanges || got[0] != "/b00 is new" || got[maxChanges-1] != fmt.Sprintf("/b%02d is new", maxChanges-1) {
		t.Errorf("%q", got)
	}
}

// BenchmarkCompareCopies has 7,000 files in both layers, of which one changed.
func BenchmarkCompareCopies(b *testing.B) {
	var roots [2]string
	for i := range roots {
		roots[i] = b.TempDir()
		for n := range 7000 {
			path := filepath.Join(roots[i], fmt.Sprint(n/100), fmt.Sprint(n))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				b.Fatal(err)
			}
			text := "text"
			if n == 99 && i == 1 {
				text = "longer"
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				b.Fatal(err)
			}
			if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		c := copies{last: roots[0], this: roots[1]}
		if err := c.compare(); err != nil || len(c.reasons()) != 1 {
			b.Fatal(err, c.reasons())
		}
	}
}
