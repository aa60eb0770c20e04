package world

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"

	"github.com/moby/go-archive/compression"
)

// sniff reports whether ADD would unpack the file, by the test that BuildKit makes: a tar archive begins in it, after decompression by any of
// the methods that BuildKit knows. known is false if the test can't be made here, for want of a program or of permission.
func sniff(name string) (archive, known bool) {
	fi, err := os.Lstat(name)
	if err != nil {
		return false, false
	}
	if !fi.Mode().IsRegular() {
		return false, true
	}
	f, err := os.Open(name)
	if err != nil {
		return false, false
	}
	defer f.Close()
	return IsArchive(f)
}

// IsArchive makes the test on a regular file's content.
func IsArchive(content io.Reader) (archive, known bool) {
	r, err := compression.DecompressStream(content)
	if err != nil {
		var missing *exec.Error // xz has no library
		return false, !errors.As(err, &missing)
	}
	defer r.Close()
	_, err = tar.NewReader(r).Next()
	return err == nil, true
}
