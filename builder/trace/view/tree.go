package view

import (
	"cmp"
	"encoding/binary"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/optbuild/optbuild/builder/trace"
)

// node is a name that was looked up. It stays until the view is closed, also when the kernel forgets it: the record needs its path
// anyway, and a name keeps its number, so that what the kernel does remember of it stays true.
type node struct {
	parent *node // nil: the root
	name   string
	dir    *directory // nil: not a directory
	id     uint64     // the kernel's number for it; 0: it is absent
	ino    uint64
	kind   uint32        // S_IFMT bits
	order  atomic.Uint32 // of the first touch; 0: none yet
	seen   atomic.Uint32 // trace.What; 0: known to the kernel from a listing only
}

// directory is what only a directory has.
type directory struct {
	mu       sync.Mutex
	children map[string]*node // those that were looked up, present and absent
	fd       atomic.Int32     // an O_PATH descriptor, kept until the view is closed; 0: none
	// What lookups after a listing have told: overlayfs makes some of its own, since other layers have the directory, too; or it makes none.
	merged, alone atomic.Bool
}

// tree holds the nodes, and with them the record.
type tree struct {
	root      *node
	order     *atomic.Uint32
	absent    atomic.Int64
	maxAbsent atomic.Int64
	full      atomic.Bool // names are missing in the record

	mu    sync.RWMutex
	nodes []*node // by id
}

// maxAbsent bounds the memory that a step can fill by looking up names at random: some 200 bytes each. What is there is bounded by
// the layer. The largest number seen in a build was below 100,000.
const maxAbsent = 1 << 20

const rootID = 1 // FUSE_ROOT_ID

func newTree(order *atomic.Uint32) *tree {
	root := &node{name: ".", dir: &directory{}, id: rootID, ino: rootID, kind: typeDirectory}
	root.order.Store(order.Add(1))
	root.seen.Store(uint32(trace.Looked)) // whoever mounts an overlay on it does
	t := &tree{root: root, order: order, nodes: []*node{nil, root}}
	t.maxAbsent.Store(maxAbsent)
	return t
}

// node returns the node that the kernel calls id; nil when it has no such name for one.
func (t *tree) node(id uint64) *node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if id >= uint64(len(t.nodes)) {
		return nil
	}
	return t.nodes[id]
}

// noted says whether the record has a name.
func (t *tree) noted(parent *node, name string) bool {
	d := parent.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.children[name]
	return n != nil && n.seen.Load() != 0
}

// lookedUp notes that a name was looked up in a directory and found to be of a kind, or to be absent (0). It returns the name's node,
// or nil when the record is full. ok is false when it contradicts what was found before.
func (t *tree) lookedUp(parent *node, name string, kind uint32) (n *node, ok bool) {
	n, ok = t.found(parent, name, kind)
	if n != nil && kind != 0 {
		t.add(n, trace.Looked)
	}
	return n, ok
}

// found is lookedUp for a name that is there, without a note: a listing has its kind.
func (t *tree) found(parent *node, name string, kind uint32) (n *node, ok bool) {
	d := parent.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.children[name]; n != nil {
		return n, n.kind == kind
	}
	if kind == 0 && t.absent.Add(1) > t.maxAbsent.Load() {
		t.full.Store(true)
		return nil, true
	}
	n = &node{parent: parent, name: name, kind: kind}
	if kind == 0 {
		t.add(n, trace.Absent)
	} else {
		n.ino = inodeNumber(parent.ino, name)
		if kind == typeDirectory {
			n.dir = &directory{}
		}
		t.mu.Lock()
		n.id = uint64(len(t.nodes))
		t.nodes = append(t.nodes, n)
		t.mu.Unlock()
	}
	if d.children == nil {
		d.children = map[string]*node{}
	}
	d.children[name] = n
	return n, true
}

// add notes that something was done with a node. Whatever is done with a name that is there tells that, and what it is.
func (t *tree) add(n *node, w trace.What) {
	if w != trace.Absent {
		w |= trace.Looked
	}
	if trace.What(n.seen.Load())&w == w {
		return
	}
	if n.seen.Or(uint32(w)) == 0 {
		n.order.Store(t.order.Add(1))
	}
}

// inodeBits leave room for the bits with which overlayfs says in an inode's number from which layer it is (xino=on): it needs two more than
// it takes to count its layers.
const inodeBits = 48

// inodeNumber depends on nothing but the path: the numbers of the directory itself would tell which names are links to one file, which is
// not observed, and change from layer to layer. In a million names, two have the same number once in five hundred times; that two
// names are one file, programs conclude only when there are more links than one, which a view never says.
func inodeNumber(parent uint64, name string) uint64 {
	var d xxhash.Digest
	d.Reset()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], parent)
	d.Write(b[:])
	d.WriteString(name)
	return max(d.Sum64()&(1<<inodeBits-1), rootID+1)
}

// seen returns the record.
func (t *tree) seen() []trace.Seen {
	var out []trace.Seen
	var walk func(n *node, p string)
	walk = func(n *node, p string) {
		if what := trace.What(n.seen.Load()); what != 0 {
			out = append(out, trace.Seen{Path: p, What: what, Order: n.order.Load()})
		}
		if n.dir == nil {
			return
		}
		n.dir.mu.Lock()
		children := make([]*node, 0, len(n.dir.children))
		for _, c := range n.dir.children {
			children = append(children, c)
		}
		n.dir.mu.Unlock()
		for _, c := range children {
			if n.parent == nil {
				walk(c, c.name)
			} else {
				walk(c, p+"/"+c.name)
			}
		}
	}
	walk(t.root, t.root.name)
	slices.SortFunc(out, func(a, b trace.Seen) int { return cmp.Compare(a.Order, b.Order) })
	return out
}

// path is for messages.
func (n *node) path() string {
	if n.parent == nil {
		return n.name
	}
	return path.Join(n.parent.path(), n.name)
}
