// Package unpack decompresses layers while their files are written.
//
//	content store ──> gunzip (a goroutine) ──> a few blocks ahead ──> containerd: digest, tar, files
//
// containerd has one goroutine for all of that, and a program for gunzip that it finds in PATH (igzip, unpigz) or the standard library's.
// Register puts a reader before containerd's own; what is read, checked and written is what it was. The package knows nothing of BuildKit.
//
// Only what says that it is gzip, and is, is meant. zstd is decompressed ahead by containerd's reader already.
//
// Early has a layer unpacked while it is fetched.
package unpack

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/typeurl/v2"
	"github.com/klauspost/compress/gzip"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Register lets all appliers of this process decompress so. containerd keeps what decompresses in a list of the process; the last entry is asked first.
func Register() { once.Do(func() { diff.RegisterProcessor(handler) }) }

var once sync.Once

func handler(ctx context.Context, mediaType string) (diff.StreamProcessorInit, bool) {
	if c, err := images.DiffCompression(ctx, mediaType); err != nil || c != "gzip" {
		return nil, false
	}
	return func(_ context.Context, stream diff.StreamProcessor, _ map[string]typeurl.Any) (diff.StreamProcessor, error) {
		r, err := open(stream)
		if err != nil {
			return nil, fmt.Errorf("decompress layer: %w", err)
		}
		return layer{r}, nil
	}, true
}

// layer is a stream of an uncompressed layer.
type layer struct{ io.ReadCloser }

func (layer) MediaType() string { return ocispecs.MediaTypeImageLayer }

// readBytes is how much of a compressed layer is read at once.
const readBytes = 256 << 10

// Open decompresses a layer, gzip ahead of who reads it.
func Open(stream io.Reader) (io.ReadCloser, error) { return open(stream) }

// open begins to decompress. What is not gzip in spite of its media type, containerd has its ways with.
func open(stream io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(stream, readBytes)
	if magic, _ := in.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return compression.DecompressStream(in)
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	return newAhead(z), nil
}
