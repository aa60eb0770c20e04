package analyze

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// form is what a path is in a layer.
type form uint8

const (
	file form = iota
	directory
	symlink
	hardlink // to a path that the layer had before
	device   // or a pipe
	whiteout // the path is deleted
	opaque   // a directory, of which nothing from below shows
)

// sum stands for a content.
type sum [16]byte

// entry is one member of a layer's tar. It holds no content.
type entry struct {
	path string // without a leading slash; "" is the root
	form form
	size int64 // of a file
	sum  sum   // of a file's content
	link string
	meta meta
}

// meta is what a change of is a change of metadata only.
type meta struct {
	mode       int64
	uid, gid   int
	mtime      int64 // in nanoseconds
	attributes sum   // of the extended attributes
}

// changed lists what differs, in words.
func (m meta) changed(n meta) (list []string) {
	if m.mode != n.mode {
		list = append(list, "mode")
	}
	if m.uid != n.uid || m.gid != n.gid {
		list = append(list, "owner")
	}
	if m.attributes != n.attributes {
		list = append(list, "attributes")
	}
	if m.mtime != n.mtime {
		list = append(list, "time")
	}
	return list
}

// whiteoutPrefix begins the name of a file that stands for a deletion.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// scan reads a layer and lists what is in it.
func (im Image) scan(ctx context.Context, i int) ([]entry, error) {
	l, err := im.openLayer(ctx, im.Manifest.Layers[i])
	if err != nil {
		return nil, err
	}
	defer l.close()
	var list []entry
	s := newScanner(l)
	for {
		e, err := s.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("read layer %s: %w", im.Manifest.Layers[i].Digest, err)
		}
		list = append(list, e)
	}
	if err := l.rest(); err != nil {
		return nil, fmt.Errorf("read layer %s: %w", im.Manifest.Layers[i].Digest, err)
	}
	return list, nil
}

// scanner makes entries of a tar stream.
type scanner struct {
	tar    *tar.Reader
	header *tar.Header // of the last entry
	buffer []byte
}

func newScanner(r io.Reader) *scanner {
	return &scanner{tar: tar.NewReader(r), buffer: make([]byte, 256<<10)}
}

// next returns the next entry, or io.EOF at the archive's end.
func (s *scanner) next() (entry, error) {
	h, err := s.tar.Next()
	if err != nil {
		return entry{}, err
	}
	s.header = h
	e := entry{path: clean(h.Name), meta: meta{h.Mode, h.Uid, h.Gid, h.ModTime.UnixNano(), attributes(h)}}
	dir, name := path.Split(e.path)
	switch {
	case name == opaqueName:
		e.form, e.path = opaque, strings.TrimSuffix(dir, "/")
		return e, nil
	case strings.HasPrefix(name, whiteoutPrefix+whiteoutPrefix): // aufs' own files
		e.form = device
		return e, nil
	case strings.HasPrefix(name, whiteoutPrefix):
		e.form, e.path = whiteout, dir+strings.TrimPrefix(name, whiteoutPrefix)
		return e, nil
	}
	switch h.Typeflag {
	case tar.TypeDir:
		e.form = directory
	case tar.TypeSymlink:
		e.form, e.link = symlink, h.Linkname
	case tar.TypeLink:
		e.form, e.link = hardlink, clean(h.Linkname)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		e.form, e.size = file, h.Size
		digest := sha256.New()
		if _, err := io.CopyBuffer(digest, onlyReader{s.tar}, s.buffer); err != nil {
			return e, fmt.Errorf("%s: %w", e.path, err)
		}
		e.sum = sum(digest.Sum(nil)[:16])
	default:
		e.form = device
	}
	return e, nil
}

// onlyReader keeps io.Copy from the reader's own way of copying, which uses buffers of its own.
type onlyReader struct{ io.Reader }

// clean is a path as it is in the final file system: what leads out of the root does not.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

const xattrPrefix = "SCHILY.xattr."

// attributes stands for the extended attributes of an entry.
func attributes(h *tar.Header) sum {
	var b bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if strings.HasPrefix(k, xattrPrefix) {
			fmt.Fprintf(&b, "%q %q\n", k, h.PAXRecords[k])
		}
	}
	if b.Len() == 0 {
		return sum{}
	}
	s := sha256.Sum256(b.Bytes())
	return sum(s[:16])
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
