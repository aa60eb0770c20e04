package compress

import (
	"bytes"
	"io"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// The blob opens with stargz-snapshotter's library, every file reads back, and who knows of zstd only gets the tar that went in.
func TestChunked(t *testing.T) {
	in := layer(t, 5, 150)
	var out bytes.Buffer
	w := newChunked(&out, 3, 2, 0)
	if _, err := io.Copy(w, bytes.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	blob := out.Bytes()
	if digest.FromBytes(blob) != w.sums.blob || digest.FromBytes(in) != w.sums.diffID || int64(len(in)) != w.sums.uncompressed {
		t.Errorf("of a blob %s of a tar %s of %d bytes was told %+v", digest.FromBytes(blob), digest.FromBytes(in), len(in), w.sums)
	}
	z, err := zstd.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if whole, err := io.ReadAll(z); err != nil || !bytes.Equal(whole, in) {
		t.Errorf("decompressed it has %d bytes, not %d: %v", len(whole), len(in), err)
	}
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))), estargz.WithDecompressors(new(zstdchunked.Decompressor)))
	if err != nil {
		t.Fatal(err)
	}
	readsBack(t, r, w.sums.toc, in, 150)
}

// The annotations that come back from a blob are those that the library gives to whoever writes one.
func TestAnnotate(t *testing.T) {
	in := layer(t, 1, 40)
	lib := &zstdchunked.Compressor{CompressionLevel: zstd.SpeedDefault, Metadata: map[string]string{}}
	var out bytes.Buffer
	lw := estargz.NewWriterWithCompressor(&out, lib)
	if err := lw.AppendTarLossLess(bytes.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	toc, err := lw.Close()
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: digest.FromBytes(out.Bytes()), Size: int64(out.Len()),
		Annotations: map[string]string{estargz.TOCJSONDigestAnnotation: toc.String()}}
	if got, err := Annotate(t.Context(), blobs, d); err != nil || len(got.Annotations) != 1 {
		t.Errorf("without the blob: %v, %v", got.Annotations, err)
	}
	if err := content.WriteBlob(t.Context(), blobs, "x", bytes.NewReader(out.Bytes()), d); err != nil {
		t.Fatal(err)
	}
	got, err := Annotate(t.Context(), blobs, d)
	if err != nil || len(lib.Metadata) != 2 {
		t.Fatal(err, lib.Metadata)
	}
	for k, want := range lib.Metadata {
		if got.Annotations[k] != want {
			t.Errorf("%s is %q, not %q", k, got.Annotations[k], want)
		}
	}
	if len(d.Annotations) != 1 {
		t.Error("the descriptor that was given has changed")
	}
	d.Annotations = nil
	if got, err := Annotate(t.Context(), blobs, d); err != nil || got.Annotations != nil {
		t.Errorf("plain zstd: %v, %v", got.Annotations, err)
	}
}
