package request

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/session/filesync"
)

// A local output comes as a tar stream that is unpacked here. BuildKit's exporter "local" sends the same files one by one, each
// when it was asked for; asking for some thousand of them at once fills a flow control window whose other end is busy
// sending, and the build hangs (seen with the root file system of a Debian image, in stock BuildKit as well).

// unpackTo returns the receiver of a tar stream whose files go below dir, which it makes. They belong to this user, as those of
// docker's do.
func unpackTo(dir string) filesync.FileOutputFunc {
	return func(map[string]string) (io.WriteCloser, error) {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, err
		}
		pr, pw := io.Pipe()
		u := &unpacker{PipeWriter: pw, done: make(chan error, 1)}
		go func() {
			opts := []archive.ApplyOpt{
				archive.WithNoSameOwner(),
				// A file with the name of a whiteout is a file here: there is nothing below that it could delete.
				archive.WithConvertWhiteout(func(*tar.Header, string) (bool, error) { return true, nil }),
			}
			o := ordinary{dir: dir}
			if os.Geteuid() != 0 {
				opts = append(opts, archive.WithFilter(o.prepare))
			}
			_, err := archive.Apply(context.Background(), dir, pr, opts...)
			if err == nil {
				err = o.closeDirectories()
			}
			if err != nil {
				err = fmt.Errorf("write output: %w", err)
			}
			pr.CloseWithError(err)
			u.done <- err
		}()
		return u, nil
	}
}

type unpacker struct {
	*io.PipeWriter
	done chan error // receives one value when everything is unpacked, or can't be
}

// Close returns when everything is on disk.
func (u *unpacker) Close() error {
	u.PipeWriter.Close()
	return <-u.done
}

// ordinary makes archives of root's files such that an ordinary user can unpack them.
type ordinary struct {
	dir    string
	closed []*tar.Header // directories that their owner may not write to, in the archive's order
}

// prepare leaves out the extended attributes that only root may set, and keeps directories open while they are filled.
func (o *ordinary) prepare(h *tar.Header) (bool, error) {
	const prefix = "SCHILY.xattr."
	maps.DeleteFunc(h.PAXRecords, func(k, _ string) bool {
		return strings.HasPrefix(k, prefix+"security.") || strings.HasPrefix(k, prefix+"trusted.")
	})
	if h.Typeflag == tar.TypeDir && h.Mode&0o300 != 0o300 {
		was := *h
		o.closed = append(o.closed, &was)
		h.Mode |= 0o700
	}
	return true, nil
}

func (o *ordinary) closeDirectories() error {
	for _, h := range slices.Backward(o.closed) {
		path, err := fs.RootPath(o.dir, h.Name)
		if err == nil {
			err = os.Chmod(path, h.FileInfo().Mode())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
