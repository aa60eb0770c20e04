package lazy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree is what a file operation can see of the place that it works at: the directories that lead there, and all that is below. Files have no content: an operation replaces or adds to them,
// and does not read them.
type Tree struct {
	Place   string  `json:"place"` // absolute, clean
	Entries []Entry `json:"entries"`
}

// Entry is one name; of two, a directory comes before what is in it.
type Entry struct {
	Path     string `json:"p"` // below the root, without a slash at the beginning; "." is the root
	Mode     uint32 `json:"t"` // st_mode
	UID      uint32 `json:"u,omitempty"`
	GID      uint32 `json:"g,omitempty"`
	Modified int64  `json:"m"` // nanoseconds since 1970
	Link     string `json:"l,omitempty"`
}

// maxTree is how many entries a tree may have: a place with more is fetched.
const maxTree = 50_000

// ErrUnsure says that a place has something that makes what an operation does there depend on more than a tree has: links that lead elsewhere, attributes, devices.
var ErrUnsure = errors.New("what is there can't be told in a list of names")

// List makes the tree of a place in a file system.
func List(root, place string) (*Tree, error) {
	t := &Tree{Place: place}
	at := "."
	for _, name := range append([]string{""}, strings.Split(strings.Trim(place, "/"), "/")...) {
		if at = path.Join(at, name); name == "" && at != "." {
			continue
		}
		if len(t.Entries) > 0 && at == "." { // the place is the root
			break
		}
		e, err := entryOf(root, at)
		if errors.Is(err, fs.ErrNotExist) {
			return t, nil // it will be made
		}
		if err != nil {
			return nil, err
		}
		t.Entries = append(t.Entries, e)
		last := path.Join("/", at) == place
		if kind := e.Mode & unix.S_IFMT; kind != unix.S_IFDIR && !(last && kind == unix.S_IFREG) {
			return nil, fmt.Errorf("%w: /%s is no directory", ErrUnsure, at)
		}
	}
	top := filepath.Join(root, filepath.FromSlash(place))
	err := filepath.WalkDir(top, func(file string, _ fs.DirEntry, err error) error {
		if err != nil || file == top {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		e, err := entryOf(root, filepath.ToSlash(rel))
		if err != nil {
			return err
		}
		if len(t.Entries) >= maxTree {
			return fmt.Errorf("%w: there are more than %d names", ErrUnsure, maxTree)
		}
		t.Entries = append(t.Entries, e)
		return nil
	})
	return t, err
}

func entryOf(root, at string) (e Entry, err error) {
	file := filepath.Join(root, filepath.FromSlash(at))
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return e, &fs.PathError{Op: "lstat", Path: file, Err: err}
	}
	e = Entry{Path: at, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Modified: st.Mtim.Nano()}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR: // attributes of a directory go over to what is made in it (ACLs), or to copies of it
		n, err := unix.Llistxattr(file, nil)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return e, &fs.PathError{Op: "listxattr", Path: file, Err: err}
		}
		if n > 0 {
			names := make([]byte, n)
			if n, err = unix.Llistxattr(file, names); err != nil {
				return e, &fs.PathError{Op: "listxattr", Path: file, Err: err}
			}
			for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
				if name != "" && !strings.HasPrefix(name, "security.selinux") && !strings.Contains(name, ".overlay.") {
					return e, fmt.Errorf("%w: /%s has the attribute %s", ErrUnsure, at, name)
				}
			}
		}
	case unix.S_IFREG:
	case unix.S_IFLNK:
		if e.Link, err = os.Readlink(file); err != nil {
			return e, err
		}
	default:
		return e, fmt.Errorf("%w: /%s is a device, socket or pipe", ErrUnsure, at)
	}
	return e, nil
}

// Encode returns the bytes of a tree.
func (t *Tree) Encode() ([]byte, error) { return json.Marshal(t) }

// DecodeTree is its inverse. It refuses what List would not make.
func DecodeTree(b []byte) (*Tree, error) {
	t := &Tree{}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(t); err != nil {
		return nil, err
	}
	if len(t.Entries) > maxTree || len(t.Entries) == 0 || t.Entries[0].Path != "." {
		return nil, errors.New("it has no root, or too many names")
	}
	dirs := map[string]bool{}
	for _, e := range t.Entries {
		kind := e.Mode & unix.S_IFMT
		switch {
		case !fs.ValidPath(e.Path):
			return nil, fmt.Errorf("%q is no path", e.Path)
		case e.Path != "." && !dirs[path.Dir(e.Path)]:
			return nil, fmt.Errorf("%q is not in a directory", e.Path)
		case !slices.Contains([]uint32{unix.S_IFDIR, unix.S_IFREG, unix.S_IFLNK}, kind), e.Path == "." && kind != unix.S_IFDIR:
			return nil, fmt.Errorf("%q is of the type %o", e.Path, kind)
		case kind == unix.S_IFLNK && (e.Link == "" || len(e.Link) >= unix.PathMax):
			return nil, fmt.Errorf("%q leads nowhere", e.Path)
		}
		if kind == unix.S_IFDIR {
			dirs[e.Path] = true
		}
	}
	return t, nil
}

// merge puts the trees of several places into one. They are of one file system.
func merge(trees []*Tree) *Tree {
	all := &Tree{}
	seen := map[string]bool{}
	for _, t := range trees {
		for _, e := range t.Entries {
			if !seen[e.Path] {
				seen[e.Path] = true
				all.Entries = append(all.Entries, e)
			}
		}
	}
	return all
}

// placeholder is how many zeros a file has in place of its content: an operation that takes one over (an archive with a hard link to what is there) is found out by them.
const placeholder = 7

// isPlaceholder is true for a regular file that looks like one.
func isPlaceholder(file string, e fs.DirEntry) (bool, error) {
	fi, err := e.Info()
	if err != nil || fi.Size() != placeholder {
		return false, err
	}
	b, err := os.ReadFile(file)
	return bytes.Equal(b, make([]byte, placeholder)), err
}

// write makes the entries in an empty directory.
func (t *Tree) write(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, e := range t.Entries {
		if err := e.write(root); err != nil {
			return fmt.Errorf("make /%s: %w", e.Path, err)
		}
	}
	for _, e := range slices.Backward(t.Entries) { // what is made in a directory changes its time
		if err := e.setTime(root); err != nil {
			return fmt.Errorf("set the time of /%s: %w", e.Path, err)
		}
	}
	return nil
}

func (e Entry) write(root *os.Root) error {
	var err error
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if e.Path != "." {
			err = root.Mkdir(e.Path, 0o700)
		}
	case unix.S_IFLNK:
		err = root.Symlink(e.Link, e.Path)
	default:
		var f *os.File
		if f, err = root.OpenFile(e.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			err = errors.Join(f.Truncate(placeholder), f.Close())
		}
	}
	if err == nil {
		err = root.Lchown(e.Path, int(e.UID), int(e.GID))
	}
	if err == nil && e.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = e.chmod(root)
	}
	return err
}

// chmod sets all twelve bits: those of package os are others.
func (e Entry) chmod(root *os.Root) error {
	f, err := root.OpenFile(e.Path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), e.Mode&0o7777)
}

func (e Entry) setTime(root *os.Root) error {
	parent, err := root.Open(path.Dir(e.Path))
	if err != nil {
		return err
	}
	defer parent.Close()
	name := path.Base(e.Path)
	t := unix.NsecToTimespec(e.Modified)
	return unix.UtimesNanoAt(int(parent.Fd()), name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}
