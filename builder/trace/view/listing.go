package view

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace"
)

// listing is an open directory. Its names are read at once, when the first of them is asked for, and come sorted: the order in which a
// file system has them is not among what is observed, and so must not tell anything.
type listing struct {
	mu      sync.Mutex
	loaded  bool
	entries []entry // "." and ".." first
}

type entry struct {
	name string
	kind uint32 // S_IFMT bits
	ino  uint64
}

// OpenDir opens a directory, which alone tells nothing of its names: overlayfs opens each directory that it copies up, for its
// flags. ReadDir notes that it is listed.
func (f *fileSystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil || n.dir == nil {
		return fuse.EIO
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	f.listings[f.last] = &listing{}
	out.Fh = f.last
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	return fuse.OK
}

// ReadDir gives names from an offset on; an entry's offset is its place in the listing.
func (f *fileSystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil || n.dir == nil {
		return fuse.EIO
	}
	f.v.tree.add(n, trace.Listed)
	f.mu.Lock()
	l := f.listings[in.Fh]
	f.mu.Unlock()
	if l == nil {
		return f.broken(n, "list", unix.EBADF)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.loaded {
		entries, err := f.v.files.list(n)
		if err != nil {
			return f.broken(n, "list", err)
		}
		l.entries, l.loaded = entries, true
	}
	for i := in.Offset; i < uint64(len(l.entries)); i++ {
		e := l.entries[i]
		if !out.AddDirEntry(fuse.DirEntry{Mode: e.kind, Name: e.name, Ino: e.ino, Off: i + 1}) {
			break
		}
	}
	return fuse.OK
}

func (f *fileSystem) ReleaseDir(in *fuse.ReleaseIn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listings, in.Fh)
}

// list returns the names in n, a directory.
func (b *backing) list(n *node) ([]entry, error) {
	fd, err := b.open(n)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	up := n
	if n.parent != nil {
		up = n.parent
	}
	entries := []entry{{name: ".", kind: typeDirectory, ino: n.ino}, {name: "..", kind: typeDirectory, ino: up.ino}}
	buf := make([]byte, 64<<10)
	for {
		var size int
		err := ignoringEINTR(func() (err error) { size, err = unix.Getdents(fd, buf); return err })
		if err != nil {
			return nil, err
		}
		if size == 0 {
			break
		}
		for rest := buf[:size]; len(rest) > 0; {
			// struct linux_dirent64: d_ino, d_off (64 bits each), d_reclen (16), d_type (8), d_name.
			const nameOffset = 19
			length := binary.NativeEndian.Uint16(rest[16:])
			kind, name := uint32(rest[18])<<12, rest[nameOffset:length]
			rest = rest[length:]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			e := entry{name: string(name), kind: kind}
			if e.name == "." || e.name == ".." {
				continue
			}
			if kind == 0 { // a file system that doesn't say
				st, err := b.stat(n, e.name)
				if err != nil {
					return nil, err
				}
				e.kind = st.Mode & typeMask
			}
			e.ino = inodeNumber(n.ino, e.name)
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries[2:], func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	return entries, nil
}
