package request

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/tonistiigi/fsutil"
)

// unreadable reports files that can't be opened. fsutil sends those as empty files, without a word, and an image with an
// empty file is worse than no image; an error while reading makes it hang. So the read waits until the build was cancelled.
// That goes for a file that has vanished since it was listed as well. Sockets, which nobody can open, are meant to be empty
// files in the image.
type unreadable struct {
	fsutil.FS
	dir      string
	found    chan<- error    // buffered; takes the first
	released <-chan struct{} // closed when nobody reads any more
}

func (u unreadable) Open(path string) (io.ReadCloser, error) {
	f, err := u.FS.Open(path)
	if err == nil || errors.Is(err, syscall.ENXIO) {
		return f, err
	}
	hint := "make it readable, or exclude it with .dockerignore"
	if errors.Is(err, fs.ErrNotExist) {
		hint = "it vanished while the context was sent: build again, or exclude it with .dockerignore"
	}
	select {
	case u.found <- &InputError{Path: filepath.Join(u.dir, path), Err: cause(err), Hint: hint}:
	default:
	}
	return waiting{u.released}, nil
}

// waiting is a file that gives nothing until it is released.
type waiting struct{ released <-chan struct{} }

func (w waiting) Read([]byte) (int, error) {
	<-w.released
	return 0, io.ErrUnexpectedEOF
}

func (w waiting) Close() error { return nil }
