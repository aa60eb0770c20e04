package compress

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// A zstd:chunked blob is eStargz with frames of zstd in place of members of gzip. Its table of contents is no file of the archive but lies in a frame that decompressors skip, so that a
// decompressed blob is the tar that went in, bit for bit. Where the table is stands in the blob's last bytes, and in annotations of the manifest: Podman and CRI-O go by those, stargz-snapshotter by
// the digest of the table that eStargz has, too.
//
// BuildKit keeps only some annotations with a blob: that of eStargz's table is one of them, by which a blob is known here. The others come back from the blob, see [Annotate].

// AttrChunked is an attribute of exporters besides compression=zstd, since BuildKit has no name for zstd:chunked.
const AttrChunked = "optbuild-chunked"

// TakeChunked takes AttrChunked out of other attributes.
func TakeChunked(attrs map[string]string) bool {
	on := is(attrs[AttrChunked])
	delete(attrs, AttrChunked)
	return on
}

// Chunked returns zstd:chunked in place of zstd. Other compressions stay as they are.
func Chunked(t compression.Type) compression.Type {
	if z, ok := t.(plainZstd); ok {
		return chunked{compression.Zstd, z.options}
	}
	return t
}

// newChunked returns a writer of which each member has some bytes of small files, or one file if group is 0.
func newChunked(dst io.Writer, level, cores, group int) *stargzWriter {
	return startStargz(func(r io.Reader) (sums, error) {
		return writeMembers(dst, r, memberFormat{
			member: func(out, in *bytes.Buffer) error { return zstdFrame(out, in.Bytes(), level) },
			end:    func(toc *estargz.JTOC, at int64) (stargzEnd, error) { return endChunked(toc, at, level) },
			group:  group,
		}, cores)
	})
}

// endChunked has the library write the table and the footer.
func endChunked(toc *estargz.JTOC, at int64, level int) (stargzEnd, error) {
	var out bytes.Buffer
	lib := &zstdchunked.Compressor{CompressionLevel: zstd.EncoderLevelFromZstd(level)}
	sum, err := lib.WriteTOCAndFooter(&out, at, toc, nil)
	return stargzEnd{bytes: out.Bytes(), toc: sum}, err
}

// encoders are compressors for each of the encoder's levels, which are four.
var encoders [zstd.SpeedBestCompression + 1]sync.Pool

func zstdFrame(out *bytes.Buffer, in []byte, level int) error {
	l := zstd.EncoderLevelFromZstd(level)
	e, _ := encoders[l].Get().(*zstd.Encoder)
	if e == nil {
		var err error
		if e, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(l), zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true)); err != nil {
			return err
		}
	}
	defer encoders[l].Put(e)
	_, err := out.Write(e.EncodeAll(in, out.AvailableBuffer()))
	return err
}

// chunked is zstd:chunked as BuildKit knows compressions: zstd with annotations.
type chunked struct {
	compression.Type // Zstd
	options          Options
}

func (chunked) String() string { return string(ZstdChunked) }

// OnlySupportOCITypes is true since docker's manifests have no annotations.
func (chunked) OnlySupportOCITypes() bool { return true }

func (chunked) NeedsComputeDiffBySelf(compression.Config) bool { return false }

func (t chunked) Compress(_ context.Context, c compression.Config) (compression.Compressor, compression.Finalizer) {
	return compressStargz(t.MediaType(), func(dst io.Writer) *stargzWriter {
		return newChunked(dst, ZstdChunked.level(c.Level), t.options.cores(), 0)
	}, nil)
}

func (t chunked) NeedsConversion(ctx context.Context, blobs content.Store, d ocispecs.Descriptor) (bool, error) {
	needs, err := t.Type.NeedsConversion(ctx, blobs, d)
	return needs || !IsChunked(d), err
}

// plainZstd is zstd in one stream.
type plainZstd struct{ plain }

// NeedsConversion is true of zstd:chunked.
func (t plainZstd) NeedsConversion(ctx context.Context, blobs content.Store, d ocispecs.Descriptor) (bool, error) {
	needs, err := t.Type.NeedsConversion(ctx, blobs, d)
	return needs || IsChunked(d), err
}

// IsChunked is true of layers that are zstd:chunked, as far as their descriptors say so.
func IsChunked(d ocispecs.Descriptor) bool {
	return d.MediaType == ocispecs.MediaTypeImageLayerZstd && d.Annotations[estargz.TOCJSONDigestAnnotation] != ""
}

// Annotate returns a layer with all annotations of its format. A layer of another one, or whose blob is not here, stays as it is, and so does one that only claims to be: base images say what they like.
func Annotate(ctx context.Context, blobs content.Provider, d ocispecs.Descriptor) (ocispecs.Descriptor, error) {
	if !IsChunked(d) || d.Annotations[zstdchunked.ManifestPositionAnnotation] != "" {
		return d, nil
	}
	ra, err := blobs.ReaderAt(ctx, d)
	if err != nil {
		return d, nil //nolint:nilerr // it is at a registry only, and can be pulled as a whole
	}
	defer ra.Close()
	if d.Size < zstdchunked.FooterSize {
		return d, nil
	}
	footer := make([]byte, zstdchunked.FooterSize)
	if _, err := ra.ReadAt(footer, d.Size-int64(len(footer))); err != nil {
		return d, fmt.Errorf("read the footer of %s: %w", d.Digest, err)
	}
	_, at, size, err := new(zstdchunked.Decompressor).ParseFooter(footer)
	if err != nil || at < 0 || size < 0 || at+size > d.Size {
		return d, nil //nolint:nilerr // it is zstd, and can be pulled as such
	}
	sum := digest.Canonical.Digester()
	if _, err := io.Copy(sum.Hash(), io.NewSectionReader(ra, at, size)); err != nil {
		return d, fmt.Errorf("read the table of %s: %w", d.Digest, err)
	}
	d.Annotations = maps.Clone(d.Annotations)
	d.Annotations[zstdchunked.ManifestChecksumAnnotation] = sum.Digest().String()
	// Offset and length, length when decompressed, and the kind of table.
	d.Annotations[zstdchunked.ManifestPositionAnnotation] = fmt.Sprintf("%d:%d:%d:%d", at, size, binary.LittleEndian.Uint64(footer[16:]), binary.LittleEndian.Uint64(footer[24:]))
	return d, nil
}
