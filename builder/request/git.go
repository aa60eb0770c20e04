package request

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checkout is what git says of a directory below a work tree.
type checkout struct {
	dir string
	// executable has the regular files that git tracks below dir, by their paths from there.
	executable map[string]bool
	// submodules says that git tracks directories below dir which are repositories of their own.
	submodules bool
	// fileMode says that modes in the work tree mean something (core.fileMode).
	fileMode bool
	// programs says that the repository's own configuration names programs for git to run on contents. A directory may come from anybody:
	// nothing is asked of git then that could run them.
	programs bool
	// gitDir is the repository's directory.
	gitDir string
}

var errNoCheckout = errors.New("is not a checkout of a git repository")

// gitTime bounds one call of git.
const gitTime = 30 * time.Second

// repository finds, without git, the directory of the repository in whose work tree a directory can be; "" if there is none.
func repository(dir string) string {
	for {
		path := filepath.Join(dir, ".git")
		fi, err := os.Lstat(path)
		if err == nil && fi.IsDir() {
			return path
		}
		if err == nil { // a linked work tree, or a submodule
			b, err := ReadText(path)
			if where, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "gitdir: "); err == nil && ok {
				if !filepath.IsAbs(where) {
					where = filepath.Join(dir, where)
				}
				return where
			}
			return path
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// findCheckout asks git about a directory; it is an error if git is not installed or tracks nothing there.
func findCheckout(ctx context.Context, dir string) (*checkout, error) {
	gitDir := repository(dir)
	if gitDir == "" {
		return nil, errNoCheckout
	}
	c := &checkout{dir: dir, gitDir: gitDir, executable: map[string]bool{}, fileMode: true}
	settings := make(chan error, 1)
	go func() { settings <- c.readConfig(ctx) }()
	files, err := git(ctx, dir, anybodys, "ls-files", "--stage", "-z")
	if serr := <-settings; err == nil {
		err = serr
	}
	if err != nil {
		return nil, err
	}
	// mode object stage TAB path NUL
	for line := range bytes.SplitSeq(files, []byte{0}) {
		head, path, ok := bytes.Cut(line, []byte{'\t'})
		fields := bytes.Fields(head)
		if !ok || len(fields) != 3 {
			continue
		}
		switch mode := string(fields[0]); {
		case mode == "160000":
			c.submodules = true
		case string(fields[2]) != "0": // a conflict: no mode is the right one
		case mode == "100644" || mode == "100755":
			c.executable[string(path)] = mode == "100755"
		}
	}
	if len(c.executable) == 0 {
		return nil, errNoCheckout
	}
	return c, nil
}

// readConfig reads the settings that hold for the repository.
func (c *checkout) readConfig(ctx context.Context) error {
	out, err := git(ctx, c.dir, anybodys, "config", "--list", "--show-scope", "-z")
	if err != nil {
		return err
	}
	// scope NUL key LF value NUL
	parts := strings.Split(string(out), "\x00")
	for i := 0; i+1 < len(parts); i += 2 {
		key, value, valued := strings.Cut(parts[i+1], "\n")
		own := parts[i] == "local" || parts[i] == "worktree"
		switch {
		case key == "core.filemode":
			c.fileMode = !valued || isTrue(value) || value == "yes" || value == "on"
		case own && strings.HasPrefix(key, "filter."):
			c.programs = true
		}
	}
	return nil
}

// clean says that what git tracks below the directory is as it was committed, and that nothing else is there but what is ignored.
func (c *checkout) clean(ctx context.Context) (bool, error) {
	if c.programs || c.submodules { // git would run programs, or would have to look into other repositories
		return false, nil
	}
	out, err := git(ctx, c.dir, own, "status", "--porcelain", "-z", "--untracked-files=normal", "--no-renames", "--", ".")
	return err == nil && len(out) == 0, err
}

// committed is the time of the commit that is checked out.
func (c *checkout) committed(ctx context.Context) (time.Time, error) {
	out, err := git(ctx, c.dir, own, "cat-file", "commit", "HEAD")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(out)) {
		// committer NAME <ADDRESS> SECONDS ZONE
		if rest, ok := strings.CutPrefix(line, "committer "); ok {
			fields := strings.Fields(rest[strings.LastIndexByte(rest, '>')+1:])
			if len(fields) != 2 {
				break
			}
			seconds, err := strconv.ParseInt(fields[0], 10, 64)
			return time.Unix(seconds, 0).UTC(), err
		}
	}
	return time.Time{}, errors.New("git: the commit has no time")
}

// repositoryEnv names variables that tell git of another repository than the directory's own: hooks run with them.
var repositoryEnv = []string{"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE",
	"GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR", "GIT_CEILING_DIRECTORIES", "GIT_LITERAL_PATHSPECS"}

// Whose repositories git is asked about. It refuses those of other users, since their settings can name programs; what reads the index and the
// settings alone runs none, and in containers of CI systems the checkout is somebody else's as a rule.
const (
	own      = "safe.bareRepository=explicit" // says nothing: there is a work tree
	anybodys = "safe.directory=*"
)

// git runs a command that only reads, with a setting.
func git(ctx context.Context, dir, setting string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, gitTime)
	defer cancel()
	// A monitor of files is a program that the repository may name.
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "core.fsmonitor=false", "-c", setting}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(repositoryEnv, name)
	})
	// What a partial clone lacks is not fetched, which would run ssh or what the repository names in its place.
	cmd.Env = append(cmd.Env, "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	return cmd.Output()
}
