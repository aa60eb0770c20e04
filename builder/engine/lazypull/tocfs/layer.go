// Package tocfs shows an eStargz or zstd:chunked layer as a file system, by its table of contents, and fetches the parts of it whose files are read.
//
// What comes in is a blob that can be read at any place, and the digest of the table; what goes out is a mount that has exactly the files that unpacking the layer makes in a directory
// of an overlay: whiteouts and opaque directories are overlayfs's. Names, attributes and links are known from the table alone; no request for them leaves the machine. The
// content of a file is compared, chunk by chunk, with the digests in the table before any byte of it is given out; what does not hold, or can't be fetched, is EIO and is reported.
//
//	kernel ──FUSE──> FileSystem ──> fs/reader (chunks, verified, cached) ──> fs/remote (parts of the blob, cached) ──> Fetch
//	                    └── tree (the table)
//
// The readers are stargz-snapshotter's. Its file system (fs/layer) is not used: v0.18.2 does not compile with the go-fuse that views are made with, it shows a directory of its own
// in each layer, and its times for files of 1970 are those of the year 1.
//
// Where it is weak: the time of a file has no fractions of a second (the format has none).
package tocfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/fs/reader"
	"github.com/containerd/stargz-snapshotter/fs/remote"
	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/containerd/stargz-snapshotter/metadata/memory"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Source is where a layer's blob is read from.
type Source interface {
	// Fetch returns size bytes of the blob, from off on. It may be called concurrently.
	Fetch(ctx context.Context, off, size int64) (io.ReadCloser, error)
}

// Options of a layer.
type Options struct {
	Digest digest.Digest // of the blob
	Bytes  int64         // of the blob
	TOC    digest.Digest // of the table of contents
	Cache  string        // a directory for what was fetched, which exists
	// Failed is told why a file can't be read, before its reader is.
	Failed func(error)
}

// Layer is a layer that can be mounted. Its methods may be called concurrently.
type Layer struct {
	o       Options
	blob    remote.Blob
	reader  reader.Reader
	tree    *tree
	offsets []int64 // where files begin in the blob, sorted; the last is where the table does
	parts   *parts
}

const (
	partBytes = 64 << 10  // the unit in which the blob is fetched
	tailBytes = 512 << 10 // of the blob's end are read at once: most tables are smaller
	wholeUpTo = 2 << 20   // a blob up to this size is fetched at once
	maxBytes  = 1 << 40   // larger ones are not believed
)

// Open reads a layer's table of contents, which must be the one of the digest.
func Open(ctx context.Context, s Source, o Options) (*Layer, error) {
	if o.Bytes <= 0 || o.Bytes > maxBytes {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrUnfit, o.Bytes)
	}
	blobCache, err := newParted(o.Cache)
	if err != nil {
		return nil, err
	}
	r := remote.NewResolver(config.BlobConfig{ChunkSize: partBytes, PrefetchChunkSize: partBytes}, map[string]remote.Handler{"source": handler{s, o}})
	blob, err := r.Resolve(ctx, nil, reference.Spec{}, ocispecs.Descriptor{Digest: o.Digest, Size: o.Bytes}, blobCache)
	if err != nil {
		return nil, errors.Join(err, blobCache.Close())
	}
	l := &Layer{o: o, blob: blob, parts: newParts(o.Bytes, func(off, size int64) error { return blob.Cache(off, size) })}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	return l, nil
}

func (l *Layer) open() (err error) {
	defer func() {
		if p := recover(); p != nil { // the library's, about what the registry has sent
			err = fmt.Errorf("%w: panic: %v", ErrUnfit, p)
		}
	}()
	tail := max(0, l.o.Bytes-tailBytes)
	if l.o.Bytes <= wholeUpTo {
		tail = 0
	}
	if err := l.parts.need(tail, l.o.Bytes-tail); err != nil {
		return fmt.Errorf("fetch the table of contents: %w", err)
	}
	section := io.NewSectionReader(blobReader{l.blob, l.parts}, 0, l.o.Bytes)
	table, form, other, err := table(section)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	if table < 0 || table >= l.o.Bytes {
		return fmt.Errorf("%w: its table is not in it", ErrUnfit)
	}
	if err := l.parts.need(table, l.o.Bytes-table); err != nil {
		return fmt.Errorf("fetch the table of contents: %w", err)
	}
	if err := checkTable(io.NewSectionReader(section, table, l.o.Bytes-table), form); err != nil {
		return fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	meta, err := memory.NewReader(section, metadata.WithDecompressors(other...))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	vr, err := reader.NewReader(meta, newRecent(), l.o.Digest)
	if err != nil {
		return err
	}
	if l.reader, err = vr.VerifyTOC(l.o.TOC); err != nil {
		return err
	}
	if l.tree, err = newTree(meta); err != nil {
		return err
	}
	for _, n := range l.tree.nodes {
		if n.attr.Size > 0 && n.chunked && (n.offset < 0 || n.offset >= table) {
			return fmt.Errorf("%w: a file is outside of it", ErrUnfit)
		}
		if n.offset > 0 {
			l.offsets = append(l.offsets, n.offset)
		}
	}
	l.offsets = append(l.offsets, table)
	slices.Sort(l.offsets)
	l.parts.open()
	return nil
}

// Close lets go of what was fetched. Nobody may read any more.
func (l *Layer) Close() error {
	l.parts.stop()
	return errors.Join(l.reader.Close(), l.blob.Close())
}

// Names is how many files it has.
func (l *Layer) Names() int { return len(l.tree.nodes) }

// readAt reads a file's content. It is never short.
func (l *Layer) readAt(n *node, p []byte, off int64) (int, error) {
	if off >= int64(n.attr.Size) {
		return 0, nil
	}
	p = p[:min(int64(len(p)), int64(n.attr.Size)-off)]
	f := n.file.Load()
	if f == nil {
		r, err := l.reader.OpenFile(n.id)
		if err != nil {
			return 0, err
		}
		f = &r
		i, _ := slices.BinarySearch(l.offsets, n.offset+1)
		if err := l.parts.need(n.offset, min(l.offsets[i]-n.offset, maxWindow)); err != nil {
			return 0, err
		}
		n.file.Store(f)
	}
	got, err := (*f).ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if got != len(p) {
		return 0, fmt.Errorf("%d of %d bytes are there", got, len(p))
	}
	return got, nil
}

// handler is what stargz-snapshotter asks where a blob is.
type handler struct {
	s Source
	o Options
}

func (h handler) Handle(context.Context, ocispecs.Descriptor) (remote.Fetcher, int64, error) {
	return fetcher(h), h.o.Bytes, nil
}

type fetcher struct {
	s Source
	o Options
}

func (f fetcher) Fetch(ctx context.Context, off, size int64) (io.ReadCloser, error) {
	return f.s.Fetch(ctx, off, size)
}

func (f fetcher) Check() error { return nil }

func (f fetcher) GenID(off, size int64) string {
	return partKey(off, size)
}

// blobReader reads the blob, and has what is missing of it fetched in larger parts than its readers ask for.
type blobReader struct {
	blob  remote.Blob
	parts *parts
}

func (r blobReader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.parts.need(off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := r.blob.ReadAt(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}
