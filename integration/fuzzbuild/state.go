package fuzzbuild

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// State is what a context holds at a time, by path relative to it; "." is the context itself.
type State map[string]File

// File is a path of a State.
type File struct {
	Mode    fs.FileMode
	Content string // of a regular file, or the target of a symbolic link
	Time    time.Time
}

// Take reads a context.
func Take(dir string) (State, error) {
	s := State{}
	return s, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		f := File{Mode: fi.Mode(), Time: fi.ModTime()}
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f.Content = string(b)
		case fi.Mode()&fs.ModeSymlink != 0:
			if f.Content, err = os.Readlink(path); err != nil {
				return err
			}
		case !fi.IsDir():
			return fmt.Errorf("%s is neither a file, a directory nor a link", path)
		}
		s[rel] = f
		return nil
	})
}

// Put makes a context hold the state, time stamps included. What is so already is not touched.
func (s State) Put(dir string) error {
	now, err := Take(dir)
	if err != nil {
		return err
	}
	same := func(a, b File) bool { return a.Mode == b.Mode && a.Content == b.Content }
	for _, p := range slices.Backward(slices.Sorted(maps.Keys(now))) {
		want, ok := s[p]
		if ok && (same(want, now[p]) || want.Mode.IsDir() && now[p].Mode.IsDir() || want.Mode.IsRegular() && now[p].Mode.IsRegular()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, p)); err != nil {
			return err
		}
		delete(now, p)
	}
	for _, p := range slices.Sorted(maps.Keys(s)) {
		f, path := s[p], filepath.Join(dir, p)
		if n, ok := now[p]; ok && same(f, n) {
			continue
		}
		switch {
		case f.Mode.IsDir():
			err = os.Mkdir(path, 0o755)
			if errors.Is(err, fs.ErrExist) {
				err = nil
			}
		case f.Mode.IsRegular():
			err = os.WriteFile(path, []byte(f.Content), 0o600)
		default:
			err = os.Symlink(f.Content, path)
		}
		if err == nil && f.Mode&fs.ModeSymlink == 0 {
			err = os.Chmod(path, f.Mode)
		}
		if err != nil {
			return err
		}
	}
	for _, p := range slices.Backward(slices.Sorted(maps.Keys(s))) {
		path := filepath.Join(dir, p)
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if fi.ModTime().Equal(s[p].Time) {
			continue
		}
		if err := setTime(path, s[p].Time); err != nil {
			return err
		}
	}
	return nil
}

// Key is a digest of all that counts in a clean build of a project: everything, or, if times is false, all but time stamps.
func (s State) Key(times bool) string {
	h := sha256.New()
	for _, p := range slices.Sorted(maps.Keys(s)) {
		f := s[p]
		fmt.Fprintf(h, "%q %v %q", p, f.Mode, f.Content)
		if times {
			fmt.Fprintf(h, " %d", f.Time.UnixNano())
		}
		fmt.Fprintln(h)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// with is the state with what the cache of a COPY takes no notice of as it is in other: time stamps of what is the same in both, and modes of the
// directories dirs.
func (s State) with(other State, times bool, dirs map[string]bool) State {
	out := maps.Clone(s)
	for p, f := range out {
		o, ok := other[p]
		if !ok {
			continue
		}
		if times && f.Mode == o.Mode && f.Content == o.Content {
			f.Time = o.Time
		}
		if dirs[p] && f.Mode.IsDir() && o.Mode.IsDir() {
			f.Mode = o.Mode
		}
		out[p] = f
	}
	return out
}

// keeping is the state with the time stamps of other for files that are the same in both and that look newer than there.
func (s State) keeping(other State) State {
	out := maps.Clone(s)
	for p, f := range out {
		if o, ok := other[p]; ok && f.Mode.Type() == o.Mode.Type() && f.Content == o.Content && o.Time.Before(f.Time) {
			f.Time = o.Time
			out[p] = f
		}
	}
	return out
}

// copyKey is the same for states for which the cache of a COPY has the same key.
func (s State) copyKey() string {
	out := maps.Clone(s)
	for p, f := range out {
		if f.Mode.IsDir() {
			f.Mode = fs.ModeDir
			out[p] = f
		}
	}
	return out.Key(false)
}

// unchanged are the directories that some COPY of the Dockerfile brings without anything that its cache has a key for being different in the
// two states. A COPY of everything, for one, brings none of them when any file of the context is another one.
func unchanged(dockerfile string, a, b State) map[string]bool {
	out := map[string]bool{}
	add := func(a, b State) {
		if a.copyKey() != b.copyKey() {
			return
		}
		for p, f := range a {
			if f.Mode.IsDir() {
				out[p] = true
			}
		}
	}
	add(a, b)
	for line := range strings.Lines(dockerfile) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "COPY" && words[0] != "ADD" || strings.Contains(line, "--from=") || strings.Contains(line, "<<") {
			continue
		}
		sources := slices.DeleteFunc(words[1:len(words)-1], func(w string) bool { return strings.HasPrefix(w, "--") })
		add(a.below(sources), b.below(sources))
	}
	return out
}

// below are the paths that match patterns, and what is below them.
func (s State) below(patterns []string) State {
	out := State{}
	for p, f := range s {
		for dir := p; ; dir = filepath.Dir(dir) {
			if slices.ContainsFunc(patterns, func(pattern string) bool {
				ok, err := filepath.Match(filepath.Clean(pattern), dir)
				return ok && err == nil
			}) {
				out[p] = f
			}
			if dir == "." {
				break
			}
		}
	}
	return out
}

// paths are those of one kind, in order, without the Dockerfile and the context itself.
func (s State) paths(kind func(fs.FileMode) bool) []string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(s)) {
		if p != "." && p != "Dockerfile" && kind(s[p].Mode) {
			out = append(out, p)
		}
	}
	return out
}

func (s State) files() []string { return s.paths(fs.FileMode.IsRegular) }
func (s State) dirs() []string  { return s.paths(fs.FileMode.IsDir) }
func (s State) links() []string {
	return s.paths(func(m fs.FileMode) bool { return m&fs.ModeSymlink != 0 })
}

// setTime sets the time stamp of a file, of a link itself and not of what it leads to.
func setTime(path string, t time.Time) error {
	ts := []unix.Timespec{unix.NsecToTimespec(t.UnixNano()), unix.NsecToTimespec(t.UnixNano())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "set time of", Path: path, Err: err}
	}
	return nil
}
