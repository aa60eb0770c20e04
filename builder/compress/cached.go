package compress

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
)

// LargeBytes is from which size of its tar on a layer of a cache is zstd:chunked. A blob of which parts can be read needs a table, and requests for the parts; one that is no larger than a few
// of those requests bring anyway is better fetched at once.
const LargeBytes = 8 << 20

// groupBytes of small files are compressed together in a cache's large layers: one by one they take half as much space again (README.md has figures). Decompressing so much takes some milliseconds.
const groupBytes = 512 << 10

// ForCache returns the compression of layers that only caches have: zstd, and zstd:chunked for large ones, of which steps elsewhere can then read parts. The media type is the same, so that it need not be
// known how large a layer becomes.
func ForCache(o Options) compression.Type { return cached{compression.Zstd, o} }

// cachedLabel is the label of a blob that this machine has made with a table of contents of a layer that it knows without.
const cachedLabel = "optbuild.cached"

// MadeForCache is true of a blob, by its labels, that was made here.
func MadeForCache(labels map[string]string) bool { return labels[cachedLabel] != "" }

type cached struct {
	compression.Type // Zstd
	options          Options
}

func (cached) String() string { return "zstd or " + string(ZstdChunked) }

func (cached) NeedsComputeDiffBySelf(compression.Config) bool { return false }

func (t cached) Compress(_ context.Context, c compression.Config) (compression.Compressor, compression.Finalizer) {
	write, finalize := compressStargz(t.MediaType(), func(dst io.Writer) *stargzWriter {
		return newChunked(dst, ZstdChunked.level(c.Level), t.options.cores(), groupBytes)
	}, map[string]string{cachedLabel: "yes"})
	var w *sized
	return func(dst io.Writer, of string) (io.WriteCloser, error) {
			w = &sized{
				small: func() (io.WriteCloser, error) { return Writer(dst, Zstd, c.Level, t.options) },
				large: func() (io.WriteCloser, error) { return write(dst, of) },
			}
			return w, nil
		}, func(ctx context.Context, blobs content.Store) (map[string]string, error) {
			if w == nil || w.to == nil {
				return nil, nil
			}
			return finalize(ctx, blobs)
		}
}

// Parts are what is told of a blob of which parts can be read.
type Parts struct {
	Blob   digest.Digest
	Bytes  int64
	DiffID digest.Digest // of the tar that went in
	TOC    digest.Digest // of the table of contents
}

// WriteParts writes a tar as it is in a large layer of a cache.
func WriteParts(dst io.Writer, tar io.Reader, o Options) (p Parts, err error) {
	n := &counter{w: dst}
	w := newChunked(n, ZstdChunked.level(nil), o.cores(), groupBytes)
	_, err = io.Copy(w, tar)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return p, fmt.Errorf("compress a layer in parts: %w", err)
	}
	return Parts{Blob: w.sums.blob, Bytes: n.bytes, DiffID: w.sums.diffID, TOC: w.sums.toc}, nil
}

type counter struct {
	w     io.Writer
	bytes int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.bytes += int64(n)
	return n, err
}

// sized holds back what is written to it until it is known how much that is.
type sized struct {
	small, large func() (io.WriteCloser, error)
	held         []byte
	to           io.WriteCloser // large, if it is
	closed       bool
}

func (w *sized) Write(p []byte) (int, error) {
	if w.to != nil {
		return w.to.Write(p)
	}
	w.held = append(w.held, p...)
	if len(w.held) < LargeBytes {
		return len(p), nil
	}
	to, err := w.large()
	if err != nil {
		return 0, err
	}
	w.to = to
	if _, err := to.Write(w.held); err != nil {
		return 0, err
	}
	w.held = nil
	return len(p), nil
}

// Close may be called more than once, as BuildKit does.
func (w *sized) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	if w.to != nil {
		return w.to.Close()
	}
	to, err := w.small()
	if err != nil {
		return err
	}
	if _, err := to.Write(w.held); err != nil {
		_ = to.Close()
		return fmt.Errorf("compress a small layer: %w", err)
	}
	w.held = nil
	return to.Close()
}
