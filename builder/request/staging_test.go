package request

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tree prints what a directory has: names, link targets and contents.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			fmt.Fprintf(&b, "%s/\n", rel)
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			fmt.Fprintf(&b, "%s -> %s\n", rel, target)
		default:
			fmt.Fprintf(&b, "%s %q\n", rel, must(os.ReadFile(path)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestStagedFile(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func()
		dest    string
		want    string
	}{
		"new":                {func() {}, "o", "o \"new\"\n"},
		"existing":           {func() { os.WriteFile("o", []byte("old"), 0o600) }, "o", "o \"new\"\n"},
		"missing directory":  {func() {}, "a/b/o", "a/\na/b/\na/b/o \"new\"\n"},
		"link":               {func() { os.WriteFile("real", []byte("old"), 0o600); os.Symlink("real", "o") }, "o", "o -> real\nreal \"new\"\n"},
		"link to nothing":    {func() { os.Symlink("real", "o") }, "o", "o -> real\nreal \"new\"\n"},
		"link to a new tree": {func() { os.Mkdir("d", 0o755); os.Symlink("d/e", "o") }, "o/f", "d/\nd/e/\nd/e/f \"new\"\no -> d/e\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			test.prepare()
			before := tree(t, dir)
			for _, finish := range []bool{false, true} {
				var st staging
				open, err := st.file(test.dest)
				if err != nil {
					t.Fatal(err)
				}
				if got := tree(t, dir); got != before {
					t.Errorf("made before it was written to:\n%s", got)
				}
				f, err := open()
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(f, "new")
				f.Close()
				want := before
				if finish {
					want = test.want
					if err := st.commit(); err != nil {
						t.Fatal(err)
					}
				}
				st.discard()
				if got := tree(t, dir); got != want {
					t.Errorf("finished %v: got:\n%s\nwant:\n%s", finish, got, want)
				}
			}
		})
	}
}

func TestStagedFileKeepsMode(t *testing.T) {
	t.Chdir(t.TempDir())
	os.WriteFile("o", nil, 0o640)
	os.Chmod("o", 0o640)
	var st staging
	f := must(must(st.file("o"))())
	f.Close()
	if err := st.commit(); err != nil {
		t.Fatal(err)
	}
	if fi := must(os.Stat("o")); fi.Mode() != 0o640 {
		t.Errorf("mode %v, want 0640", fi.Mode())
	}
}

func TestStagedPipe(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := syscall.Mkfifo("p", 0o600); err != nil {
		t.Fatal(err)
	}
	named := must(os.OpenFile("p", os.O_RDWR, 0))
	defer named.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for dest, read := range map[string]*os.File{"p": named, fmt.Sprintf("/proc/self/fd/%d", w.Fd()): r} {
		var st staging
		f := must(must(st.file(dest))())
		io.WriteString(f, "new")
		f.Close()
		b := make([]byte, 3)
		if _, err := io.ReadFull(read, b); err != nil || string(b) != "new" {
			t.Errorf("%s: the pipe got %q, %v", dest, b, err)
		}
		if err := st.commit(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStagedDirectory(t *testing.T) {
	old := func() {
		os.MkdirAll("o/keep", 0o755)
		os.MkdirAll("o/both", 0o700)
		os.WriteFile("o/both/old", []byte("old"), 0o600)
		os.WriteFile("o/file", []byte("old"), 0o600)
		os.Symlink("keep", "o/dir")
	}
	const result = "both/\nboth/new \"new\"\ndir/\ndir/x \"new\"\nfile \"new\"\n"
	for name, test := range map[string]struct {
		prepare func()
		dest    string
		replace bool
		want    string
	}{
		"new":         {func() {}, "o", false, prefix("o/", result)},
		"deep":        {func() {}, "a/b", false, "a/\na/" + strings.TrimSuffix(strings.ReplaceAll(prefix("b/", result), "\n", "\na/"), "a/")},
		"merge":       {old, "o", false, "o/\no/both/\no/both/new \"new\"\no/both/old \"old\"\no/dir/\no/dir/x \"new\"\no/file \"new\"\no/keep/\n"},
		"replace":     {old, "o", true, prefix("o/", result)},
		"link":        {func() { os.Mkdir("real", 0o755); os.Symlink("real", "o") }, "o", false, "o -> real\n" + prefix("real/", result)},
		"link to new": {func() { os.Symlink("real", "o") }, "o", false, "o -> real\n" + prefix("real/", result)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			test.prepare()
			before := tree(t, dir)
			for _, finish := range []bool{false, true} {
				var st staging
				staged, err := st.directory(test.dest, test.replace)
				if err != nil {
					t.Fatal(err)
				}
				if got := tree(t, dir); got != before {
					t.Errorf("made before it was written to:\n%s", got)
				}
				for _, f := range []string{"both/new", "dir/x", "file"} {
					write(t, filepath.Join(staged, f), "new")
				}
				want := before
				if finish {
					want = test.want
					if err := st.commit(); err != nil {
						t.Fatal(err)
					}
				}
				st.discard()
				if got := tree(t, dir); got != want {
					t.Errorf("finished %v: got:\n%s\nwant:\n%s", finish, got, want)
				}
			}
		})
	}
}

// TestMergeAcross: what is below the destination may be a mount, to which nothing can be renamed.
func TestMergeAcross(t *testing.T) {
	from, err := os.MkdirTemp("/dev/shm", "optbuild-test-")
	if err != nil {
		t.Skip("there is no other file system: ", err)
	}
	defer os.RemoveAll(from)
	t.Chdir(t.TempDir())
	os.Mkdir("to", 0o755)
	if err := os.Rename(from, "to/x"); !errors.Is(err, syscall.EXDEV) {
		t.Skip("/dev/shm is the file system of the temporary directory")
	}
	for _, replace := range []bool{false, true} {
		os.RemoveAll("to")
		write(t, "to/both/old", "old")
		write(t, "to/file", "old")
		write(t, "to/keep/old", "old")
		for _, f := range []string{"a", "both/b", "both/new", "file/in", "z"} {
			write(t, filepath.Join(from, f), "new")
		}
		os.Link(filepath.Join(from, "a"), filepath.Join(from, "link"))
		os.Chmod(filepath.Join(from, "z"), os.ModeSetuid|0o755)
		if err := (merge{replace: replace}).into(from, "to"); err != nil {
			t.Fatal(err)
		}
		want := "a \"new\"\nboth/\nboth/b \"new\"\nboth/new \"new\"\nboth/old \"old\"\nfile/\nfile/in \"new\"\nkeep/\nkeep/old \"old\"\nlink \"new\"\nz \"new\"\n"
		if replace {
			want = "a \"new\"\nboth/\nboth/b \"new\"\nboth/new \"new\"\nfile/\nfile/in \"new\"\nlink \"new\"\nz \"new\"\n"
		}
		if got := tree(t, "to"); got != want {
			t.Errorf("replace %v: got:\n%s\nwant:\n%s", replace, got, want)
		}
		if !os.SameFile(must(os.Stat("to/a")), must(os.Stat("to/link"))) {
			t.Error("a hard link became a copy")
		}
		if mode := must(os.Stat("to/z")).Mode(); mode != os.ModeSetuid|0o755 {
			t.Errorf("mode %v", mode)
		}
	}
}

// TestReplaceKeepsDirectories: a directory that the result has as well is not removed and made anew.
func TestReplaceKeepsDirectories(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "o/both/old", "old")
	before := must(os.Stat("o/both"))
	var st staging
	write(t, filepath.Join(must(st.directory("o", true)), "both/new"), "new")
	if err := st.commit(); err != nil {
		t.Fatal(err)
	}
	st.discard()
	if !os.SameFile(before, must(os.Stat("o/both"))) {
		t.Error("o/both is another directory")
	}
	if got := tree(t, "."); got != "o/\no/both/\no/both/new \"new\"\n" {
		t.Errorf("got:\n%s", got)
	}
}

// prefix puts a listing below a directory.
func prefix(dir, listing string) string {
	var b strings.Builder
	b.WriteString(dir + "\n")
	for line := range strings.Lines(listing) {
		b.WriteString(dir + line)
	}
	return b.String()
}

func TestStagedRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	os.WriteFile("file", nil, 0o600)
	os.Mkdir("dir", 0o755)
	os.Mkdir("locked", 0o555)
	os.Symlink("loop", "loop")
	var st staging
	for _, test := range []struct {
		name string
		make func(string) error
		dest string
		want error
		root bool // root is refused, too
	}{
		{"file", func(d string) error { _, err := st.file(d); return err }, "dir", syscall.EISDIR, true},
		{"file", func(d string) error { _, err := st.file(d); return err }, "file/x", syscall.ENOTDIR, true},
		{"file", func(d string) error { _, err := st.file(d); return err }, "locked/x", fs.ErrPermission, false},
		{"file", func(d string) error { _, err := st.file(d); return err }, "locked/a/x", fs.ErrPermission, false},
		{"directory", func(d string) error { _, err := st.directory(d, false); return err }, "file", syscall.ENOTDIR, true},
		{"directory", func(d string) error { _, err := st.directory(d, false); return err }, "file/x", syscall.ENOTDIR, true},
		{"directory", func(d string) error { _, err := st.directory(d, false); return err }, "locked", fs.ErrPermission, false},
		{"directory", func(d string) error { _, err := st.directory(d, false); return err }, "locked/x", fs.ErrPermission, false},
	} {
		if os.Geteuid() == 0 && !test.root {
			continue
		}
		if err := test.make(test.dest); !errors.Is(err, test.want) {
			t.Errorf("%s %s: %v, want %v", test.name, test.dest, err, test.want)
		}
	}
	if _, err := st.file("loop"); err == nil {
		t.Error("a loop of links was accepted")
	}
}

func TestNothingCame(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	os.Mkdir("there", 0o755)
	var st staging
	must(st.directory("there", true))
	must(st.directory("new", false))
	if err := st.commit(); err != nil {
		t.Fatal(err)
	}
	st.discard()
	if got := tree(t, dir); got != "new/\nthere/\n" {
		t.Errorf("got:\n%s", got)
	}
}
