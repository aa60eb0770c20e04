package request

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// hardlinks finds out which files are one. fsutil tells it from inode numbers alone: in a context with a mount in it, two
// files of different file systems can have the same number, and the second would get the content of the first.
type hardlinks struct {
	fsutil.FS
	dir string
}

// inode identifies a file on this machine.
type inode struct{ device, number uint64 }

func (h hardlinks) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	seen := map[inode]string{} // of the files that fsutil was wrong about
	return h.FS.Walk(ctx, target, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.Type().IsRegular() {
			d = &linked{d, h.dir, path, seen}
		}
		return fn(path, d, err)
	})
}

type linked struct {
	fs.DirEntry
	dir, path string
	seen      map[inode]string
}

func (l *linked) Info() (fs.FileInfo, error) {
	fi, err := l.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*types.Stat)
	if !ok || st.Linkname == "" {
		return fi, nil
	}
	this, err := os.Lstat(filepath.Join(l.dir, l.path))
	if err != nil {
		return nil, err
	}
	if first, err := os.Lstat(filepath.Join(l.dir, st.Linkname)); err == nil && os.SameFile(this, first) {
		return fi, nil
	}
	st = st.Clone()
	st.Linkname = ""
	if s, ok := this.Sys().(*syscall.Stat_t); ok {
		id := inode{uint64(s.Dev), s.Ino} //nolint:unconvert // its type is another one on some architectures
		if first, ok := l.seen[id]; !ok {
			l.seen[id] = l.path
		} else if first != l.path { // not asked for twice
			st.Linkname = first
		}
	}
	return &fsutil.StatInfo{Stat: st}, nil
}
