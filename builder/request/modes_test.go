package request

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// newRepository makes a repository in the current directory, of the files that are there, with one commit.
func newRepository(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	runGit(t, "init", "-q")
	commit(t)
}

func commit(t *testing.T) {
	t.Helper()
	runGit(t, "add", "-A")
	runGit(t, "-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "m")
}

func runGit(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_DATE=1000000007 +0100", "GIT_COMMITTER_DATE=1000000007 +0100")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// TestModeOf has a row for each rule: what git tracks, the mode that a path has, and the one that it is sent with.
func TestModeOf(t *testing.T) {
	m := &modes{
		checkout:    &checkout{executable: map[string]bool{"file": false, "d/program": true}},
		directories: map[string]bool{"d": true}, files: map[string]bool{}, dirs: map[string]bool{},
	}
	for _, test := range []struct {
		umask fs.FileMode // of this process, or of the checkout
		path  string
		mode  fs.FileMode
		want  fs.FileMode
	}{
		{0, "file", 0o644, 0o644},
		{0, "file", 0o664, 0o644},
		{0, "file", 0o666, 0o644},
		{0, "file", 0o600, 0o600}, // somebody's chmod
		{0, "file", 0o640, 0o640},
		{0, "file", 0o444, 0o444},
		{0, "file", 0o755, 0o755}, // not what the index says
		{0, "file", 0o645, 0o645},
		{0o077, "file", 0o600, 0o644},
		{0o077, "file", 0o400, 0o400},
		{0o027, "file", 0o640, 0o644},
		{0o027, "file", 0o600, 0o600},
		{0, "d/program", 0o755, 0o755},
		{0, "d/program", 0o775, 0o755},
		{0, "d/program", 0o777, 0o755},
		{0, "d/program", 0o744, 0o744}, // chmod u+x
		{0, "d/program", 0o644, 0o644},
		{0, "d/program", 0o700, 0o700},
		{0o077, "d/program", 0o700, 0o755},
		{0, "d/program", 0o775 | fs.ModeSetuid, 0o775 | fs.ModeSetuid},
		{0, "d", 0o775 | fs.ModeDir, 0o755 | fs.ModeDir},
		{0, "d", 0o700 | fs.ModeDir, 0o700 | fs.ModeDir},
		{0o077, "d", 0o700 | fs.ModeDir, 0o755 | fs.ModeDir},
		{0, "d", 0o775 | fs.ModeDir | fs.ModeSetgid, 0o775 | fs.ModeDir | fs.ModeSetgid},
		{0, "untracked", 0o664, 0o664},
		{0, "empty", 0o775 | fs.ModeDir, 0o775 | fs.ModeDir},
		{0, "file", 0o777 | fs.ModeSymlink, 0o777 | fs.ModeSymlink},
		{0, "file", 0o666 | fs.ModeNamedPipe, 0o666 | fs.ModeNamedPipe},
		{0, "file", 0o775 | fs.ModeDir, 0o775 | fs.ModeDir},
	} {
		m.umask = 0o022 | test.umask
		if got := m.of(test.path, test.mode); got != test.want {
			t.Errorf("umask %03o, %s %v: got %v, want %v", test.umask, test.path, test.mode, got, test.want)
		}
	}
}

// sent lists what a walk sends, with modes.
func sent(t *testing.T, f fsutil.FS) string {
	t.Helper()
	var list []string
	err := f.Walk(context.Background(), "", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if !strings.HasPrefix(p, ".git") {
			list = append(list, fmt.Sprintf("%s %v", p, fs.FileMode(fi.Sys().(*types.Stat).Mode)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

// TestCheckouts sends the same commit, checked out under several umasks, and wants the same.
func TestCheckouts(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "origin/Dockerfile", "FROM scratch\n")
	write(t, "origin/a/b/file", "x")
	write(t, "origin/a/program", "x")
	os.Chmod("origin/a/program", 0o755)
	t.Chdir("origin")
	newRepository(t)
	t.Chdir("..")
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	want := "Dockerfile -rw-r--r--\na drwxr-xr-x\na/b drwxr-xr-x\na/b/file -rw-r--r--\na/ignored -rw-rw-r--\na/program -rwxr-xr-x"
	for _, mask := range []int{0o022, 0o002, 0o000, 0o027, 0o077} {
		syscall.Umask(mask)
		dir := fmt.Sprintf("checkout%03o", mask)
		runGit(t, "clone", "-q", "origin", dir)
		syscall.Umask(0o022) // it may be built by somebody else
		write(t, dir+"/a/ignored", "x")
		os.Chmod(dir+"/a/ignored", 0o664)
		for _, keep := range []bool{false, true} {
			s, err := New(t.Context(), Request{Context: dir, KeepModes: keep}, "dockerfile.v0")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Examine(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := sent(t, s.LocalMounts["context"])
			if same := got == want; same == (keep && mask != 0o022) {
				t.Errorf("umask %03o, keep %v: got\n%s\nwant\n%s", mask, keep, got, want)
			}
			if said := s.Changed(); (said != "") != (mask != 0o022 && !keep) {
				t.Errorf("umask %03o, keep %v: said %q", mask, keep, said)
			}
			s.Discard()
		}
		// A directory below is a context, too.
		s, err := New(t.Context(), Request{Context: dir + "/a", File: dir + "/Dockerfile"}, "dockerfile.v0")
		if err != nil {
			t.Fatal(err)
		}
		s.Examine(t.Context())
		if got, want := sent(t, s.LocalMounts["context"]), "b drwxr-xr-x\nb/file -rw-r--r--\nignored -rw-rw-r--\nprogram -rwxr-xr-x"; got != want {
			t.Errorf("umask %03o, below: got\n%s\nwant\n%s", mask, got, want)
		}
		s.Discard()
	}
}

// TestModesKept: what git can't be asked about, or says nothing of, goes as it is.
func TestModesKept(t *testing.T) {
	for name, change := range map[string]func(*testing.T){
		"core.fileMode": func(t *testing.T) { runGit(t, "config", "core.fileMode", "false") },
		"not a repository": func(t *testing.T) {
			os.RemoveAll(".git")
		},
		"damaged":     func(t *testing.T) { os.WriteFile(".git/index", []byte("x"), 0o644) },
		"no git":      func(t *testing.T) { t.Setenv("PATH", "") },
		"a pragma":    func(t *testing.T) { write(t, "Dockerfile", "# optbuild: off=git-modes\nFROM scratch\n") },
		"all pragmas": func(t *testing.T) { write(t, "Dockerfile", "# x\n# optbuild: keep\nFROM scratch\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, "Dockerfile", "FROM scratch\n")
			write(t, "file", "x")
			newRepository(t)
			os.Chmod("file", 0o664)
			change(t)
			s, err := New(t.Context(), Request{Context: "."}, "dockerfile.v0")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Discard()
			if err := s.Examine(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := sent(t, s.LocalMounts["context"]); !strings.Contains(got, "file -rw-rw-r--") || s.Changed() != "" {
				t.Errorf("got\n%s\n%s", got, s.Changed())
			}
		})
	}
}

// TestModesLinks: all names of a file are sent with one mode, that of the first.
func TestModesLinks(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "Dockerfile", "FROM scratch\n")
	write(t, "b", "x")
	newRepository(t)
	os.Chmod("b", 0o664)
	os.Link("b", "a") // not tracked, and the first
	os.Link("b", "c")
	s, err := New(t.Context(), Request{Context: "."}, "dockerfile.v0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Discard()
	s.Examine(t.Context())
	if got, want := sent(t, s.LocalMounts["context"]), "Dockerfile -rw-r--r--\na -rw-rw-r--\nb -rw-rw-r--\nc -rw-rw-r--"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSwitchedOff(t *testing.T) {
	for text, want := range map[string]bool{
		"# optbuild: off=git-modes\nFROM x":                true,
		"# syntax=x\n\n#optbuild: keep = a, git-modes\r\n": true,
		"# optbuild: off\nFROM x":                          true,
		"# optbuild: off=merge-run\nFROM x":                false,
		"FROM x\n# optbuild: off=git-modes":                false,
		"# optbuild: off=git-modes-not\nFROM x":            false,
		"":                                                 false,
	} {
		if got := switchedOff([]byte(text), GitModes); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestRepository(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	for _, dir := range []string{"plain/a", "repo/.git", "repo/a/b", "tree/a"} {
		os.MkdirAll(dir, 0o755)
	}
	write(t, "tree/.git", "gitdir: ../repo/.git/worktrees/tree\n")
	for dir, want := range map[string]string{"plain/a": "", "repo": "repo/.git", "repo/a/b": "repo/.git", "tree/a": "repo/.git/worktrees/tree"} {
		if want != "" {
			want = filepath.Join(root, want)
		}
		if got := repository(filepath.Join(root, dir)); got != want {
			t.Errorf("%s: got %q, want %q", dir, got, want)
		}
	}
}

// TestModesOfSomebodyElse: in containers of CI systems the checkout is another user's, and git refuses most of what it is asked.
func TestModesOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	t.Chdir(t.TempDir())
	write(t, "Dockerfile", "FROM scratch\n")
	write(t, "file", "x")
	newRepository(t)
	os.Chmod("file", 0o664)
	for _, path := range []string{".", ".git"} {
		if err := os.Chown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	s, err := New(t.Context(), Request{Context: ".", Tags: []string{"app"}}, "dockerfile.v0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Discard()
	if err := s.Examine(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sent(t, s.LocalMounts["context"]); !strings.Contains(got, "file -rw-r--r--") || s.Notes != nil {
		t.Errorf("got\n%s\n%v", got, s.Notes)
	}
}
