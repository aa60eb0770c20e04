package analyze

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// stack is the file system that layers make on top of each other, and what was lost on the way.
type stack struct {
	root   node
	wasted []Wasted
}

// node is a path of the file system.
type node struct {
	children map[string]*node // nil unless it is a directory
	inode    *inode           // nil unless it is a file
	layer    *Entry           // that put it there
}

// inode is a file; its hard links share it.
type inode struct {
	size  int64
	sum   sum
	meta  meta
	entry *Entry
	links int
	path  string // the first of them in the final file system, see files
}

// apply puts a layer on top. What a whiteout deletes is what lower layers have, so these come first, wherever they are in the tar.
func (st *stack) apply(list []entry, by *Entry) {
	for _, e := range list {
		switch e.form {
		case whiteout:
			st.remove(e.path, by, nil)
		case opaque:
			if n := st.find(e.path); n != nil {
				for name, child := range n.children {
					st.drop(child, join(e.path, name), by, nil)
				}
				n.children = nil
			}
		}
	}
	for i := range list {
		switch e := &list[i]; e.form {
		case whiteout, opaque:
		case directory:
			n := st.make(e.path, by)
			if n.children == nil { // nothing, or a file
				if n.inode != nil {
					st.lose(n.inode, e.path, by, nil)
					n.inode = nil
				}
				n.children = map[string]*node{}
			}
			n.layer = by
		case file:
			in := &inode{size: e.size, sum: e.sum, meta: e.meta, entry: by, links: 1}
			by.UnpackedBytes += e.size
			by.Files++
			st.put(e.path, in, by)
		case hardlink:
			if to := st.find(e.link); to != nil && to.inode != nil && e.link != e.path {
				to.inode.links++
				st.put(e.path, to.inode, by)
			}
		default:
			st.put(e.path, nil, by)
		}
	}
}

// put makes a path a file, or with nil something that has no content.
func (st *stack) put(path string, in *inode, by *Entry) {
	if n := st.find(path); n != nil {
		st.drop(n, path, by, in)
		n.children, n.inode, n.layer = nil, in, by
		return
	}
	n := st.make(path, by)
	n.inode, n.layer = in, by
}

// find returns what is at a path, nil for nothing.
func (st *stack) find(path string) *node {
	n := &st.root
	if path == "" {
		return n
	}
	for name := range strings.SplitSeq(path, "/") {
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

// make returns the node of a path, and makes it and the directories that it is in where they are missing.
func (st *stack) make(path string, by *Entry) *node {
	n := &st.root
	if path == "" {
		return n
	}
	at := ""
	for name := range strings.SplitSeq(path, "/") {
		if n.inode != nil { // a file where a directory must be
			st.lose(n.inode, at, by, nil)
			n.inode = nil
		}
		at = join(at, name)
		next := n.children[name]
		if next == nil {
			next = &node{layer: by}
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[name] = next
		}
		n = next
	}
	return n
}

// remove deletes a path.
func (st *stack) remove(path string, by *Entry, in *inode) {
	parent := &st.root
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
		parent = st.find(dir)
	}
	if parent == nil || parent.children[name] == nil {
		return
	}
	st.drop(parent.children[name], path, by, in)
	delete(parent.children, name)
}

// drop says that a node, and what is below it, is no longer there; in is the file that takes its place, if one does.
func (st *stack) drop(n *node, path string, by *Entry, in *inode) {
	if n.inode != nil {
		st.lose(n.inode, path, by, in)
	}
	for name, child := range n.children {
		st.drop(child, join(path, name), by, nil)
	}
}

// lose takes a link from a file. With the last one its bytes are wasted.
func (st *stack) lose(old *inode, path string, by *Entry, in *inode) {
	if old == in { // linked to where it was
		old.links--
		return
	}
	if old.links--; old.links > 0 {
		return
	}
	old.entry.WastedBytes += old.size
	w := Wasted{Path: "/" + path, Bytes: old.size, Kind: Deleted, Entry: old.entry.Number, By: by.Number}
	switch {
	case old.entry == by:
		w.Kind = Repeated
	case in == nil:
	case in.size == old.size && in.sum == old.sum:
		w.Kind, w.Changed = Copied, old.meta.changed(in.meta)
	default:
		w.Kind = Overwritten
	}
	st.wasted = append(st.wasted, w)
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// files adds the files at and below a node to a list, hard links once.
func (n *node) files(path string, list []*inode) []*inode {
	if n.inode != nil && n.inode.path == "" {
		n.inode.path = path
		list = append(list, n.inode)
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		list = n.children[name].files(join(path, name), list)
	}
	return list
}

// sum fills in what the whole image is about, when all layers are applied.
func (r *Report) sum(st *stack, o Options) {
	most := o.Most
	if most == 0 {
		most = 10
	}
	for _, e := range r.History {
		r.Bytes += e.Bytes
		r.UnpackedBytes += e.UnpackedBytes
		r.Files += e.Files
		r.WastedBytes += e.WastedBytes
		r.StrippedBytes += e.StrippedBytes
	}
	r.WastedFiles = len(st.wasted)
	if r.UnpackedBytes > 0 {
		r.WastedPercent = 100 * float64(r.WastedBytes) / float64(r.UnpackedBytes)
	}
	slices.SortFunc(st.wasted, func(a, b Wasted) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Path, b.Path), cmp.Compare(a.Entry, b.Entry))
	})
	live := st.root.files("", nil)
	slices.SortFunc(live, func(a, b *inode) int {
		return cmp.Or(cmp.Compare(b.size, a.size), slices.Compare(a.sum[:], b.sum[:]), strings.Compare(a.path, b.path))
	})
	r.Wasted = first(st.wasted, most)
	r.Largest = []File{}
	for _, in := range first(live, most) {
		r.Largest = append(r.Largest, File{"/" + in.path, in.size, in.entry.Number})
	}
	r.Equal = first(r.equal(live), most)
}

// equal finds the sets of files with one content; live is sorted by size and content.
func (r *Report) equal(live []*inode) (sets []Equal) {
	for len(live) > 0 {
		n := 1
		for n < len(live) && live[n].size == live[0].size && live[n].sum == live[0].sum {
			n++
		}
		if size := live[0].size; n > 1 && size > 0 {
			set := Equal{Bytes: size, WastedBytes: size * int64(n-1)}
			for _, in := range live[:n] {
				set.Paths = append(set.Paths, "/"+in.path)
			}
			r.EqualBytes += set.WastedBytes
			sets = append(sets, set)
		}
		live = live[n:]
	}
	slices.SortFunc(sets, func(a, b Equal) int {
		return cmp.Or(cmp.Compare(b.WastedBytes, a.WastedBytes), strings.Compare(a.Paths[0], b.Paths[0]))
	})
	return sets
}

// first is the beginning of a list, never nil; a negative number means all of it.
func first[T any](list []T, most int) []T {
	if list == nil {
		return []T{}
	}
	if most < 0 || most >= len(list) {
		return list
	}
	return list[:most:most]
}
