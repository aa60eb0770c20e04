package tocfs

import (
	"errors"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// fileSystem answers the kernel's requests about a layer. Nothing ever changes, so the kernel may keep all answers.
type fileSystem struct {
	fuse.RawFileSystem
	l      *Layer
	opaque string // the attribute that marks opaque directories
}

// forever is for how long the kernel may keep an answer, in seconds.
const forever = 1 << 30

const fileSystemType = "optbuild"

// Mounted is a layer that is mounted.
type Mounted struct {
	mountpoint string
	server     *fuse.Server
	done       chan struct{}
}

// Mount shows the layer at an empty directory, until Unmount. The process that calls it must not look into the mount: if it were killed while it waits for its own answer, it would never end.
func (l *Layer) Mount(mountpoint string) (*Mounted, error) {
	f := &fileSystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), l: l, opaque: "trusted.overlay.opaque"}
	if userns.RunningInUserNS() { // where overlays are mounted with userxattr
		f.opaque = "user.overlay.opaque"
	}
	server, err := fuse.NewServer(f, mountpoint, &fuse.MountOptions{
		DirectMountStrict: true,
		DirectMountFlags:  unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID,
		Options:           []string{"default_permissions"},
		AllowOther:        true,
		FsName:            fileSystemType,
		Name:              fileSystemType,
		Logger:            log.New(io.Discard, "", 0),

		DisableReadDirPlus:       true, // it would ask for the attributes of names that nobody looks at
		EnableAcl:                true,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		MaxWrite:                 512 << 10, // it is the option max_read, too
		MaxReadAhead:             512 << 10,
		MaxBackground:            64,
		// PASSTHROUGH: the kernel would count it as a file system on top of another one, which leaves one level less for an overlay in the overlay.
		DisabledCapabilities: fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_PASSTHROUGH,
		PanicHandler: func(p any) fuse.Status {
			l.o.Failed(fmt.Errorf("panic: %v", p))
			return fuse.EIO
		},
	})
	if err != nil {
		if strings.HasPrefix(err.Error(), "init:") { // go-fuse leaves the mount behind when it can't come to terms with the kernel
			_ = unix.Unmount(mountpoint, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		return nil, fmt.Errorf("mount layer at %s: %w", mountpoint, err)
	}
	m := &Mounted{mountpoint, server, make(chan struct{})}
	go func() {
		defer close(m.done)
		server.Serve()
	}()
	return m, nil
}

// Unmount detaches the mount.
func (m *Mounted) Unmount() error {
	err := unix.Unmount(m.mountpoint, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) { // it is not mounted
		return nil
	}
	return err
}

// Wait returns when the kernel has let go of the mount.
func (m *Mounted) Wait() { <-m.done }

func (f *fileSystem) String() string { return fileSystemType }

func (f *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := f.l.tree.node(h.NodeId)
	if dir == nil || dir.children == nil {
		return fuse.ENOENT
	}
	out.EntryValid, out.AttrValid = forever, forever
	number, ok := dir.children[name]
	if !ok {
		return fuse.OK // node id 0: absent, and may be kept as such
	}
	out.NodeId = number
	out.Attr = f.l.tree.node(number).attr
	return fuse.OK
}

// Forget has nothing to do: there are as many nodes as the table has.
func (f *fileSystem) Forget(uint64, uint64) {}

func (f *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.l.tree.node(in.NodeId)
	if n == nil {
		return fuse.ENOENT
	}
	out.AttrValid = forever
	out.Attr = n.attr
	return fuse.OK
}

func (f *fileSystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n := f.l.tree.node(h.NodeId)
	if n == nil || n.link == "" {
		return nil, fuse.EINVAL
	}
	return []byte(n.link), fuse.OK
}

func (f *fileSystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS } // the kernel checks by itself

func (f *fileSystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	n := f.l.tree.node(h.NodeId)
	if n == nil {
		return 0, fuse.ENOENT
	}
	if n.opaque && name == f.opaque {
		return copied(dest, []byte("y"))
	}
	if v, ok := n.xattrs[name]; ok {
		return copied(dest, v)
	}
	return 0, fuse.ENODATA
}

func (f *fileSystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := f.l.tree.node(h.NodeId)
	if n == nil {
		return 0, fuse.ENOENT
	}
	var names []byte
	if n.opaque {
		names = append(names, f.opaque+"\x00"...)
	}
	for name := range n.xattrs {
		names = append(names, name+"\x00"...)
	}
	return copied(dest, names)
}

func copied(dest, v []byte) (uint32, fuse.Status) {
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

func (f *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if n := f.l.tree.node(in.NodeId); n == nil {
		return fuse.ENOENT
	}
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		return fuse.EROFS
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Read gives out what was asked for, or an error: what is missing would be zeros to a reader.
func (f *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := f.l.tree.node(in.NodeId)
	if n == nil {
		return nil, fuse.ENOENT
	}
	size, err := f.l.readAt(n, buf, int64(in.Offset))
	if err != nil {
		f.l.o.Failed(fmt.Errorf("read /%s: %w", f.l.tree.path(in.NodeId), err))
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(buf[:size]), fuse.OK
}

func (f *fileSystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if n := f.l.tree.node(in.NodeId); n == nil || n.children == nil {
		return fuse.ENOTDIR
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	return fuse.OK
}

func (f *fileSystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n := f.l.tree.node(in.NodeId)
	if n == nil || n.children == nil {
		return fuse.ENOTDIR
	}
	for at := in.Offset; at < uint64(len(n.names))+2; at++ {
		e := fuse.DirEntry{Mode: unix.S_IFDIR, Off: at + 1}
		switch at {
		case 0:
			e.Name, e.Ino = ".", n.attr.Ino
		case 1:
			e.Name, e.Ino = "..", n.parent
		default:
			child := f.l.tree.node(n.children[n.names[at-2]])
			e.Name, e.Ino, e.Mode = n.names[at-2], child.attr.Ino, child.attr.Mode
		}
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (f *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: blockBytes, Frsize: blockBytes, NameLen: 255}
	return fuse.OK
}

// path is a name of a node, without the first slash.
func (t *tree) path(number uint64) string {
	var names []string
	for n := t.node(number); n != nil && number != n.parent && len(names) < maxDepth; {
		parent := t.node(n.parent)
		for name, child := range parent.children {
			if child == number {
				names = append([]string{name}, names...)
				break
			}
		}
		number, n = n.parent, parent
	}
	return strings.Join(names, "/")
}

const maxDepth = 1000
