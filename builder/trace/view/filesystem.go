package view

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace"
)

const (
	typeDirectory = unix.S_IFDIR
	typeMask      = unix.S_IFMT
)

// forever is for how long the kernel may keep an answer, in seconds: the layer doesn't change. It must not be short: a name would be looked
// up time and again; nor can the kernel drop it earlier without asking again, which does no harm.
const forever = 1 << 30

// fileSystem answers the kernel's requests. What was asked is noted before the answer is given. Methods are called concurrently.
type fileSystem struct {
	readOnly
	v *View

	mu       sync.Mutex
	listings map[uint64]*listing // by handle, of the directories that are open
	last     uint64              // handle
}

func newFileSystem(v *View) *fileSystem {
	return &fileSystem{readOnly: readOnly{fuse.NewDefaultRawFileSystem()}, v: v, listings: map[uint64]*listing{}}
}

func (f *fileSystem) String() string { return fileSystemType }

// node returns the node that a request is about, and nil with a reason to fail when the kernel knows more nodes than we do.
func (f *fileSystem) node(id uint64) *node {
	n := f.v.tree.node(id)
	if n == nil {
		f.v.fail(fmt.Errorf("the kernel asked for the unknown node %d", id))
	}
	return n
}

// broken notes that an answer doesn't come from the layer.
func (f *fileSystem) broken(n *node, op string, err error) fuse.Status {
	f.v.fail(fmt.Errorf("%s %s: %w", op, n.path(), err))
	return fuse.EIO
}

// Lookup is the heart of it: the kernel asks here for every name before it does anything with it, and once.
func (f *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := f.node(h.NodeId)
	if dir == nil || dir.dir == nil || name == "." || name == ".." {
		f.v.fail(fmt.Errorf("the kernel looked up %q in node %d", name, h.NodeId))
		return fuse.EIO
	}
	st, err := f.v.files.stat(dir, name)
	find := f.v.tree.lookedUp
	out.EntryValid, out.AttrValid = forever, forever
	if err == nil && f.forListing(h, dir, name) {
		// The name is good for this once: the kernel asks again for the first that comes upon it by a path, whatever it wants of it.
		find, out.EntryValid = f.v.tree.found, 0
	}
	switch {
	case errors.Is(err, unix.ENAMETOOLONG): // no layer of any kind has it
		return fuse.Status(unix.ENAMETOOLONG)
	case errors.Is(err, unix.ENOENT):
		if _, ok := f.v.tree.lookedUp(dir, name, 0); !ok {
			return f.broken(dir, "look up "+name+" in", errors.New("it is gone"))
		}
		return fuse.OK // node id 0: absent, and may be kept as such
	case err != nil:
		return f.broken(dir, "look up "+name+" in", err)
	}
	n, ok := find(dir, name, st.Mode&typeMask)
	if !ok {
		return f.broken(dir, "look up "+name+" in", errors.New("it became something else"))
	}
	out.NodeId = n.id
	f.attributes(n, &st, &out.Attr)
	return fuse.OK
}

// forListing says that a lookup is overlayfs's own, for a listing of the directory. See lists.
//
// overlayfs looks up the first name before it returns from the system call that lists: where the first lookup after a listing is somebody else's, the directory is not merged (or
// another thread was faster), and is not asked about any more.
func (f *fileSystem) forListing(h *fuse.InHeader, dir *node, name string) bool {
	d := dir.dir
	if trace.What(dir.seen.Load())&trace.Listed == 0 || d.alone.Load() || f.v.tree.noted(dir, name) {
		return false
	}
	if lists(h.Pid) {
		d.merged.Store(true)
		return true
	}
	d.alone.Store(!d.merged.Load())
	return false
}

// Forget has nothing to do: see node.
func (f *fileSystem) Forget(uint64, uint64) {}

func (f *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil {
		return fuse.EIO
	}
	st, err := f.v.files.statNode(n)
	if err == nil && st.Mode&typeMask != n.kind {
		err = errors.New("it became something else")
	}
	if err != nil {
		return f.broken(n, "stat", err)
	}
	f.v.tree.add(n, trace.Looked)
	out.AttrValid = forever
	f.attributes(n, &st, &out.Attr)
	return fuse.OK
}

// Links of a directory tell of names in it that nobody looked up: they are the same for all, as is the size (see View.directory). Links
// of a file would tell which other files there are.
const links = 1

func (f *fileSystem) attributes(n *node, st *unix.Stat_t, out *fuse.Attr) {
	modified := f.modified(time.Unix(st.Mtim.Unix()))
	out.Ino, out.Nlink = n.ino, links
	out.Mode, out.Uid, out.Gid, out.Rdev = st.Mode, st.Uid, st.Gid, uint32(st.Rdev)
	out.Size, out.Blocks, out.Blksize = uint64(st.Size), uint64(st.Blocks), uint32(st.Blksize)
	out.Atime, out.Atimensec = uint64(st.Atim.Sec), uint32(st.Atim.Nsec)
	out.Mtime, out.Mtimensec = uint64(modified.Unix()), uint32(modified.Nanosecond())
	out.Ctime, out.Ctimensec = uint64(st.Ctim.Sec), uint32(st.Ctim.Nsec)
	if n.dir != nil {
		out.Size, out.Blocks = f.v.directory.bytes, f.v.directory.blocks
	}
}

func (f *fileSystem) modified(t time.Time) time.Time {
	if f.v.modified == nil {
		return t
	}
	return f.v.modified(t)
}

// Statx is asked for when somebody wants the time of birth.
func (f *fileSystem) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil {
		return fuse.EIO
	}
	st, err := f.v.files.statx(n)
	if err == nil && uint32(st.Mode)&typeMask != n.kind {
		err = errors.New("it became something else")
	}
	if err != nil {
		return f.broken(n, "stat", err)
	}
	f.v.tree.add(n, trace.Looked)
	out.AttrValid = forever
	out.FromStatx(&st)
	modified := f.modified(time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)))
	out.Mtime.Sec, out.Mtime.Nsec = uint64(modified.Unix()), uint32(modified.Nanosecond())
	out.Ino, out.Nlink = n.ino, links
	if n.dir != nil {
		out.Size, out.Blocks = f.v.directory.bytes, f.v.directory.blocks
	}
	return fuse.OK
}

func (f *fileSystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n := f.node(h.NodeId)
	if n == nil {
		return nil, fuse.EIO
	}
	f.v.tree.add(n, trace.Looked)
	target, err := f.v.files.readlink(n)
	if err != nil {
		return nil, f.broken(n, "read link", err)
	}
	return target, fuse.OK
}

// GetXAttr answers for all attributes, also those in which overlayfs keeps its own marks (opaque directories and the like).
func (f *fileSystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attribute string, dest []byte) (uint32, fuse.Status) {
	n := f.node(h.NodeId)
	if n == nil {
		return 0, fuse.EIO
	}
	if !strings.HasPrefix(attribute, "trusted.overlay.") && !strings.HasPrefix(attribute, "user.overlay.") {
		f.v.tree.add(n, trace.Xattrs)
	}
	size, err := f.v.files.getxattr(n, attribute, dest)
	return f.xattrAnswer(n, size, err)
}

func (f *fileSystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := f.node(h.NodeId)
	if n == nil {
		return 0, fuse.EIO
	}
	f.v.tree.add(n, trace.Xattrs)
	size, err := f.v.files.listxattr(n, dest)
	return f.xattrAnswer(n, size, err)
}

func (f *fileSystem) xattrAnswer(n *node, size int, err error) (uint32, fuse.Status) {
	var e unix.Errno
	switch {
	case err == nil:
		return uint32(size), fuse.OK
	case errors.As(err, &e) && (e == unix.ENODATA || e == unix.ERANGE || e == unix.EOPNOTSUPP || e == unix.EPERM):
		return 0, fuse.Status(e)
	}
	return 0, f.broken(n, "read attributes of", err)
}

// Open notes that a file is read. It never says ENOSYS: the kernel would stop asking. The cache of its content stays between opens.
func (f *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil {
		return fuse.EIO
	}
	f.v.tree.add(n, trace.Read)
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY || in.Flags&unix.O_TRUNC != 0 {
		return fuse.EROFS
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (f *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := f.node(in.NodeId)
	if n == nil {
		return nil, fuse.EIO
	}
	f.v.tree.add(n, trace.Read)
	fd, err := f.v.files.open(n)
	if err != nil {
		return nil, f.broken(n, "read", err)
	}
	if result, ok := f.spliced(n, fd, in); ok {
		return result, fuse.OK
	}
	defer unix.Close(fd)
	size, err := readFull(fd, buf, int64(in.Offset))
	if err != nil {
		return nil, f.broken(n, "read", err)
	}
	return fuse.ReadResultData(buf[:size]), fuse.OK
}

func (f *fileSystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil {
		return fuse.EIO
	}
	f.v.tree.add(n, trace.Read)
	fd, err := f.v.files.open(n)
	if err != nil {
		return f.broken(n, "seek in", err)
	}
	defer unix.Close(fd)
	offset, err := unix.Seek(fd, int64(in.Offset), int(in.Whence))
	if err != nil {
		if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EINVAL) {
			return fuse.ToStatus(err)
		}
		return f.broken(n, "seek in", err)
	}
	out.Offset = uint64(offset)
	return fuse.OK
}

// Ioctl answers what lsattr asks for.
func (f *fileSystem) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, _ []byte, out *fuse.IoctlOut, buf []byte) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil {
		return fuse.EIO
	}
	const fsGetXattr, fsGetXattrBytes = 0x801c581f, 28 // FS_IOC_FSGETXATTR
	if in.Cmd != unix.FS_IOC_GETFLAGS && (in.Cmd != fsGetXattr || len(buf) < fsGetXattrBytes) || len(buf) < 4 {
		return fuse.Status(unix.ENOTTY)
	}
	fd, err := f.v.files.open(n)
	if err != nil {
		return f.broken(n, "get flags of", err)
	}
	defer unix.Close(fd)
	var flags [fsGetXattrBytes]byte
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(in.Cmd), uintptr(unsafe.Pointer(&flags))); e != 0 {
		return fuse.Status(e)
	}
	copy(buf, flags[:])
	return fuse.OK
}

// StatFs says nothing of the file system below: overlayfs answers for the upper one, and wants but the length of names from here.
func (f *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, unix.NAME_MAX
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(f.v.files.rootFD, &st) }); err == nil && st.Namelen > 0 {
		out.NameLen = uint32(st.Namelen)
	}
	return fuse.OK
}
