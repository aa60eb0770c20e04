package tocfs

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	// stateName is where stargz-snapshotter's own file system shows what it is doing. A layer that has such a file is not shown here, lest the two be taken for each other.
	stateName = ".stargz-snapshotter"
)

// ErrUnfit is wrapped by the reasons why a layer has to be fetched as a whole: it is not damaged, but a table of contents does not tell what unpacking it would make.
var ErrUnfit = errors.New("it can't be shown by its table of contents")

// node is one file. Its number is its place in tree.nodes, plus one.
type node struct {
	attr     fuse.Attr
	id       uint32            // of the metadata; of a whiteout that of its marker
	link     string            // of a symbolic link
	xattrs   map[string][]byte // without the mark of an opaque directory
	opaque   bool
	names    []string          // of a directory, sorted
	children map[string]uint64 // their numbers
	parent   uint64
	chunked  bool  // it is a regular file
	offset   int64 // where that begins in the blob
	file     atomic.Pointer[io.ReaderAt]
}

// tree is all that a layer's table of contents says, as the kernel wants to hear it. It does not change.
type tree struct {
	nodes []*node // the first is the root
	ids   map[uint32]uint64
}

func (t *tree) node(number uint64) *node {
	if number == 0 || number > uint64(len(t.nodes)) {
		return nil
	}
	return t.nodes[number-1]
}

// newTree reads a table of contents.
func newTree(r metadata.Reader) (*tree, error) {
	t := &tree{ids: map[uint32]uint64{}}
	root, err := t.add(r, r.RootID(), 1)
	if err != nil {
		return nil, err
	}
	t.node(root).parent = root
	// Who unpacks leaves the root as it was made, whatever the archive says of it.
	a := &t.node(root).attr
	a.Mode, a.Owner = unix.S_IFDIR|0o755, fuse.Owner{}
	return t, nil
}

func (t *tree) add(r metadata.Reader, id uint32, parent uint64) (uint64, error) {
	a, err := r.GetAttr(id)
	if err != nil {
		return 0, err
	}
	n := &node{id: id, link: a.LinkName, parent: parent, xattrs: a.Xattrs}
	t.nodes = append(t.nodes, n)
	number := uint64(len(t.nodes))
	t.ids[id] = number
	for name := range a.Xattrs {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			return 0, fmt.Errorf("%w: a file has the attribute %s", ErrUnfit, name)
		}
	}
	n.attributes(a, number)
	switch {
	case a.Mode.IsDir():
		return number, t.addChildren(r, n, number)
	case a.Mode.IsRegular():
		n.chunked = true
		if n.offset, err = r.GetOffset(id); err != nil {
			return 0, err
		}
		return number, checkChunks(r, id, a.Size)
	}
	return number, nil
}

func (t *tree) addChildren(r metadata.Reader, dir *node, number uint64) error {
	dir.children = map[string]uint64{}
	whiteouts := map[string]uint32{}
	var inner error
	links := uint32(2)
	err := r.ForeachChild(dir.id, func(name string, id uint32, mode os.FileMode) bool {
		switch {
		case name == "" || name == "." || name == "..": // the root's own entry
			return true
		case number == 1 && (name == estargz.PrefetchLandmark || name == estargz.NoPrefetchLandmark || name == estargz.TOCTarName):
			return true // not of the image's files
		case number == 1 && name == stateName:
			inner = fmt.Errorf("%w: it has a file %s", ErrUnfit, stateName)
			return false
		case name == opaqueName:
			dir.opaque = true
			return true
		case strings.HasPrefix(name, whiteoutPrefix+whiteoutPrefix): // of AUFS; who unpacks skips them
			return true
		case strings.HasPrefix(name, whiteoutPrefix):
			whiteouts[name[len(whiteoutPrefix):]] = id
			return true
		}
		if mode.IsDir() {
			links++
		}
		child, ok := t.ids[id] // a hard link
		if ok && mode.IsDir() {
			inner = fmt.Errorf("%w: a hard link leads to a directory", ErrUnfit)
			return false
		}
		if !ok {
			child, inner = t.add(r, id, number)
		}
		dir.children[name] = child
		return inner == nil
	})
	if err := errors.Join(err, inner); err != nil {
		return err
	}
	for name, id := range whiteouts {
		if _, there := dir.children[name]; there {
			return fmt.Errorf("%w: %s is deleted and there", ErrUnfit, name)
		}
		a, err := r.GetAttr(id)
		if err != nil {
			return err
		}
		n := &node{id: id, parent: number}
		t.nodes = append(t.nodes, n)
		at := uint64(len(t.nodes))
		n.attr = fuse.Attr{Ino: at, Mode: unix.S_IFCHR, Nlink: 1, Blksize: blockBytes}
		setTime(&n.attr, a.ModTime)
		dir.children[name] = at
	}
	dir.names = slices.Sorted(maps.Keys(dir.children))
	dir.attr.Nlink = links
	return nil
}

// checkChunks makes sure that all of a file's content is there, and can be compared with its digest when it is read.
func checkChunks(r metadata.Reader, id uint32, size int64) error {
	if size == 0 {
		return nil
	}
	f, err := r.OpenFile(id)
	if err != nil {
		return err
	}
	for at := int64(0); at < size; {
		off, n, sum, ok := f.ChunkEntryForOffset(at)
		if !ok || off != at || n <= 0 || n > maxChunk || off+n > size {
			return fmt.Errorf("%w: a file of %d bytes lacks what is at %d", ErrUnfit, size, at)
		}
		if _, err := digest.Parse(sum); err != nil {
			return fmt.Errorf("%w: a part of a file has no digest", ErrUnfit)
		}
		at += n
	}
	return nil
}

const (
	blockBytes     = 4096
	directoryBytes = 4096      // that of a small one on ext4 and others
	maxChunk       = 256 << 20 // it is held in memory
)

func (n *node) attributes(a metadata.Attr, number uint64) {
	n.attr = fuse.Attr{
		Ino: number, Mode: systemMode(a.Mode), Size: uint64(a.Size), Blksize: blockBytes,
		Owner: fuse.Owner{Uid: uint32(a.UID), Gid: uint32(a.GID)},
		Nlink: uint32(max(a.NumLink, 1)),
	}
	switch {
	case a.Mode.IsDir():
		n.attr.Size = directoryBytes
	case a.Mode&os.ModeSymlink != 0:
		n.attr.Size = uint64(len(a.LinkName))
	case a.Mode&os.ModeDevice != 0:
		n.attr.Rdev = uint32(unix.Mkdev(uint32(a.DevMajor), uint32(a.DevMinor)))
	}
	if a.Mode.IsDir() || a.Mode.IsRegular() {
		n.attr.Blocks = (n.attr.Size + blockBytes - 1) / blockBytes * (blockBytes / 512)
	}
	setTime(&n.attr, a.ModTime)
}

// setTime sets all times of a file. A table has no time for what is of 1970, or was not in the archive by itself.
func setTime(a *fuse.Attr, t time.Time) {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	a.SetTimes(&t, &t, &t)
}

func systemMode(m os.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, of := range map[os.FileMode]uint32{os.ModeSetuid: unix.S_ISUID, os.ModeSetgid: unix.S_ISGID, os.ModeSticky: unix.S_ISVTX} {
		if m&bit != 0 {
			mode |= of
		}
	}
	switch m & os.ModeType {
	case os.ModeDir:
		return mode | unix.S_IFDIR
	case os.ModeSymlink:
		return mode | unix.S_IFLNK
	case os.ModeDevice:
		return mode | unix.S_IFBLK
	case os.ModeDevice | os.ModeCharDevice:
		return mode | unix.S_IFCHR
	case os.ModeNamedPipe:
		return mode | unix.S_IFIFO
	case os.ModeSocket:
		return mode | unix.S_IFSOCK
	}
	return mode | unix.S_IFREG
}
