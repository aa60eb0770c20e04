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
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// What is no tar is no layer in parts.
func TestWriteParts(t *testing.T) {
	var out bytes.Buffer
	if p, err := WriteParts(&out, bytes.NewReader(bytes.Repeat([]byte("no tar"), 1000)), Options{Cores: 1}); err == nil {
		t.Errorf("got %+v", p)
	}
}

// A large layer of a cache has a table of contents, with the label by which its maker knows it; a small one is zstd and nothing else. Both are zstd to who does not look further.
func TestForCache(t *testing.T) {
	for _, c := range []struct {
		name  string
		in    []byte
		table bool
	}{
		{"empty", nil, false},
		{"small", layer(t, 5, 50), false},
		{"large", layer(t, 5, 1000), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if large := len(c.in) >= LargeBytes; large != c.table {
				t.Fatalf("the layer has %d bytes", len(c.in))
			}
			comp := compression.New(ForCache(Options{Cores: 2}))
			start, finalize := comp.Type.Compress(t.Context(), comp)
			var out bytes.Buffer
			w, err := start(&out, ocispecs.MediaTypeImageLayerZstd)
			if err != nil {
				t.Fatal(err)
			}
			for rest := c.in; len(rest) > 0; rest = rest[min(32<<10, len(rest)):] {
				if _, err := w.Write(rest[:min(32<<10, len(rest))]); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			z, err := zstd.NewReader(bytes.NewReader(out.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			defer z.Close()
			if whole, err := io.ReadAll(z); err != nil || !bytes.Equal(whole, c.in) {
				t.Errorf("decompressed it has %d bytes, not %d: %v", len(whole), len(c.in), err)
			}
			blobs, err := local.NewLabeledStore(t.TempDir(), blobLabels{})
			if err != nil {
				t.Fatal(err)
			}
			d := ocispecs.Descriptor{Digest: digest.FromBytes(out.Bytes()), Size: int64(out.Len())}
			if err := content.WriteBlob(t.Context(), blobs, "blob", &out, d); err != nil {
				t.Fatal(err)
			}
			annotations, err := finalize(t.Context(), blobs)
			if err != nil {
				t.Fatal(err)
			}
			info, err := blobs.Info(t.Context(), d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			toc := annotations[estargz.TOCJSONDigestAnnotation]
			if c.table {
				var again bytes.Buffer
				p, err := WriteParts(&again, bytes.NewReader(c.in), Options{Cores: 3})
				want := Parts{Blob: d.Digest, Bytes: d.Size, DiffID: digest.FromBytes(c.in), TOC: digest.Digest(toc)}
				if err != nil || p != want || digest.FromBytes(again.Bytes()) != d.Digest {
					t.Errorf("in parts: got %+v, %v; want %+v", p, err, want)
				}
			}
			if table := toc != ""; table != c.table || MadeForCache(info.Labels) != c.table {
				t.Fatalf("annotations %v, labels %v", annotations, info.Labels)
			}
			if !c.table {
				return
			}
			ra, err := blobs.ReaderAt(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			defer ra.Close()
			r, err := estargz.Open(io.NewSectionReader(ra, 0, d.Size), estargz.WithDecompressors(new(zstdchunked.Decompressor)))
			if err != nil {
				t.Fatal(err)
			}
			if r.TOCDigest().String() != toc {
				t.Errorf("the table is %s, and not %s", r.TOCDigest(), toc)
			}
		})
	}
}

// blobLabels are those of blobs, in memory.
type blobLabels map[digest.Digest]map[string]string

func (l blobLabels) Get(d digest.Digest) (map[string]string, error) { return l[d], nil }

func (l blobLabels) Set(d digest.Digest, all map[string]string) error {
	l[d] = all
	return nil
}

func (l blobLabels) Update(d digest.Digest, some map[string]string) (map[string]string, error) {
	if l[d] == nil {
		l[d] = map[string]string{}
	}
	for k, v := range some {
		l[d][k] = v
	}
	return l[d], nil
}
