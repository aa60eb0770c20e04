package analyze

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNoLayout is wrapped by errors about a path that has no images.
var ErrNoLayout = errors.New("neither an OCI image layout nor an archive of one")

// Layout is an OCI image layout: a directory, or an archive of one (what `optbuild save`, `docker save` and -o type=oci write), which is not
// unpacked. Close it.
type Layout struct {
	Index ocispecs.Index
	dir   string
	file  *os.File
	blobs map[digest.Digest]span // of an archive
}

// span is where a blob is in an archive.
type span struct{ offset, size int64 }

// OpenLayout opens a directory or a file.
func OpenLayout(name string) (_ *Layout, err error) {
	l := &Layout{dir: name}
	defer func() {
		if err != nil {
			l.Close()
			err = fmt.Errorf("open %s: %w", name, err)
		}
	}()
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err.(*os.PathError).Err
	}
	var index []byte
	if fi.IsDir() {
		index, err = readBounded(filepath.Join(name, ocispecs.ImageIndexFile))
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNoLayout
		}
	} else {
		if l.file, err = os.Open(name); err != nil {
			return nil, err
		}
		index, err = l.readArchive()
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(index, &l.Index); err != nil || len(l.Index.Manifests) == 0 {
		return nil, ErrNoLayout
	}
	return l, nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxJSON))
}

// readArchive finds the blobs of an uncompressed archive, and returns the index's text.
func (l *Layout) readArchive() (index []byte, err error) {
	l.blobs = map[digest.Digest]span{}
	r := tar.NewReader(l.file)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w (a compressed archive has to be unpacked before)", ErrNoLayout)
		}
		name := path.Clean(h.Name)
		if name == ocispecs.ImageIndexFile {
			if index, err = io.ReadAll(io.LimitReader(r, maxJSON)); err != nil {
				return nil, err
			}
		}
		parts := strings.Split(name, "/")
		if h.Typeflag != tar.TypeReg || len(parts) != 3 || parts[0] != ocispecs.ImageBlobsDir {
			continue
		}
		at, err := l.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		l.blobs[digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[2])] = span{at, h.Size}
	}
	if index == nil {
		return nil, ErrNoLayout
	}
	return index, nil
}

// Find returns the descriptor of the image with a name or tag; "" is the only one.
func (l *Layout) Find(name string) (ocispecs.Descriptor, error) {
	var names []string
	for _, m := range l.Index.Manifests {
		ref, full := m.Annotations[ocispecs.AnnotationRefName], m.Annotations[images.AnnotationImageName]
		if name != "" && (name == ref || name == full || strings.HasSuffix(full, "/"+name) || name == m.Digest.String()) {
			return m, nil
		}
		names = append(names, strings.TrimSpace(full+" "+ref))
	}
	if name == "" && len(l.Index.Manifests) == 1 {
		return l.Index.Manifests[0], nil
	}
	if name == "" { // perhaps several names of one
		for _, m := range l.Index.Manifests {
			if m.Digest != l.Index.Manifests[0].Digest {
				return m, fmt.Errorf("%s has several images: choose one of %s", l.dir, strings.Join(names, ", "))
			}
		}
		return l.Index.Manifests[0], nil
	}
	return ocispecs.Descriptor{}, fmt.Errorf("%s has no image %q: it has %s", l.dir, name, strings.Join(names, ", "))
}

// ReaderAt opens a blob.
func (l *Layout) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if l.file != nil {
		s, ok := l.blobs[d.Digest]
		if !ok {
			return nil, fmt.Errorf("blob %s: %w", d.Digest, errdefs.ErrNotFound)
		}
		return section{io.NewSectionReader(l.file, s.offset, s.size)}, nil
	}
	f, err := os.Open(filepath.Join(l.dir, ocispecs.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded()))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, errdefs.ErrNotFound)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return blobFile{f, fi.Size()}, nil
}

// Close closes an archive's file.
func (l *Layout) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

type section struct{ *io.SectionReader }

func (section) Close() error { return nil }

type blobFile struct {
	*os.File
	size int64
}

func (b blobFile) Size() int64 { return b.size }
