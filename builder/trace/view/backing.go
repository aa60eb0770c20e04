package view

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// backing is access to the layer's directory. Every name is reached from the descriptor of the directory that it is in, one component
// at a time, and symbolic links are never followed: whatever lies in the layer, nothing outside of it can be reached.
//
// No descriptor is held for an open file: a step may open more files than this process may. Each request to read opens the file anew, at
// 2 µs for up to 512 KiB.
type backing struct {
	rootFD int
}

// heldEverywhere counts the directories that all the views of this process hold open.
var heldEverywhere atomic.Int32

// mayHold is how many directories they may hold open: an eighth of what the process may open (the Go runtime has raised that to the hard
// limit). For the others, the way from the nearest one held is opened each time.
var mayHold = sync.OnceValue(func() int32 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 16
	}
	return int32(min(limit.Cur/8, 8192))
})

func openBacking(dir string) (*backing, error) {
	fd, err := openAt(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &backing{rootFD: fd}, nil
}

// close gives back all descriptors; nothing may use them any more.
func (b *backing) close(root *node) {
	var walk func(n *node)
	walk = func(n *node) {
		if n.dir == nil {
			return
		}
		if fd := n.dir.fd.Swap(0); fd != 0 {
			unix.Close(int(fd))
			heldEverywhere.Add(-1)
		}
		for _, c := range n.dir.children {
			walk(c)
		}
	}
	walk(root)
	if b.rootFD >= 0 {
		unix.Close(b.rootFD)
		b.rootFD = -1
	}
}

// handle is an O_PATH descriptor of a directory; done has to be called after its use.
type handle struct {
	fd        int
	temporary bool
}

func (h handle) done() {
	if h.temporary {
		unix.Close(h.fd)
	}
}

// directory returns a handle of n, a directory.
func (b *backing) directory(n *node) (handle, error) {
	if n.parent == nil {
		return handle{fd: b.rootFD}, nil
	}
	if fd := n.dir.fd.Load(); fd != 0 {
		return handle{fd: int(fd)}, nil
	}
	parent, err := b.directory(n.parent)
	if err != nil {
		return handle{}, err
	}
	fd, err := openAt(parent.fd, n.name, unix.O_PATH|unix.O_DIRECTORY)
	parent.done()
	if err != nil {
		return handle{}, fmt.Errorf("open directory %s: %w", n.path(), err)
	}
	if heldEverywhere.Add(1) > mayHold() || !n.dir.fd.CompareAndSwap(0, int32(fd)) {
		heldEverywhere.Add(-1)
		return handle{fd: fd, temporary: true}, nil
	}
	return handle{fd: fd}, nil
}

// locate returns n as a name in a directory.
func (b *backing) locate(n *node) (handle, string, error) {
	if n.parent == nil {
		return handle{fd: b.rootFD}, ".", nil
	}
	h, err := b.directory(n.parent)
	return h, n.name, err
}

// stat returns the attributes of a name in a directory; ENOENT and ENAMETOOLONG as they are.
func (b *backing) stat(dir *node, name string) (st unix.Stat_t, err error) {
	h, err := b.directory(dir)
	if err != nil {
		return st, err
	}
	defer h.done()
	err = ignoringEINTR(func() error { return unix.Fstatat(h.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// statNode returns the attributes of n.
func (b *backing) statNode(n *node) (unix.Stat_t, error) {
	if n.parent == nil {
		return b.stat(n, ".")
	}
	return b.stat(n.parent, n.name)
}

// statx is statNode with the time of birth.
func (b *backing) statx(n *node) (st unix.Statx_t, err error) {
	h, name, err := b.locate(n)
	if err != nil {
		return st, err
	}
	defer h.done()
	err = ignoringEINTR(func() error {
		return unix.Statx(h.fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	})
	return st, err
}

// open opens n, a regular file or a directory, to be read.
func (b *backing) open(n *node) (int, error) {
	h, name, err := b.locate(n)
	if err != nil {
		return -1, err
	}
	defer h.done()
	// As overlayfs does: reading a layer doesn't change it. Whoever doesn't own the file may not ask for that.
	fd, err := openAt(h.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		fd, err = openAt(h.fd, name, unix.O_RDONLY|unix.O_NONBLOCK)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", n.path(), err)
	}
	return fd, nil
}

// readlink returns the target of n, a symbolic link.
func (b *backing) readlink(n *node) ([]byte, error) {
	h, name, err := b.locate(n)
	if err != nil {
		return nil, err
	}
	defer h.done()
	buf := make([]byte, unix.PathMax)
	var size int
	err = ignoringEINTR(func() (err error) { size, err = unix.Readlinkat(h.fd, name, buf); return err })
	if err != nil {
		return nil, fmt.Errorf("read link %s: %w", n.path(), err)
	}
	return buf[:size], nil
}

// openAt opens one component without following it. When the process has no descriptor left it waits a little: those of other requests
// come back at once.
func openAt(dir int, name string, flags int) (int, error) {
	if dir != unix.AT_FDCWD {
		flags |= unix.O_NOFOLLOW
	}
	for wait := time.Millisecond; ; wait *= 2 {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case (errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)) && wait < time.Second:
			time.Sleep(wait)
		default:
			return fd, err
		}
	}
}

// ignoringEINTR repeats a call that a signal of the Go runtime's interrupted.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
