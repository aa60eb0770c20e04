package trace

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// walker reaches the names below a directory. It goes from directory to directory by descriptors and follows no symbolic link,
// so it can't leave the directory, whatever lies in it. It keeps the descriptors of the path it was on last: who asks in the
// order of ComparePaths opens each directory once. It is not for use by several goroutines.
type walker struct {
	dirs   []openDir // from the root to the last directory; never empty
	buffer []byte    // for reading files and directories
}

// buffers are kept: a new one costs as much as looking at ten files.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

type openDir struct {
	path string
	fd   int
}

func newWalker(root string) (*walker, error) {
	fd, err := open(unix.AT_FDCWD, root, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open layer %s: %w", root, err)
	}
	return &walker{dirs: []openDir{{".", fd}}, buffer: buffers.Get().(*[64 << 10]byte)[:]}, nil
}

func (w *walker) close() {
	for _, d := range w.dirs {
		unix.Close(d.fd)
	}
	w.dirs = nil
	buffers.Put((*[64 << 10]byte)(w.buffer))
	w.buffer = nil
}

// at returns the descriptor of the directory that a name is in, and the name in it. The descriptor is the walker's.
func (w *walker) at(path string) (dir int, name string, err error) {
	if path == "." {
		return w.dirs[0].fd, ".", nil
	}
	in := parent(path)
	name = path
	if in != "." {
		name = path[len(in)+1:]
	}
	for len(w.dirs) > 1 {
		if top := w.dirs[len(w.dirs)-1].path; in == top || strings.HasPrefix(in, top) && in[len(top)] == '/' {
			break
		}
		unix.Close(w.dirs[len(w.dirs)-1].fd)
		w.dirs = w.dirs[:len(w.dirs)-1]
	}
	for {
		top := w.dirs[len(w.dirs)-1]
		if top.path == in {
			return top.fd, name, nil
		}
		start := 0 // of the next part of in
		if top.path != "." {
			start = len(top.path) + 1
		}
		end := len(in)
		if i := strings.IndexByte(in[start:], '/'); i >= 0 {
			end = start + i
		}
		fd, err := open(top.fd, in[start:end], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			return -1, "", err
		}
		w.dirs = append(w.dirs, openDir{in[:end], fd})
	}
}

// stat returns a name's attributes. It is false if there is no such name.
func (w *walker) stat(path string) (st unix.Stat_t, there bool, err error) {
	dir, name, err := w.at(path)
	if err == nil {
		err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if isMissing(err) {
		return st, false, nil
	}
	return st, err == nil, err
}

// isMissing says whether an error means that there is no such name: also when what would be its directory is none, or when
// the name is longer than the layer's file system allows.
func isMissing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENAMETOOLONG)
}

// open opens a regular file or a directory for reading. The caller closes it. Nothing else may be at that path.
func (w *walker) open(path string) (int, error) {
	dir, name, err := w.at(path)
	if err != nil {
		return -1, err
	}
	return open(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY)
}

// open is openat, which a signal may interrupt on some file systems.
func open(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func (w *walker) read(fd int, into []byte) (int, error) {
	for {
		n, err := unix.Read(fd, into)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// content returns the digest of an open file and how many bytes were read. likely is what stat said of its size.
func (w *walker) content(fd int, likely int64) (digest [32]byte, size int64, err error) {
	n, err := w.read(fd, w.buffer)
	if err != nil {
		return digest, 0, err
	}
	if int64(n) == likely { // most files are smaller than the buffer
		return sha256.Sum256(w.buffer[:n]), likely, nil
	}
	h := sha256.New()
	for n > 0 {
		size += int64(n)
		h.Write(w.buffer[:n])
		if n, err = w.read(fd, w.buffer); err != nil {
			return digest, 0, err
		}
	}
	h.Sum(digest[:0])
	return digest, size, nil
}

// link returns the digest of a symbolic link's target.
func (w *walker) link(path string) (digest [32]byte, err error) {
	dir, name, err := w.at(path)
	if err != nil {
		return digest, err
	}
	n, err := unix.Readlinkat(dir, name, w.buffer)
	if err != nil {
		return digest, err
	}
	if n == len(w.buffer) {
		return digest, io.ErrShortBuffer
	}
	return sha256.Sum256(w.buffer[:n]), nil
}

// list returns the names of an open directory, sorted.
func (w *walker) list(fd int) ([]Name, error) {
	var names []Name
	for {
		n, err := unix.Getdents(fd, w.buffer)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		for rest := w.buffer[:n]; len(rest) > 0; {
			// struct linux_dirent64: ino u64, off s64, reclen u16, type u8, name with a zero byte at its end
			if len(rest) < 20 {
				return nil, syscall.EIO
			}
			length := int(binary.NativeEndian.Uint16(rest[16:]))
			if length < 20 || length > len(rest) {
				return nil, syscall.EIO
			}
			name, _, _ := strings.Cut(string(rest[19:length]), "\x00")
			kind := rest[18]
			rest = rest[length:]
			if name == "." || name == ".." {
				continue
			}
			if kind == unix.DT_UNKNOWN || kind == unix.DT_CHR {
				if kind, err = nameType(fd, name); err != nil {
					return nil, err
				}
			}
			names = append(names, Name{name, kind})
		}
	}
	slices.SortFunc(names, func(a, b Name) int { return strings.Compare(a.Name, b.Name) })
	return names, nil
}

// nameType finds the type that a directory's entry does not tell: some file systems tell none, and none tells whiteouts.
func nameType(dir int, name string) (uint8, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		return TypeWhiteout, nil
	}
	return uint8(st.Mode & unix.S_IFMT >> 12), nil
}
