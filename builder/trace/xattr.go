package trace

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// bookkeeping is what overlayfs notes on the files of an upper directory for itself. It holds file handles (with inode numbers)
// and hints for inode numbers, so it differs between two directories that look the same to every program, and nothing
// that is seen through a lower directory depends on it:
//
//	origin   the file handle of what a file or directory was copied up from: for inode numbers that last
//	impure   some file in the directory has an origin: for inode numbers in listings
//	nlink    how many links a hard link's count is off: with index=on only, which the build does not use
//	upper    the file handle of the upper directory, in an index directory
//	uuid     the number of the overlay instance
//
// All the others change what is seen, and count: opaque, redirect, metacopy, whiteout, protattr, and what may come.
var bookkeeping = []string{"origin", "impure", "nlink", "upper", "uuid"}

// counts says whether an extended attribute is part of what a step can see. It is all of them but overlayfs's bookkeeping and
// security.evm, a signature that covers the inode's number and can't be equal on two files.
func counts(name string) bool {
	if name == "security.evm" {
		return false
	}
	rest, ok := strings.CutPrefix(name, overlayPrefix())
	return !ok || !slices.Contains(bookkeeping, rest)
}

// overlayPrefix is what overlayfs's own attributes begin with. In a user namespace overlays are mounted with userxattr; anywhere else
// user.overlay.impure is an attribute like any other.
func overlayPrefix() string {
	if userns.RunningInUserNS() {
		return "user.overlay."
	}
	return "trusted.overlay."
}

// xattrsOf returns the digest of the extended attributes of a name that was opened as fd, or that can't be opened (fd is -1:
// symbolic links, devices, pipes, sockets). It is zero if there are none that count.
func (w *walker) xattrsOf(path string, fd int) (digest [32]byte, err error) {
	if fd >= 0 {
		if n, err := unix.Flistxattr(fd, w.buffer); n == 0 && err == nil { // as nearly always
			return digest, nil
		}
	}
	list := func(b []byte) (int, error) { return unix.Flistxattr(fd, b) }
	get := func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) }
	if fd < 0 {
		// A descriptor made with O_PATH has no attributes. The way there is the directory's descriptor; the last part is
		// not followed.
		dir, name, err := w.at(path)
		if err != nil {
			return digest, err
		}
		through := fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
		list = func(b []byte) (int, error) { return unix.Llistxattr(through, b) }
		get = func(name string, b []byte) (int, error) { return unix.Lgetxattr(through, name, b) }
	}
	all, err := grown(list)
	if errors.Is(err, unix.ENOTSUP) || err == nil && len(all) == 0 {
		return digest, nil
	}
	if err != nil {
		return digest, fmt.Errorf("list extended attributes: %w", err)
	}
	names := strings.Split(strings.TrimSuffix(string(all), "\x00"), "\x00")
	slices.Sort(names)
	var b []byte
	for _, name := range names {
		if !counts(name) {
			continue
		}
		value, err := grown(func(b []byte) (int, error) { return get(name, b) })
		if err != nil {
			return digest, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		b = append(binary.AppendUvarint(b, uint64(len(value))), value...)
	}
	if len(b) == 0 {
		return digest, nil
	}
	return sha256.Sum256(b), nil
}

// grown calls read with buffers of growing size until one is large enough. The kernel has no value above 64 KiB.
func grown(read func([]byte) (int, error)) ([]byte, error) {
	for size := 1 << 10; ; size *= 8 {
		b := make([]byte, size)
		n, err := read(b)
		if err == nil {
			return bytes.Clone(b[:n]), nil
		}
		if !errors.Is(err, unix.ERANGE) || size > 64<<10 {
			return nil, err
		}
	}
}
