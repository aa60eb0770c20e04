package request

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// staging holds outputs that are not in their places yet. They are written beside their places, so that putting them there
// is a rename; directories that lead to them are made only then.
type staging struct {
	mu      sync.Mutex // an interrupted build may still open a file
	commits []func() error
	remove  []string
}

// resolve follows symbolic links, as opening a file for writing does: also one whose target does not exist yet. It returns
// the path and its nearest parent directory that exists.
func resolve(path string) (resolved, parent string, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return "", "", err
	}
	const mostLinks = 40 // as Linux
	for range mostLinks {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return real, filepath.Dir(real), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
		dir, missing, link := existing(path)
		if link == "" {
			return filepath.Join(dir, missing), dir, nil
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(dir, link)
		}
		_, rest := splitFirst(missing)
		path = filepath.Join(link, rest)
	}
	return "", "", &fs.PathError{Op: "resolve", Path: path, Err: syscall.ELOOP}
}

// existing splits a path into its longest leading part that exists, resolved, and the rest; link is the target of the rest's
// first element if that is a symbolic link to nowhere.
func existing(path string) (dir, rest, link string) {
	for dir = path; ; {
		rest = filepath.Join(filepath.Base(dir), rest)
		dir = filepath.Dir(dir)
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			first, _ := splitFirst(rest)
			link, _ = os.Readlink(filepath.Join(real, first))
			return real, rest, link
		}
		if dir == filepath.Dir(dir) {
			return dir, rest, ""
		}
	}
}

func splitFirst(path string) (first, rest string) {
	for i := range len(path) {
		if path[i] == filepath.Separator {
			return path[:i], path[i+1:]
		}
	}
	return path, ""
}

// file stages a file for its destination, which is made when the function that it returns is called: until then nothing may
// appear, for the destination may be in the context. A file that is there is replaced by one with its mode and, if possible,
// its owner; what is not a file, such as a pipe or a device, is written to at once.
func (st *staging) file(dest string) (func() (*os.File, error), error) {
	old, err := os.Stat(dest)
	switch {
	case err == nil && old.IsDir():
		return nil, syscall.EISDIR
	case err == nil && !old.Mode().IsRegular(): // perhaps without a path, as what /dev/stdout links to
		return func() (*os.File, error) { return os.OpenFile(dest, os.O_WRONLY, 0) }, nil
	}
	dest, parent, err := resolve(dest)
	if err != nil {
		return nil, err
	}
	if err := writable(parent); err != nil {
		return nil, err
	}
	prefix := "." + filepath.Base(dest) + ".optbuild-"
	removeAbandoned(parent, prefix)
	return func() (*os.File, error) {
		f, err := os.OpenFile(filepath.Join(parent, stagingName(prefix)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		st.add(f.Name(), func() error {
			if err := os.MkdirAll(filepath.Dir(dest), 0o777); err != nil {
				return err
			}
			return os.Rename(f.Name(), dest)
		})
		mode := 0o666 &^ umask()
		if old != nil {
			mode = old.Mode().Perm()
			if s, ok := old.Sys().(*syscall.Stat_t); ok {
				_ = f.Chown(int(s.Uid), int(s.Gid))
			}
		}
		return f, f.Chmod(mode)
	}, nil
}

// directory returns the name of a directory to write to in place of dest: beside dest if that is new, in it if it exists (it
// may be a mount, or all that we may write to). It does not exist yet, for the same reason as a file. With replace, what dest
// has goes.
func (st *staging) directory(dest string, replace bool) (string, error) {
	dest, parent, err := resolve(dest)
	if err != nil {
		return "", err
	}
	if fi, err := os.Stat(dest); err == nil {
		if !fi.IsDir() {
			return "", syscall.ENOTDIR
		}
		if err := writable(dest); err != nil {
			return "", err
		}
		removeAbandoned(dest, ".optbuild-")
		dir := filepath.Join(dest, stagingName(".optbuild-"))
		st.add(dir, func() error { return merge{replace: replace, keep: filepath.Base(dir)}.into(dir, dest) })
		return dir, nil
	}
	if err := writable(parent); err != nil {
		return "", err
	}
	prefix := "." + filepath.Base(dest) + ".optbuild-"
	removeAbandoned(parent, prefix)
	dir := filepath.Join(parent, stagingName(prefix))
	st.add(dir, func() error {
		if err := os.MkdirAll(dir, 0o777); err != nil { // nothing came: an empty result
			return err
		}
		if err := os.Chmod(dir, 0o777&^umask()); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(dest), 0o777); err != nil {
			return err
		}
		return os.Rename(dir, dest)
	})
	return dir, nil
}

// writable is an error unless files can be made in a directory.
func writable(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return syscall.ENOTDIR
	}
	return unix.Access(dir, unix.W_OK|unix.X_OK)
}

func (st *staging) add(path string, commit func() error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.remove = append(st.remove, path)
	st.commits = append(st.commits, commit)
}

// merge puts what is in one directory into another.
type merge struct {
	// replace removes what the other directory has besides. A directory that both have stays: it may be a mount.
	replace bool
	// keep is the name of the staging directory, if that is in the other directory.
	keep string
}

func (m merge) into(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // not there: nothing came
		return err
	}
	if m.replace {
		if err := clearExcept(to, m.keep, entries); err != nil {
			return err
		}
	}
	for i, e := range entries {
		err := m.entry(e, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		if errors.Is(err, syscall.EXDEV) { // to is a mount
			return m.copyInto(from, to, entries[i:])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m merge) entry(e fs.DirEntry, src, dst string) error {
	old, err := os.Lstat(dst)
	switch {
	case err == nil && old.IsDir() && e.IsDir():
		if err := (merge{replace: m.replace}).into(src, dst); err != nil {
			return err
		}
		return copyTimes(src, dst)
	case err == nil && old.IsDir() != e.IsDir():
		if err := os.RemoveAll(dst); err != nil {
			return err
		}
	}
	return os.Rename(src, dst)
}

// copyInto is for a directory to which nothing can be renamed from outside. entries are what is left to do.
func (m merge) copyInto(from, to string, entries []fs.DirEntry) error {
	dir := filepath.Join(to, stagingName(".optbuild-"))
	defer removeStaged(dir)
	if err := continuity.CopyDir(dir, from, continuity.WithXAttrExclude("security.selinux")); err != nil {
		return err
	}
	for _, e := range entries {
		if err := m.entry(e, filepath.Join(dir, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// clearExcept removes what a directory has besides the entries.
func clearExcept(dir, keep string, entries []fs.DirEntry) error {
	old, err := os.ReadDir(dir)
	for _, e := range old {
		stays := e.Name() == keep || slices.ContainsFunc(entries, func(n fs.DirEntry) bool { return n.Name() == e.Name() })
		if !stays && err == nil {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	return err
}

// copyTimes gives a directory that was there the mode and time of the one that was merged into it.
func copyTimes(from, to string) error {
	fi, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.Chmod(to, fi.Mode()); err != nil {
		return err
	}
	return os.Chtimes(to, fi.ModTime(), fi.ModTime())
}

func (st *staging) commit() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, f := range st.commits {
		if err := f(); err != nil {
			return fmt.Errorf("put output into its place: %w", err)
		}
	}
	return nil
}

func (st *staging) discard() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, path := range st.remove {
		removeStaged(path)
	}
}
