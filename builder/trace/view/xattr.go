package view

import (
	"errors"
	"runtime"
	"strconv"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noXattrAt is set when the kernel has no getxattrat and listxattrat (before 6.13), or a filter forbids them.
var noXattrAt atomic.Bool

// xattrArgs is the kernel's struct xattr_args.
type xattrArgs struct {
	value uint64
	size  uint32
	flags uint32
}

// getxattr reads an extended attribute of n, whatever n is, without following it. With an empty buffer it returns the size.
func (b *backing) getxattr(n *node, attribute string, buf []byte) (int, error) {
	h, name, err := b.locate(n)
	if err != nil {
		return 0, err
	}
	defer h.done()
	if !noXattrAt.Load() {
		size, err := getxattrAt(h.fd, name, attribute, buf)
		if !unavailable(err) {
			return size, err
		}
		noXattrAt.Store(true)
	}
	var size int
	err = ignoringEINTR(func() (err error) { size, err = unix.Lgetxattr(procPath(h.fd, name), attribute, buf); return err })
	return size, err
}

// listxattr lists the extended attributes of n, like getxattr.
func (b *backing) listxattr(n *node, buf []byte) (int, error) {
	h, name, err := b.locate(n)
	if err != nil {
		return 0, err
	}
	defer h.done()
	if !noXattrAt.Load() {
		size, err := listxattrAt(h.fd, name, buf)
		if !unavailable(err) {
			return size, err
		}
		noXattrAt.Store(true)
	}
	var size int
	err = ignoringEINTR(func() (err error) { size, err = unix.Llistxattr(procPath(h.fd, name), buf); return err })
	return size, err
}

// unavailable says that an error is that of a system call which this kernel doesn't have. Filters answer with EPERM; the call
// which is made instead of it will then say whether the attribute is meant.
func unavailable(err error) bool { return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) }

func getxattrAt(dir int, name, attribute string, buf []byte) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	a, err := unix.BytePtrFromString(attribute)
	if err != nil {
		return 0, err
	}
	args := &xattrArgs{size: uint32(len(buf))}
	if len(buf) > 0 {
		args.value = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(buf))))
	}
	for {
		size, _, e := unix.Syscall6(unix.SYS_GETXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(p)), unix.AT_SYMLINK_NOFOLLOW,
			uintptr(unsafe.Pointer(a)), uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args))
		runtime.KeepAlive(buf)
		switch e {
		case 0:
			return int(size), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

func listxattrAt(dir int, name string, buf []byte) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	for {
		size, _, e := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(p)), unix.AT_SYMLINK_NOFOLLOW,
			uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0)
		switch e {
		case 0:
			return int(size), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// procPath is a path to a name in a directory that leads through nothing but its descriptor.
func procPath(dir int, name string) string { return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name }
