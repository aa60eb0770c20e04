package request

import (
	"errors"
	"io"
	"io/fs"
	"syscall"
	"testing"

	"github.com/tonistiigi/fsutil"
)

type refusing struct{ fsutil.FS }

func (refusing) Open(path string) (io.ReadCloser, error) {
	if path == "socket" {
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENXIO}
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}
}

func TestUnreadable(t *testing.T) {
	found, released := make(chan error, 1), make(chan struct{})
	u := unreadable{refusing{}, "/ctx", found, released}
	if _, err := u.Open("socket"); !errors.Is(err, syscall.ENXIO) || len(found) != 0 {
		t.Errorf("a socket, which is sent as an empty file: %v, %d reported", err, len(found))
	}
	f, err := u.Open("sub/closed")
	if err != nil {
		t.Fatalf("Open failed, which fsutil ignores: %v", err)
	}
	if _, err := u.Open("another"); err != nil { // must not block
		t.Fatal(err)
	}
	if got, want := (<-found).Error(), "/ctx/sub/closed: permission denied"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	close(released)
	if b, err := io.ReadAll(f); len(b) != 0 || err == nil {
		t.Errorf("read %q, %v; want an error", b, err)
	}
}
