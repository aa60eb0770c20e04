package request

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// GitModes is the name of what trackedModes does, for --optimize-disable and pragmas.
const GitModes = "git-modes"

// trackedModes sends the files of a checkout with the modes that git tracks, 0644 and 0755, and their directories with 0755.
//
//	git clone under umask 002    -rw-rw-r-- main.go    drwxrwxr-x cmd
//	git clone under umask 022    -rw-r--r-- main.go    drwxr-xr-x cmd
//
// COPY keeps modes, and they are part of a step's cache key: without this, two developers, or one and CI, get different images and share no
// cache. A mode is changed only if a umask explains it: it may lack what 022, or the umask of this process or of who checked the
// repository out, takes away, and have nothing that git would not have given. So what somebody did with chmod stays, as long as they do not
// work under a umask that does the same. It keeps what git can't tell of: untracked files, files whose execute bit is another one than the index says, links, special bits.
type trackedModes struct {
	fsutil.FS
	modes *modes
}

// modes are what is known of one directory. Until settle was called, and if there is no checkout, nothing is changed.
type modes struct {
	mu          sync.Mutex
	checkout    *checkout
	umask       fs.FileMode
	directories map[string]bool // that tracked files are in
	files, dirs map[string]bool // that were changed
}

// settle tells of the checkout. It is called before anything is sent.
func (m *modes) settle(c *checkout) {
	if !c.fileMode {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checkout, m.umask = c, 0o022|umask()|checkoutUmask(c.gitDir)
	m.files, m.dirs, m.directories = map[string]bool{}, map[string]bool{}, map[string]bool{}
	for p := range c.executable {
		for dir := path.Dir(p); dir != "." && !m.directories[dir]; dir = path.Dir(dir) {
			m.directories[dir] = true
		}
	}
}

// checkoutUmask is the umask under which a repository was checked out: that of HEAD, which git writes then. 0 if that is not known.
func checkoutUmask(gitDir string) fs.FileMode {
	fi, err := os.Lstat(filepath.Join(gitDir, "HEAD"))
	if err != nil || !fi.Mode().IsRegular() {
		return 0
	}
	lacks := 0o066 &^ fi.Mode().Perm()
	return lacks | lacks&0o044>>2 // files tell nothing of execute bits, which such umasks take as well
}

// of is the mode to send a file or a directory with.
func (m *modes) of(p string, mode fs.FileMode) fs.FileMode {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.checkout == nil || mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
		return mode
	}
	full, changed := fs.FileMode(0o666), m.files
	switch {
	case mode.IsDir():
		if !m.directories[p] {
			return mode
		}
		full, changed = 0o777, m.dirs
	case mode.IsRegular():
		executable, tracked := m.checkout.executable[p]
		if !tracked || executable != (mode&0o100 != 0) {
			return mode
		}
		if executable {
			full = 0o777
		}
	default:
		return mode
	}
	perm := mode.Perm()
	if perm&^full != 0 || full&^perm&^m.umask != 0 { // no umask has made this of it
		return mode
	}
	if want := full &^ 0o022; perm != want {
		changed[p] = true
		return mode&^fs.ModePerm | want
	}
	return mode
}

// said is a line about what was changed, "" if nothing was.
func said(all []*modes) string {
	files, dirs := 0, 0
	for _, m := range all {
		m.mu.Lock()
		files += len(m.files)
		dirs += len(m.dirs)
		m.mu.Unlock()
	}
	var parts []string
	if files > 0 {
		parts = append(parts, plural(files, "file", "files"))
	}
	if dirs > 0 {
		parts = append(parts, plural(dirs, "directory", "directories"))
	}
	if parts == nil {
		return ""
	}
	return "modes: " + strings.Join(parts, " and ") + " of the context taken as git tracks them (0644, 0755), whatever the umask was (--optimize-disable=" + GitModes + " keeps them)"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (t trackedModes) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return t.FS.Walk(ctx, target, func(p string, d fs.DirEntry, err error) error {
		if d != nil && (d.IsDir() || d.Type().IsRegular()) {
			d = &tracked{d, t.modes, p}
		}
		return fn(p, d, err)
	})
}

type tracked struct {
	fs.DirEntry
	modes *modes
	path  string
}

func (t *tracked) Info() (fs.FileInfo, error) {
	fi, err := t.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*types.Stat)
	if !ok {
		return fi, nil
	}
	p := t.path
	if !fi.IsDir() && st.Linkname != "" { // a hard link has the mode of the first
		p = st.Linkname
	}
	mode := fs.FileMode(st.Mode)
	now := t.modes.of(filepath.ToSlash(p), mode)
	if now == mode {
		return fi, nil
	}
	st = st.Clone()
	st.Mode = uint32(now)
	return &fsutil.StatInfo{Stat: st}, nil
}
