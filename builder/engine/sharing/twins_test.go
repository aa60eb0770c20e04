package sharing

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/cache/remote"
)

// TestTwinEntry has what an entry of a twin may say, and what it may not.
func TestTwinEntry(t *testing.T) {
	named, err := reference.ParseNormalizedNamed("registry.example/cache")
	if err != nil {
		t.Fatal(err)
	}
	r := reading{store: &store{named: named}}
	of := ocispecs.Descriptor{Digest: digest.FromString("layer"), Size: 100 << 20}
	diffID, toc, blob := digest.FromString("content").String(), digest.FromString("table"), digest.FromString("twin")
	good := func() remote.Entry {
		return remote.Entry{Kind: kindTwin, Blob: ocispecs.Descriptor{MediaType: mediaTypeTwin, Digest: blob, Size: 90 << 20}, Note: map[string]string{noteDiffID: diffID, noteTOC: toc.String()}}
	}
	for _, tc := range []struct {
		name   string
		change func(*remote.Entry)
		want   string // part of the error
	}{
		{"as it should be", func(*remote.Entry) {}, ""},
		{"with annotations of its own", func(e *remote.Entry) {
			e.Blob.Annotations = map[string]string{"containerd.io/snapshot/remote/stargz.reference": "evil.example/x", estargz.TOCJSONDigestAnnotation: of.Digest.String()}
		}, ""},
		{"of other content", func(e *remote.Entry) { e.Note[noteDiffID] = toc.String() }, "it is one of"},
		{"without a table", func(e *remote.Entry) { delete(e.Note, noteTOC) }, "its table"},
		{"a table that is none", func(e *remote.Entry) { e.Note[noteTOC] = "sha256:../../etc" }, "its table"},
		{"no layer", func(e *remote.Entry) { e.Blob.MediaType = ocispecs.MediaTypeImageManifest }, "it is"},
		{"elsewhere", func(e *remote.Entry) {
			e.Blob.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
		}, "it is"},
		{"nothing", func(e *remote.Entry) { e.Blob.Size = 0 }, "0 bytes"},
		{"less than nothing", func(e *remote.Entry) { e.Blob.Size = -1 }, "-1 bytes"},
		{"far too large", func(e *remote.Entry) { e.Blob.Size = 1 << 40 }, "1099511627776 bytes"},
	} {
		e := good()
		tc.change(&e)
		got, err := r.twin(e, diffID, of)
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.want)
			}
			continue
		}
		want := map[string]string{
			estargz.TOCJSONDigestAnnotation: toc.String(), estargz.StoreUncompressedSizeAnnotation: "", lazypull.CacheLabel: "yes",
			"containerd.io/snapshot/remote/stargz.reference": "registry.example/cache:latest", "containerd.io/snapshot/remote/stargz.digest": blob.String(), "containerd.io/snapshot/remote/stargz.layers": blob.String(),
		}
		maps.Copy(want, lazypull.TwinLabels(of.Digest, 90<<20))
		if err != nil || got.TOC != toc || !maps.Equal(got.Labels, want) {
			t.Errorf("%s: got %v, %v\nwant %v", tc.name, got, err, want)
		}
	}
	if twinKey(diffID) == twinKey(toc.String()) || len(twinKey("")) != 64 {
		t.Error("keys are not those of contents")
	}
}

// TestWriteTwin: the twin of a layer has its content, or there is none.
func TestWriteTwin(t *testing.T) {
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, h := range []*tar.Header{{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("abc")[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	z := gzip.NewWriter(&packed)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	diffID := digest.FromBytes(plain.Bytes()).String()
	for _, tc := range []struct {
		name   string
		blob   []byte
		diffID string
		want   string
	}{
		{"gzip", packed.Bytes(), diffID, ""},
		{"uncompressed", plain.Bytes(), diffID, ""},
		{"other content", packed.Bytes(), digest.FromString("other").String(), "its content is"},
		{"cut", packed.Bytes()[:packed.Len()-12], diffID, "unexpected EOF"},
		{"no tar", bytes.Repeat([]byte("no tar"), 1000), diffID, "compress"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := ocispecs.Descriptor{Digest: digest.FromBytes(tc.blob), Size: int64(len(tc.blob)), Annotations: map[string]string{labels.LabelUncompressed: tc.diffID}}
			if err := content.WriteBlob(t.Context(), store, tc.name, bytes.NewReader(tc.blob), d); err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(filepath.Join(t.TempDir(), "twin"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			e := &exporter{caches: &Caches{content: store}}
			parts, err := e.writeTwin(t.Context(), f, d)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want an error with %q", err, tc.want)
				}
				return
			}
			if err != nil || parts.DiffID.String() != tc.diffID {
				t.Fatalf("got %+v, %v", parts, err)
			}
			if err := checkTwin(t.Context(), f, parts); err != nil {
				t.Error(err)
			}
			parts.TOC = digest.FromString("another table")
			if err := checkTwin(t.Context(), f, parts); err == nil {
				t.Error("a twin with the table of another one can be read")
			}
		})
	}
}
