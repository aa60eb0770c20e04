package request

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/optbuild/optbuild/builder/tomlfile"
)

// ProjectFile is what a project says to everybody who builds it. It is looked for in the context's directory, then in the root of the work tree that the context is in. The
// context's own file has the word alone: the two are not merged. That of a context which is fetched or comes on standard input is never looked at: somebody else's repository does
// not say what this machine reads and writes.
const ProjectFile = ".optbuild.toml"

// projectLimit bounds the file. It may be anybody's.
const projectLimit = 64 << 10

// project is the file's content. A key is a field here, and one that is not is an error.
type project struct {
	// Cache is what --cache takes, without the keys sign and trust.
	Cache string `toml:"cache"`
}

// projectCache is the cache that the project names, nil if it names none.
func (s *Solve) projectCache() (*sharedCache, error) {
	path, text, err := s.findProject()
	if err != nil || path == "" {
		return nil, err
	}
	var p project
	if err := parseProject(path, text, &p); err != nil || p.Cache == "" {
		return nil, err
	}
	c, err := parseCache(p.Cache, true)
	if err != nil {
		var fe *FlagError
		if errors.As(err, &fe) {
			err = &InputError{Path: path, Err: fmt.Errorf("cache = %q: %w", fe.Value, fe.Err)}
		}
		return nil, err
	}
	if c != nil {
		c.file = path
	}
	return c, nil
}

// findProject returns the file that holds for the context, "" if there is none.
func (s *Solve) findProject() (path string, text []byte, err error) {
	context, err := os.Stat(s.ContextDir)
	if err != nil {
		return "", nil, err
	}
	dirs := []string{s.ContextDir}
	if root := workTree(s.ContextDir); root != "" && root != s.ContextDir {
		dirs = append(dirs, root)
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, ProjectFile)
		text, owner, err := readProject(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil, &InputError{Path: path, Err: cause(err), Hint: "it is a small file with a line such as: cache = \"registry.example.com/app-cache\""}
		}
		if !trusted(owner, context) {
			s.Warnings = append(s.Warnings, path+" is ignored: it belongs to another user than the context")
			continue
		}
		return path, text, nil
	}
	return "", nil, nil
}

// trusted says whether a file above or in a context has anything to say: not if another user has left it there, as anybody can in /tmp.
func trusted(owner uint32, context fs.FileInfo) bool {
	st, ok := context.Sys().(*syscall.Stat_t)
	return owner == 0 || int64(owner) == int64(os.Geteuid()) || ok && owner == st.Uid
}

func readProject(path string) (text []byte, owner uint32, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() { // a link could lead to a file of which parts would be printed
		return nil, 0, errors.New("is not a regular file")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, 0, err
	}
	text, err = io.ReadAll(io.LimitReader(f, projectLimit+1))
	if err == nil && len(text) > projectLimit {
		err = fmt.Errorf("is larger than %d kB", projectLimit>>10)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = st.Uid
	}
	return text, owner, err
}

func parseProject(path string, text []byte, p *project) error {
	line, err := tomlfile.Decode(text, p)
	if err == nil {
		return nil
	}
	wrong := &InputError{Path: path, Err: err}
	if line > 0 {
		wrong.Path = fmt.Sprintf("%s:%d", path, line)
	}
	var unknown tomlfile.UnknownKeyError
	if errors.As(err, &unknown) {
		wrong.Hint = "the key that it may have is cache"
	}
	return wrong
}

// workTree is the root of the work tree that a directory is in, "" if it is in none.
func workTree(dir string) string {
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}
