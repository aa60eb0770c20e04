package export

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"syscall"

	"github.com/optbuild/optbuild/builder/export/strip"
)

// directory is the files of one layer as overlayfs has them: a device 0/0 is a whiteout, an attribute makes a directory opaque.
type directory struct {
	path string
	// made says that a RUN made it. What is in other layers, the base image's and those of COPY, is never residue.
	made bool
	// projected says that only what it has at paths of the members is in the key of an outcome; so an outcome must not depend on more.
	projected bool
	// read says that the step that made it has read files of the build context.
	read bool
}

// union is a run of layers that become one.
type union struct {
	members []directory // topmost first
	lower   []directory // what they lie on, topmost first
	trees   *trees      // in place of both, where there are no directories of layers
	residue func(path string) strip.Residue
	near    func(path string) bool // false if neither the path nor anything below it can be residue
}

// change is one entry of the layer to write.
type change struct {
	path string      // absolute
	info os.FileInfo // nil if the path is deleted
	link string      // where a symbolic link leads to, absolute
	rule string      // by which it is left out; "" if it is not
	root string      // where it is residue by its form, the directory below which it is; see strip.Residue
	dir  bool        // a directory that is residue: it is there if something in it is
	way  bool        // a directory that RUNs of this unit made, and that is none
}

// inode is the number of a file that has several names, else 0.
func (c change) inode() uint64 {
	if c.info == nil || c.info.IsDir() {
		return 0
	}
	if st, ok := c.info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		return st.Ino
	}
	return 0
}

// errUnsupported is wrapped by errors that say that layers can't be merged here.
var errUnsupported = errors.New("layers can't be merged")

// changes lists what tells the files with the members from those without, sorted by path. What is residue has its rule.
func (u *union) changes(ctx context.Context) ([]change, error) {
	if u.trees != nil {
		return u.trees.changes(ctx, u.residue)
	}
	w := walker{ctx: ctx, union: u}
	top := place{path: "/"}
	for i := range u.members {
		top.members = append(top.members, i)
	}
	for i := range u.lower {
		top.lower = append(top.lower, i)
	}
	top.kept = u.keepers()
	if err := w.walk(top); err != nil {
		return nil, err
	}
	leaveWays(w.list)
	keepLinked(w.list)
	return w.list, nil
}

// keepers are the layers in which no RUN made what is there.
func (u *union) keepers() (dirs []string) {
	for _, list := range [][]directory{u.members, u.lower} {
		for _, d := range list {
			if !d.made {
				dirs = append(dirs, d.path)
			}
		}
	}
	return dirs
}

type walker struct {
	ctx   context.Context
	union *union
	list  []change
}

// place is a directory that is in some of the layers.
type place struct {
	path    string
	members []int    // those that have it, and of which something can be seen
	lower   []int    // the same, of the layers below
	opaque  bool     // nothing of the lower ones is seen through the members
	kept    []string // directories of layers with something that is never residue
}

func (w *walker) walk(at place) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	members, err := list(w.union.members, at.members, at.path)
	if err != nil {
		return err
	}
	names := members.names()
	if at.opaque && len(at.lower) > 0 {
		lower, err := list(w.union.lower, at.lower, at.path)
		if err != nil {
			return err
		}
		names = append(names, lower.names()...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	for _, name := range names {
		if err := w.entry(at, members, name); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(at place, members listing, name string) error {
	path := filepath.Join(at.path, name)
	upper, err := resolve(w.union.members, at.members, path, members)
	if err != nil {
		return err
	}
	below, err := resolve(w.union.lower, at.lower, path, nil)
	if err != nil {
		return err
	}
	hidden := at.opaque || upper.hides
	if upper.info == nil { // deleted, or made and deleted within the members
		if below.info != nil && hidden {
			w.list = append(w.list, change{path: path})
		}
		return nil
	}
	kept := w.keepers(at, path)
	var what strip.Residue
	if w.union.residue != nil && len(kept) == 0 {
		what = w.union.residue(path)
	}
	if upper.info.Mode()&os.ModeSymlink != 0 && what.Rule != "" && w.union.residue(at.path).Rule == "" {
		what = strip.Residue{} // somebody keeps residue elsewhere, and shows the way
	}
	if !upper.info.IsDir() {
		return w.file(at, path, what, upper, below)
	}
	c := change{path: path, info: upper.info, rule: what.Rule, root: what.Root, dir: what.Rule != ""}
	c.way = what.Rule == "" && len(kept) == 0 && below.info == nil
	if c.dir && below.info != nil { // it stays, as what it was below
		c.rule, c.root, c.dir = "", "", false
	}
	w.list = append(w.list, c)
	before := len(w.list)
	if err := w.walk(place{path: path, members: upper.in, lower: below.in, opaque: hidden, kept: directories(kept, path)}); err != nil {
		return err
	}
	if len(w.list) == before && !hidden { // nothing in it is in the layer
		same, err := sameDirectory(upper, below)
		if err != nil {
			return err
		}
		if same {
			w.list = w.list[:before-1]
		}
	}
	return nil
}

func (w *walker) file(at place, path string, what strip.Residue, upper, below resolved) error {
	rule := what.Rule
	if rule != "" && below.info != nil {
		if strip.Linked(rule) { // the older one may have been kept, for a link that leads to it
			rule = ""
		} else {
			// A RUN of another layer made an older one, which is left out there. Should it not be, it must not come back.
			w.list = append(w.list, change{path: path})
		}
	}
	if rule == "" && below.info != nil && !at.opaque {
		unchanged, err := w.unchanged(at, path, upper, below)
		if err != nil || unchanged {
			return err
		}
	}
	c := change{path: path, info: upper.info, rule: rule, root: what.Root}
	if upper.info.Mode()&os.ModeSymlink != 0 {
		to, err := linkOf(upper.file, path)
		if err != nil {
			return err
		}
		c.link = to
	}
	w.list = append(w.list, c)
	return nil
}

// unchanged is true if no member has changed the file, each compared with what it saw. To compare the first with the last would miss a file that was changed by one and
// given its old time by the next.
func (w *walker) unchanged(at place, path string, upper, below resolved) (bool, error) {
	version, found := upper, false
	for _, i := range at.members {
		file := filepath.Join(w.union.members[i].path, path)
		if !found {
			found = file == upper.file
			continue
		}
		fi, err := os.Lstat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if isWhiteout(fi) || fi.IsDir() {
			return false, nil
		}
		older := resolved{info: fi, file: file}
		if same, err := sameFile(version, older); err != nil || !same {
			return false, err
		}
		version = older
	}
	return sameFile(version, below)
}

// keepers are the layers that have the path, of those that keep what they have.
func (w *walker) keepers(at place, path string) (kept []string) {
	for _, dir := range at.kept {
		if fi, err := os.Lstat(filepath.Join(dir, path)); err == nil && !isWhiteout(fi) {
			kept = append(kept, dir)
		}
	}
	return kept
}

// directories are the layers in which the path is a directory.
func directories(layers []string, path string) []string {
	return slices.DeleteFunc(layers, func(dir string) bool {
		fi, err := os.Lstat(filepath.Join(dir, path))
		return err != nil || !fi.IsDir()
	})
}

// listing are the names in one directory of several layers, by the layer's index.
type listing map[int][]string

func list(layers []directory, in []int, path string) (listing, error) {
	l := listing{}
	for _, i := range in {
		f, err := os.Open(filepath.Join(layers[i].path, path))
		if err != nil {
			return nil, err
		}
		l[i], err = f.Readdirnames(-1)
		f.Close()
		if err != nil {
			return nil, err
		}
		sort.Strings(l[i])
	}
	return l, nil
}

func (l listing) names() (names []string) {
	for _, n := range l {
		names = append(names, n...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (l listing) has(i int, name string) bool {
	_, ok := slices.BinarySearch(l[i], name)
	return ok
}

// resolved is what a path is in a pile of layers.
type resolved struct {
	info  os.FileInfo // nil if it is not there
	file  string      // where info is of
	in    []int       // for a directory: the layers of which something can be seen in it
	hides bool        // what lies below the pile at this path can't be seen
}

// resolve looks a path up in layers, of which those given have its parent. The listing, if there is one, saves looking where the name is not.
func resolve(layers []directory, in []int, path string, names listing) (r resolved, err error) {
	for _, i := range in {
		if names != nil && !names.has(i, filepath.Base(path)) {
			continue
		}
		file := filepath.Join(layers[i].path, path)
		fi, err := os.Lstat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, err
		}
		if isWhiteout(fi) {
			r.hides = true
			return r, nil
		}
		if r.info == nil {
			r.info, r.file = fi, file
		}
		if !fi.IsDir() { // below a directory it is hidden by that
			r.hides = true
			return r, nil
		}
		r.in = append(r.in, i)
		opaque, err := isOpaque(file)
		if err != nil {
			return r, err
		}
		if opaque {
			r.hides = true
			return r, nil
		}
	}
	return r, nil
}
