package view

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// spliceBytes is the size from which on a read is spliced: the pages go from the layer's file to the kernel's FUSE without being copied
// into this process. For less than that, the pipe that it takes costs more than the copy.
const spliceBytes = 128 << 10

// spliced answers a large read through a pipe. It takes over fd, if it does so.
func (f *fileSystem) spliced(n *node, fd int, in *fuse.ReadIn) (fuse.ReadResult, bool) {
	if in.Size < spliceBytes {
		return nil, false
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size < int64(in.Offset)+int64(in.Size) {
		return nil, false
	}
	return &splicedRead{f: f, n: n, fd: fd, offset: int64(in.Offset), size: int(in.Size)}, true
}

// splicedRead has the methods by which go-fuse knows that it may be spliced.
type splicedRead struct {
	f      *fileSystem
	n      *node
	fd     int
	offset int64
	size   int
}

func (r *splicedRead) Seekable() (fd uintptr, offset int64, size int) {
	return uintptr(r.fd), r.offset, r.size
}

func (r *splicedRead) Size() int { return r.size }
func (r *splicedRead) Done()     { unix.Close(r.fd) }

// Bytes is called when splicing didn't work.
func (r *splicedRead) Bytes(buf []byte) ([]byte, fuse.Status) {
	size, err := readFull(r.fd, buf[:r.size], r.offset)
	if err != nil {
		return nil, r.f.broken(r.n, "read", err)
	}
	return buf[:size], fuse.OK
}

// readFull reads until the buffer is full or the file ends: the kernel takes a short answer for the end.
func readFull(fd int, buf []byte, offset int64) (int, error) {
	size := 0
	for size < len(buf) {
		var got int
		err := ignoringEINTR(func() (err error) { got, err = unix.Pread(fd, buf[size:], offset+int64(size)); return err })
		if err != nil {
			return size, err
		}
		if got == 0 {
			break
		}
		size += got
	}
	return size, nil
}
