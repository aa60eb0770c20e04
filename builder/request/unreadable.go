package request

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/tonistiigi/fsutil"
)

// unreadable reports files that can't be opened. fsutil sends those as empty files, without a word, and an image with an
// empty file is worse than no image; an error while reading makes it hang. So the read waits until the build was cancelled.
// A file that has vanished since it was listed is left to fsutil, as with docker.
type unreadable struct {
	fsutil.FS
	dir      string
	found    chan<- error    // buffered; takes the first
	released <-chan struct{} // closed when nobody reads any more
}

func (u unreadable) Open(path string) (io.ReadCloser, error) {
	f, err := u.FS.Open(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	select {
	case u.found <- &InputError{Path: filepath.Join(u.dir, path), Err: cause(err), Hint: "make it readable, or exclude it with .dockerignore"}:
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
